-- Who changed what, when, and what it was before. Triggers write it in the transaction of the change, so that Python,
-- the command line and plain SQL are alike, and nothing stays of what was rolled back. The tables of the data plane have
-- no such trigger. No secret is in it, sealed or not.

-- What the session says of itself: the setting outbox.actor, which outbox.act_as() and --actor make for a transaction.
-- A relay is known by the name of its connections.
create function outbox.actor() returns text language sql stable
begin atomic
    select coalesce(nullif(left(current_setting('outbox.actor', true), 256), ''),
                    case when starts_with(current_setting('application_name'), 'outbox-relay') then 'relay' else '' end);
end;

-- actor is a claim; role is the login role, which is none. subject is a text id (sub_…, dlv_…, evt_…), a sealing key's
-- id, or '' for several. before and after hold what changed. details is what an operation on many rows was asked for and
-- did: count, filter, and the first ids and deliveries.
create table outbox.audit (
    id uuid primary key default outbox.uuid7(),
    at timestamptz not null default clock_timestamp(),
    actor text not null default outbox.actor(),
    role text not null default session_user,
    action text not null,
    subject text not null default '',
    tenant text not null default '',
    before jsonb,
    after jsonb,
    details jsonb
);
create index audit_at on outbox.audit (at);
create index audit_subject on outbox.audit (subject, at);
create index audit_details on outbox.audit using gin (details jsonb_path_ops) where details is not null;

create function outbox.refuse_change() returns trigger language plpgsql as $$
begin
    raise 'outbox.audit is append-only: % is refused', tg_op using errcode = 'feature_not_supported';
end $$;
create trigger append_only before update or delete or truncate on outbox.audit
    for each statement execute function outbox.refuse_change();
alter table outbox.audit enable always trigger append_only;

-- RFC 3339 in UTC, whatever TimeZone the session has.
create function outbox.utc(moment timestamptz) returns text language sql stable
begin atomic
    select coalesce(to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), moment::text);
end;

-- A subscription as it is audited: what is counted for the relays' sake is no change of it.
create function outbox.audited(s outbox.subscriptions) returns jsonb language sql stable
begin atomic
    select (to_jsonb(s) - '{version,updated_at}'::text[]) || jsonb_build_object(
        'created_at', outbox.utc(s.created_at), 'paused_at', outbox.utc(s.paused_at),
        'disabled_at', outbox.utc(s.disabled_at), 'removed_at', outbox.utc(s.removed_at),
        'held_until', outbox.utc(s.held_until));
end;

-- A hold that begins or is prolonged is a receiver's doing, every 429 anew, and is not noted; that one is lifted is.
create function outbox.note_subscription(was jsonb, became jsonb) returns void language sql
begin atomic
    with changed as (
        select key, coalesce(o.value, 'null') old_value, coalesce(n.value, 'null') new_value
        from jsonb_each(was) o full join jsonb_each(became) n using (key)
        where coalesce(o.value, 'null') <> coalesce(n.value, 'null')
          and case when was is null or became is null then key not in ('id', 'created_at', 'held_until')
                   else key <> 'held_until' or became ->> 'held_until' is null end)
    insert into outbox.audit (action, subject, tenant, before, after)
    select case when was is null then 'added'
                when became is null then 'deleted'
                when was ->> 'removed_at' is null and became ->> 'removed_at' is not null then 'removed'
                when was ->> 'disabled_at' is null and became ->> 'disabled_at' is not null then 'disabled'
                when was ->> 'paused_at' is null and became ->> 'paused_at' is not null then 'paused'
                when was ->> 'disabled_at' is not null and became ->> 'disabled_at' is null then 'resumed'
                when was ->> 'paused_at' is not null and became ->> 'paused_at' is null then 'resumed'
                when was ->> 'held_until' is not null and became ->> 'held_until' is null then 'resumed'
                else 'updated' end,
           outbox.text_id('sub', (coalesce(became, was) ->> 'id')::uuid),
           coalesce(became, was) ->> 'tenant',
           case when was is not null then (select jsonb_object_agg(key, old_value) from changed) end,
           case when became is not null then (select jsonb_object_agg(key, new_value) from changed) end;
end;

-- Definer functions here say outbox. and pg_catalog. wherever a name is looked up when they run; what stands in
-- `begin atomic` was looked up when it was made.
create function outbox.audit_subscription() returns trigger language plpgsql security definer as $$
begin
    perform outbox.note_subscription(outbox.audited(old), outbox.audited(new));
    return null;
end $$;
create trigger audit after insert or delete on outbox.subscriptions
    for each row execute function outbox.audit_subscription();
create trigger audit_update after update on outbox.subscriptions for each row
    when (to_jsonb(old) - '{version,updated_at,held_until}'::text[]
          <> to_jsonb(new) - '{version,updated_at,held_until}'::text[]
          or old.held_until is not null and new.held_until is null)
    execute function outbox.audit_subscription();

