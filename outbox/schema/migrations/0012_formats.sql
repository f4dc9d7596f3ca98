-- The shape of a request's body, by subscription, and the one secret that a format may put into it. Only tables that are
-- small are touched, and none is rewritten: the defaults are constants.
set local lock_timeout = '5s';

-- The audit takes a subscription as JSON, and no longer as a row of the table: before version 18 a column with a default
-- cannot be added to a table whose row a function takes. What is derived (filter_hash, sorting_since) is nobody's change.
create function outbox.audited_subscription(it jsonb) returns jsonb language sql stable
begin atomic
    select (it - '{version,updated_at,filter_hash,sorting_since}'::text[])
        || (select jsonb_object_agg(name, outbox.utc((it ->> name)::timestamptz))
            from unnest('{created_at,paused_at,disabled_at,removed_at,held_until}'::text[]) name);
end;
create or replace function outbox.audit_subscription() returns trigger language plpgsql security definer as $$
begin
    perform outbox.note_subscription(outbox.audited_subscription(pg_catalog.to_jsonb(old)),
                                     outbox.audited_subscription(pg_catalog.to_jsonb(new)));
    return null;
end $$;
drop trigger audit_update on outbox.subscriptions;
create trigger audit_update after update on outbox.subscriptions for each row
    when (to_jsonb(old) - '{version,updated_at,held_until,filter_hash,sorting_since}'::text[]
          <> to_jsonb(new) - '{version,updated_at,held_until,filter_hash,sorting_since}'::text[]
          or old.held_until is distinct from new.held_until
             and (new.held_until is null or new.held_until > clock_timestamp() + interval '2 days'
                  or not starts_with(current_setting('application_name', true), 'outbox-relay')))
    execute function outbox.audit_subscription();
drop function outbox.audited(outbox.subscriptions);

alter table outbox.subscriptions
    add column format text not null default 'standard',
    add column format_settings jsonb not null default '{}',
    add constraint format_is_a_word check (format ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    add constraint format_settings_is_object check (jsonb_typeof(format_settings) = 'object');

alter table outbox.secrets
    drop constraint kind_is_known,
    add constraint kind_is_known check (kind in ('signing', 'headers', 'authentication', 'tls', 'format_secret'));