-- Sealed anew to another key: only the text differs, and the key it is sealed to.
create function outbox.resealed(was outbox.secrets, became outbox.secrets) returns boolean language sql stable
begin atomic
    select was.secret <> became.secret and became.sealed_to is not null
       and became.sealed_to is distinct from was.sealed_to
       and (was.id, was.subscription_id, was.kind, was.hint, was.created_at, was.expires_at)
           is not distinct from
           (became.id, became.subscription_id, became.kind, became.hint, became.created_at, became.expires_at);
end;

create function outbox.audited(s outbox.secrets) returns jsonb language sql stable
begin atomic
    select jsonb_build_object('kind', s.kind, 'hint', s.hint, 'sealed_to', s.sealed_to,
                              'expires_at', outbox.utc(s.expires_at)) where s.id is not null;
end;

-- Of a deleted subscription's secrets nothing is noted: they go with it.
create function outbox.note_secret(was outbox.secrets, became outbox.secrets) returns void language sql
begin atomic
    insert into outbox.audit (action, subject, tenant, before, after)
    select case when was.id is null then 'secret added'
                when became.id is null then 'secret removed'
                when was.secret <> became.secret then 'secret replaced'
                when was.expires_at is distinct from became.expires_at then 'secret expires'
                else 'secret updated' end,
           outbox.text_id('sub', s.id), s.tenant, outbox.audited(was), outbox.audited(became)
    from outbox.subscriptions s
    where s.id = coalesce(became.subscription_id, was.subscription_id)
      and (was.id, was.secret, was.kind, was.hint, was.created_at, was.expires_at)
          is distinct from
          (became.id, became.secret, became.kind, became.hint, became.created_at, became.expires_at);
end;

-- One row a statement, however many were sealed anew by it.
create function outbox.note_resealed(subscription_ids uuid[]) returns void language sql
begin atomic
    with several as (select distinct outbox.text_id('sub', id) id from unnest(subscription_ids) id),
    listed as (select id from several order by id limit 1000)
    insert into outbox.audit (action, subject, details)
    select 'secret resealed', case when count(*) = 1 then min(id) else '' end,
           jsonb_build_object('count', cardinality(subscription_ids), 'ids', jsonb_agg(id order by id))
    from listed
    having count(*) > 0;
end;

create function outbox.audit_secret() returns trigger language plpgsql security definer as $$
begin
    perform outbox.note_secret(old, new);
    return null;
end $$;
create trigger audit after insert or delete on outbox.secrets
    for each row execute function outbox.audit_secret();

-- One that is moved to another subscription is removed from the one and added to the other.
create function outbox.audit_secrets() returns trigger language plpgsql security definer as $$
begin
    perform outbox.note_secret(o, n)
        from was o full join became n on o.id operator(pg_catalog.=) n.id
                                     and o.subscription_id operator(pg_catalog.=) n.subscription_id
        where outbox.resealed(o, n) is not true;
    perform outbox.note_resealed(array(
        select n.subscription_id from was o join became n on o.id operator(pg_catalog.=) n.id
        where outbox.resealed(o, n)));
    return null;
end $$;
create trigger audit_update after update on outbox.secrets
    referencing old table as was new table as became for each statement execute function outbox.audit_secrets();

-- Keys that secrets are sealed to are public; who adds one could read what is sealed from then on.
create function outbox.audited(k outbox.sealing_keys) returns jsonb language sql stable
begin atomic
    select jsonb_build_object('id', k.id, 'key', k.key, 'created_at', outbox.utc(k.created_at)) where k.id is not null;
end;

create function outbox.note_sealing_key(was jsonb, became jsonb) returns void language sql
begin atomic
    insert into outbox.audit (action, subject, before, after)
    select case when was is null then 'sealing key added' when became is null then 'sealing key removed'
                else 'sealing key updated' end,
           coalesce(became, was) ->> 'id', was, became
    where was is distinct from became;
end;

create function outbox.audit_sealing_key() returns trigger language plpgsql security definer as $$
begin
    perform outbox.note_sealing_key(outbox.audited(old), outbox.audited(new));
    return null;
end $$;
create trigger audit after insert or update or delete on outbox.sealing_keys
    for each row execute function outbox.audit_sealing_key();

create function outbox.audit_truncate() returns trigger language plpgsql security definer as $$
begin
    insert into outbox.audit (action, details)
        values ('truncated', pg_catalog.jsonb_build_object('table', tg_table_name));
    return null;
end $$;
create trigger audit_truncate after truncate on outbox.subscriptions
    for each statement execute function outbox.audit_truncate();
create trigger audit_truncate after truncate on outbox.secrets
    for each statement execute function outbox.audit_truncate();
create trigger audit_truncate after truncate on outbox.sealing_keys
    for each statement execute function outbox.audit_truncate();

-- What an operation on many rows writes of itself, in its own transaction. It can say nothing that the triggers say.
create function outbox.audit_operation(action text, subject text, tenant text, details jsonb) returns void
    language plpgsql security definer as $$
begin
    if action operator(pg_catalog.<>) all (array['replayed', 'purged', 'pruned']) then
        raise 'audit: % is no operation', action using errcode = 'invalid_parameter_value';
    end if;
    insert into outbox.audit (action, subject, tenant, details)
        values (audit_operation.action, audit_operation.subject, audit_operation.tenant, audit_operation.details);
end $$;
