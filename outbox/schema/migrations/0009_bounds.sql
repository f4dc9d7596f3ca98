-- Bounds on what stands in a row, whoever writes it, and findings where something is not as it should be. Nothing here
-- reads a large table: what is added to one is NOT VALID where it has rows, and no large index is built again.
set local lock_timeout = '5s';

-- Settings of the database itself: they hold for the library, for SQL and for every role. Change one as the schema's
-- owner or as outbox_operator: update outbox.settings set value = 1000000 where name = 'max_payload_bytes'.
create table outbox.settings (
    name text collate "C" primary key,
    value bigint not null,
    constraint setting_is_known check (case name
        when 'max_payload_bytes' then value between 1 and 268435456
        when 'least_retention_days' then value between 1 and 36500
        else false end)
);

-- max_payload_bytes as an INSERT reads it: a constant that PostgreSQL writes into the rule's kept plan. A look into the
-- table would cost each event more than all its other rules. Stable, not immutable: of what it evaluates beforehand the
-- server notes no dependency, and a session would keep the former value.
create function outbox.max_payload_bytes() returns bigint language sql stable parallel safe
begin atomic
    select 262144::bigint;
end;

create function outbox.apply_setting() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.name <> old.name then
        raise 'outbox.settings: % is always needed; update its value instead', old.name
            using errcode = 'feature_not_supported';
    end if;
    if new.name = 'max_payload_bytes' then
        execute format('create or replace function outbox.max_payload_bytes() returns bigint language sql stable '
                       'parallel safe begin atomic select %s::bigint; end', new.value);
    end if;
    if tg_op = 'UPDATE' and new.value <> old.value then
        insert into outbox.audit (action, subject, before, after)
            values ('setting updated', new.name, jsonb_build_object('value', old.value),
                    jsonb_build_object('value', new.value));
    end if;
    return null;
end $$;
create trigger apply_setting after insert or update or delete on outbox.settings
    for each row execute function outbox.apply_setting();
insert into outbox.settings (name, value) values ('max_payload_bytes', 262144), ('least_retention_days', 1);

-- The size comes before the JSON: a text of 700 MB is refused without being read. octet_length of a stored value does not
-- fetch it either.
create or replace function outbox.broken_rule(seq bigint, tenant text, type text, key text, payload text,
                                              recorded_at timestamptz, available_at timestamptz)
    returns text language sql stable parallel safe
begin atomic
    select case
        when not (octet_length(tenant) <= 256 and tenant <> '*') then 'tenant_is_text'
        when not (octet_length(type) <= 128 and type ~ '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$') then 'type_is_dotted_words'
        when not octet_length(key) <= 1024 then 'key_is_text'
        when octet_length(payload) > outbox.max_payload_bytes() then 'payload_is_not_too_large'
        when payload::json is null then 'payload_is_json'
        when not seq between 1 and 4611686018427387904 then 'seq_is_drawn'
        when not (recorded_at >= '0001-01-01Z' and recorded_at < '10000-01-01Z') then 'recorded_at_is_a_date'
        when not (available_at >= '0001-01-01Z' and available_at < '10000-01-01Z') then 'available_at_is_a_date'
    end;
end;

create or replace function outbox.keeps_rules(seq bigint, tenant text, type text, key text, payload text,
                                              recorded_at timestamptz, available_at timestamptz)
    returns boolean language plpgsql immutable parallel safe as $$
declare
    broken constant pg_catalog.text := outbox.broken_rule(seq, tenant, type, key, payload, recorded_at, available_at);
begin
    if broken is null then
        return true;
    end if;
    -- A dead letter from the time of a higher bound is put back as it is.
    if broken operator(pg_catalog.=) 'payload_is_not_too_large'
            and pg_catalog.has_table_privilege('outbox.dead_letters', 'select')
            and exists (select from outbox.dead_letters l where l.event_seq operator(pg_catalog.=) keeps_rules.seq
                        and l.payload operator(pg_catalog.=) keeps_rules.payload) then
        return true;
    end if;
    raise 'new row for relation "events" violates check constraint "%"', broken
        using errcode = 'check_violation', schema = 'outbox', table = 'events', constraint = broken,
              hint = case broken when 'payload_is_not_too_large' then pg_catalog.format(
                  'A payload may have %s bytes: the setting max_payload_bytes in outbox.settings.',
                  outbox.max_payload_bytes()) else '' end;
end $$;

-- Not valid for good, also where there are no rows yet: pg_dump then adds it after the rows, which may be larger than the
-- setting is by now. Nothing is read for it, as in 0005.
alter table outbox.events
    drop constraint rules_are_kept,
    add constraint rules_are_kept
        check (outbox.keeps_rules(seq, tenant, type, key, payload, recorded_at, available_at)) not valid;

-- Text that decides what is found through an index: its order may not change with the C library of the server. Equality
-- has no order, so columns without an index stay as they are; those of events are in none.
drop function outbox.audited(outbox.sealing_keys);
alter table outbox.subscription_types
    alter column tenant type text collate "C", alter column pattern type text collate "C";
alter table outbox.sealing_keys alter column id type text collate "C";
create function outbox.audited(k outbox.sealing_keys) returns jsonb language sql stable
begin atomic
    select jsonb_build_object('id', k.id, 'key', k.key, 'created_at', outbox.utc(k.created_at)) where k.id is not null;
end;
drop index outbox.secrets_one_of_a_kind;
create unique index secrets_one_of_a_kind on outbox.secrets (subscription_id, kind collate "C") where kind <> 'signing';
drop index outbox.audit_subject;
create index audit_subject on outbox.audit (subject collate "C", at);

-- A relay holds an endpoint back for a day at most, by what the receiver asked for; that is not noted. Any other hold is a
-- person's. Who calls a session outbox-relay hides a short one.
create function outbox.is_relay() returns boolean language sql stable
begin atomic
    select starts_with(current_setting('application_name', true), 'outbox-relay');
end;
create function outbox.is_noted_hold(until timestamptz) returns boolean language sql stable
begin atomic
    select until is null or not outbox.is_relay() or until > clock_timestamp() + interval '2 days';
end;

create or replace function outbox.note_subscription(was jsonb, became jsonb) returns void language sql
begin atomic
    with changed as (
        select key, coalesce(o.value, 'null') old_value, coalesce(n.value, 'null') new_value
        from jsonb_each(was) o full join jsonb_each(became) n using (key)
        where coalesce(o.value, 'null') <> coalesce(n.value, 'null')
          and case when became is null then key not in ('id', 'created_at', 'held_until')
                   when was is null then key not in ('id', 'created_at')
                   else key <> 'held_until' or outbox.is_noted_hold((became ->> 'held_until')::timestamptz) end)
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
drop trigger audit_update on outbox.subscriptions;
create trigger audit_update after update on outbox.subscriptions for each row
    when (to_jsonb(old) - '{version,updated_at,held_until}'::text[]
          <> to_jsonb(new) - '{version,updated_at,held_until}'::text[]
          or old.held_until is distinct from new.held_until
             and (new.held_until is null or new.held_until > clock_timestamp() + interval '2 days'
                  or not starts_with(current_setting('application_name', true), 'outbox-relay')))
    execute function outbox.audit_subscription();

-- Times are dates that every client can read. Rows of small tables are mended first: a row that breaks a check could not
-- be changed any more. Only due_at may be infinite, for what is parked.
create function outbox.dated(moment timestamptz) returns timestamptz language sql immutable strict parallel safe
begin atomic
    select least(greatest(moment, '0001-01-01Z'), '9999-12-31Z');
end;

select set_config('outbox.actor', 'migration 0008', true);
update outbox.subscriptions set
    paused_at = outbox.dated(paused_at), disabled_at = outbox.dated(disabled_at), removed_at = outbox.dated(removed_at),
    held_until = outbox.dated(held_until), created_at = outbox.dated(created_at), updated_at = outbox.dated(updated_at)
where not (coalesce(paused_at, '2000-01-01Z') >= '0001-01-01Z' and coalesce(paused_at, '2000-01-01Z') < '10000-01-01Z'
       and coalesce(disabled_at, '2000-01-01Z') >= '0001-01-01Z' and coalesce(disabled_at, '2000-01-01Z') < '10000-01-01Z'
       and coalesce(removed_at, '2000-01-01Z') >= '0001-01-01Z' and coalesce(removed_at, '2000-01-01Z') < '10000-01-01Z'
       and coalesce(held_until, '2000-01-01Z') >= '0001-01-01Z' and coalesce(held_until, '2000-01-01Z') < '10000-01-01Z'
       and created_at >= '0001-01-01Z' and created_at < '10000-01-01Z'
       and updated_at >= '0001-01-01Z' and updated_at < '10000-01-01Z');
update outbox.secrets set created_at = outbox.dated(created_at), expires_at = outbox.dated(expires_at)
where not (created_at >= '0001-01-01Z' and created_at < '10000-01-01Z')
   or not (expires_at >= '0001-01-01Z' and expires_at < '10000-01-01Z');
-- One look-up at each end of a subscription's index, not a scan of what may be millions of rows.
set local enable_seqscan = off;
update outbox.deliveries set due_at = outbox.dated(due_at) where id = any (array(
    select d.id from outbox.subscriptions s cross join lateral (
        select id from outbox.deliveries where subscription_id = s.id and due_at < '0001-01-01Z'
        union all
        select id from outbox.deliveries where subscription_id = s.id and due_at >= '10000-01-01Z'
            and due_at < 'infinity') d));
set local enable_seqscan to default;

alter table outbox.subscriptions
    add constraint times_are_dates check (
        least(paused_at, disabled_at, removed_at, held_until, created_at, updated_at) >= '0001-01-01Z'
        and greatest(paused_at, disabled_at, removed_at, held_until, created_at, updated_at) < '10000-01-01Z');
alter table outbox.secrets
    add constraint times_are_dates check (
        least(created_at, expires_at) >= '0001-01-01Z' and greatest(created_at, expires_at) < '10000-01-01Z');
alter table outbox.deliveries
    add constraint due_at_is_a_date check (
        due_at >= '0001-01-01Z' and (due_at < '10000-01-01Z' or due_at = 'infinity')) not valid;
alter table outbox.dead_letters
    add constraint times_are_dates check (
        recorded_at >= '0001-01-01Z' and recorded_at < '10000-01-01Z'
        and died_at >= '0001-01-01Z' and died_at < '10000-01-01Z') not valid;
alter table outbox.attempts
    add constraint at_is_a_date check (at >= '0001-01-01Z' and at < '10000-01-01Z') not valid;
alter table outbox.resolutions
    add constraint at_is_a_date check (at >= '0001-01-01Z' and at < '10000-01-01Z') not valid;
alter table outbox.audit
    add constraint at_is_a_date check (at >= '0001-01-01Z' and at < '10000-01-01Z') not valid;
alter table outbox.rounds
    add constraint times_are_dates check (
        least(succeeded_at, failed_at) >= '0001-01-01Z' and greatest(succeeded_at, failed_at) < '10000-01-01Z');
alter table outbox.relays
    add constraint times_are_dates check (
        least(started_at, seen_at) >= '0001-01-01Z' and greatest(started_at, seen_at) < '10000-01-01Z');
alter table outbox.poller
    add constraint until_is_a_date check (until >= '0001-01-01Z' and until < '10000-01-01Z');

-- Deleting a subscription's row would leave its deliveries due for ever. A foreign key on deliveries would say so too,
-- and cost each of their inserts a look-up. Who may not add a subscription (a relay) deletes only what was removed.
create function outbox.guard_subscription() returns trigger language plpgsql as $$
begin
    if old.removed_at is null and not pg_catalog.has_table_privilege('outbox.subscriptions', 'insert') then
        raise '% may delete only subscriptions that are removed', current_user using errcode = 'insufficient_privilege';
    end if;
    if exists (select from outbox.deliveries d where d.subscription_id operator(pg_catalog.=) old.id) then
        raise 'subscription % still has deliveries', old.id using errcode = 'foreign_key_violation', schema = 'outbox',
            table = 'subscriptions', hint = pg_catalog.format('Remove it (relay subscriptions remove %s): a relay then '
                'clears its deliveries, and the row an hour later.', old.id);
    end if;
    return old;
end $$;
create trigger guard before delete on outbox.subscriptions
    for each row execute function outbox.guard_subscription();

create function outbox.guard_id() returns trigger language plpgsql as $$
begin
    raise 'the id of a subscription never changes: its deliveries would be nobody''s' using errcode = 'feature_not_supported';
end $$;
create trigger guard_id before update of id on outbox.subscriptions
    for each row when (old.id <> new.id) execute function outbox.guard_id();

create function outbox.guard_subscriptions() returns trigger language plpgsql as $$
begin
    if exists (select from outbox.deliveries) then
        raise 'outbox.deliveries is not empty' using errcode = 'foreign_key_violation', schema = 'outbox',
            table = 'subscriptions', hint = 'Remove subscriptions by their ids: relay subscriptions remove.';
    end if;
    return null;
end $$;
-- After: one statement may empty both tables.
create trigger guard_truncate after truncate on outbox.subscriptions
    for each statement execute function outbox.guard_subscriptions();

-- As many signing secrets as outbox.subscriptions.rotate_secret() keeps: every one makes each request longer. The row of
-- the subscription is locked, so that of two transactions the second counts what the first added.
create function outbox.guard_secret() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if new.kind <> 'signing' or new.expires_at <= clock_timestamp() then
        return new;
    end if;
    perform from outbox.subscriptions where id = new.subscription_id for no key update;
    if (select count(*) from outbox.secrets where subscription_id = new.subscription_id and kind = 'signing'
            and id <> new.id and (expires_at is null or expires_at > clock_timestamp())) >= 5 then
        raise 'subscription % has 5 signing secrets, as many as there may be', new.subscription_id
            using errcode = 'check_violation', schema = 'outbox', table = 'secrets',
                  constraint = 'secrets_are_at_most_five', hint = 'Delete one, or let one end: expires_at.';
    end if;
    return new;
end $$;
create trigger guard before insert or update of id, subscription_id, kind, expires_at on outbox.secrets
    for each row execute function outbox.guard_secret();

-- A relay clears away what ran out; it deletes no other secret. Those of a deleted subscription go by its owner's right.
create function outbox.guard_deleted_secret() returns trigger language plpgsql as $$
begin
    if (old.expires_at operator(pg_catalog.<=) pg_catalog.clock_timestamp()) is not true
            and not pg_catalog.has_table_privilege('outbox.secrets', 'insert') then
        raise '% may delete only secrets that ran out', current_user using errcode = 'insufficient_privilege';
    end if;
    return old;
end $$;
create trigger guard_delete before delete on outbox.secrets
    for each row execute function outbox.guard_deleted_secret();

-- Deletions that are not the data plane's are noted. The data plane deletes what it leased, hundreds in a statement, and
-- writes an attempt or a dead letter for each; for these rows only the condition below is evaluated, and nothing is run.
create function outbox.audit_delivery() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_partition_pruning = on as $$
declare
    removed timestamptz;
begin
    select removed_at into removed from outbox.subscriptions where id = old.subscription_id;
    if not found or removed is not null
            or exists (select from outbox.dead_letters where delivery_id = old.id)
            or exists (select from outbox.attempts where delivery_id = old.id and verdict = 'delivered') then
        return null;
    end if;
    insert into outbox.audit (action, subject, details) values ('delivery deleted', outbox.text_id('dlv', old.id),
        jsonb_build_object('event_seq', old.event_seq, 'subscription', outbox.text_id('sub', old.subscription_id)));
    return null;
end $$;
create trigger audit after delete on outbox.deliveries for each row
    when (old.lease is null or not starts_with(current_setting('application_name', true), 'outbox-relay'))
    execute function outbox.audit_delivery();

-- Looked at when the transaction commits: by then a replay or a purge has noted itself, and a late success its attempt.
create function outbox.audit_dead_letter() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_partition_pruning = on as $$
begin
    if exists (select from outbox.audit where at >= transaction_timestamp() and role = session_user
                   and action in ('replayed', 'purged'))
            or exists (select from outbox.attempts where delivery_id = old.delivery_id and verdict = 'delivered') then
        return null;
    end if;
    insert into outbox.audit (action, subject, tenant, details)
        values ('dead letter deleted', outbox.text_id('dlv', old.delivery_id), old.tenant,
                jsonb_build_object('event', outbox.text_id('evt', old.event_id), 'type', old.type,
                                   'subscription', outbox.text_id('sub', old.subscription_id), 'reason', old.reason));
    return null;
end $$;
create constraint trigger audit after delete on outbox.dead_letters deferrable initially deferred
    for each row execute function outbox.audit_dead_letter();
create trigger audit_truncate after truncate on outbox.deliveries
    for each statement execute function outbox.audit_truncate();
create trigger audit_truncate after truncate on outbox.dead_letters
    for each statement execute function outbox.audit_truncate();
create trigger audit_truncate after truncate on outbox.pending
    for each statement execute function outbox.audit_truncate();

-- Deliveries whose subscription's row is gone: it was deleted before there was a guard, or in the moment in which fan_out
-- resolved an event for it. The ids of the subscriptions that have deliveries, found by one look-up each.
create function outbox.orphans() returns table (subscription_id uuid) language sql stable
begin atomic
    with recursive owners as (
        (select d.subscription_id from outbox.deliveries d order by d.subscription_id limit 1)
        union all
        select (select d.subscription_id from outbox.deliveries d where d.subscription_id > o.subscription_id
                order by d.subscription_id limit 1)
        from owners o where o.subscription_id is not null)
    select o.subscription_id from owners o
    where o.subscription_id is not null and not exists (select from outbox.subscriptions s where s.id = o.subscription_id);
end;

-- due, waiting, leased or suspect → gone: cancels up to `batch` such deliveries, notes it, and returns how many.
create function outbox.cancel_orphans(batch integer default 2000) returns bigint language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    owner uuid;
    ids uuid[];
begin
    select o.subscription_id into owner from outbox.orphans() o limit 1;
    with gone as (
        delete from outbox.deliveries where id = any (array(
            select id from outbox.deliveries where subscription_id = owner order by due_at, id limit batch
            for update skip locked))
        returning id)
    select array_agg(id) into ids from gone;
    if ids is not null then
        insert into outbox.audit (action, subject, details)
            values ('deliveries cancelled', outbox.text_id('sub', owner), jsonb_build_object(
                'count', cardinality(ids), 'reason', 'the subscription''s row is gone',
                'deliveries', (select jsonb_agg(outbox.text_id('dlv', id)) from unnest(ids[:1000]) id)));
    end if;
    return coalesce(cardinality(ids), 0);
end $$;

-- What `purged`, `replayed` and `pruned` may say: counts and ids of what is meant, about a subject that is one.
create or replace function outbox.audit_operation(action text, subject text, tenant text, details jsonb) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if (action = any (array['replayed', 'purged', 'pruned'])) is not true then
        raise 'audit: % is no operation', action using errcode = 'invalid_parameter_value';
    end if;
    if (subject ~ '^((sub|dlv|evt)_[0-9a-z]{26})?$' and octet_length(tenant) <= 256
            and jsonb_typeof(details) = 'object' and octet_length(details::text) <= 1000000) is not true then
        raise 'audit: subject must be an id or empty, tenant a tenant, details an object of at most 1 MB'
            using errcode = 'invalid_parameter_value';
    end if;
    insert into outbox.audit (action, subject, tenant, details)
        values (audit_operation.action, audit_operation.subject, audit_operation.tenant, audit_operation.details);
end $$;

-- The latest moment up to which this login may delete history. The owner of the schema, who can delete anything, is not
-- bound; for everybody else least_retention_days holds, whatever a relay was configured to.
create function outbox.retention_bound(older_than timestamptz) returns timestamptz language sql stable strict
begin atomic
    select case when pg_has_role(session_user, nspowner, 'member') then older_than
                else least(older_than, clock_timestamp() - make_interval(days => (
                         select value::integer from outbox.settings where name = 'least_retention_days'))) end
    from pg_namespace where nspname = 'outbox';
end;
-- The functions of retention get one line more at their beginning.
do $$
declare
    one regprocedure;
    bound text;
begin
    foreach one in array array['outbox.retire_next_event_leaf(timestamptz, bigint)',
                               'outbox.prune_events(timestamptz, bigint, integer)',
                               'outbox.retire_next_attempt_leaf(timestamptz, bigint)',
                               'outbox.prune_attempts(timestamptz, integer)',
                               'outbox.prune_resolutions(timestamptz, integer)']::regprocedure[] loop
        bound := regexp_replace(pg_get_functiondef(one), '\nbegin\n',
                                E'\nbegin\n    older_than := outbox.retention_bound(older_than);\n');
        if bound !~ 'retention_bound' then
            raise 'no begin in %', one;
        end if;
        execute bound;
    end loop;
end $$;

-- A publication FOR ALL TABLES refuses DELETE from a table that cannot name its rows. Those without a primary key are
-- only appended to and pruned: the whole row is logged then, and only where wal_level is logical.
create or replace function outbox.attach_leaf(parent regclass, leaf name, by name, from_value text, to_value text)
    returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    one record;
    grantee oid;
begin
    execute format('create table outbox.%I (like %s including all)', leaf, parent);
    for one in select conname, pg_get_constraintdef(oid) definition from pg_constraint
               where conrelid = parent and contype = 'c' and not convalidated loop
        execute format('alter table outbox.%I drop constraint %I, add constraint %2$I %3$s',
                       leaf, one.conname, one.definition);
    end loop;
    if (select relreplident = 'f' from pg_class where oid = parent) then
        execute format('alter table outbox.%I replica identity full', leaf);
    end if;
    execute format('alter table outbox.%I add constraint leaf_range check (%I >= %L and %I < %L)',
                   leaf, by, from_value, by, to_value);
    execute format('alter table %s attach partition outbox.%I for values from (%L) to (%L)',
                   parent, leaf, from_value, to_value);
    execute format('alter table outbox.%I drop constraint leaf_range', leaf);
    for grantee in select distinct a.grantee from pg_class c, aclexplode(c.relacl) a
                   where c.oid = format('outbox.%I', leaf)::regclass and a.grantee <> c.relowner loop
        execute format('revoke all on outbox.%I from %s', leaf,
                       case grantee when 0 then 'public' else grantee::regrole::text end);
    end loop;
end $$;

-- Tables whose rows a publication could not name.
create function outbox.without_identity() returns setof regclass language sql stable
begin atomic
    select c.oid::regclass from pg_class c
    where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p') and c.relpersistence = 'p'
      and case c.relreplident
          when 'f' then false
          when 'd' then not exists (select from pg_index where indrelid = c.oid and indisprimary)
          when 'i' then not exists (select from pg_index where indrelid = c.oid and indisreplident)
          else true end;
end;

-- Sequences whose next number a row has already, or whose range is at its end.
create function outbox.sequences_behind(out sequence regclass, out last bigint, out highest bigint)
    returns setof record language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    one record;
begin
    for one in select s.oid::regclass sequence, d.refobjid::regclass owner, a.attname
               from pg_class s
               join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype in ('a', 'i')
                                and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
               join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
               where s.relkind = 'S' and s.relnamespace = 'outbox'::regnamespace loop
        execute format('select case when is_called then last_value else last_value - 1 end from %s', one.sequence) into last;
        execute format('select max(%I) from %s', one.attname, one.owner) into highest;
        if highest > last then
            sequence := one.sequence;
            return next;
        end if;
    end loop;
end $$;

-- Run at every migrate. The lock on the sequence stops nextval until the end of the transaction, so that no number is
-- drawn between the look and the mend.
create function outbox.mend() returns void language plpgsql set search_path = pg_catalog, pg_temp
    set lock_timeout = '5s' as $$
declare
    one record;
begin
    for one in select sequence from outbox.sequences_behind() loop
        execute format('alter sequence %s no cycle', one.sequence);
        select * into one from outbox.sequences_behind() b where b.sequence = one.sequence;
        if found then
            execute format('alter sequence %s restart with %s', one.sequence, one.highest + 1);
        end if;
    end loop;
    for one in select t from outbox.without_identity() t loop
        execute format('alter table %s replica identity full', one.t);
    end loop;
end $$;

-- Who may do what now, beyond the owner: one row a right. A grant option is a right of its own ('SELECT*').
create function outbox.granted() returns table (grantee oid, kind text, object text, privilege text) language sql stable
begin atomic
    select a.grantee, o.kind, o.object, a.privilege_type || case when a.is_grantable then '*' else '' end
    from (select 'schema' kind, quote_ident(nspname) object, nspacl acl, nspowner owner
          from pg_namespace where nspname = 'outbox'
          union all
          select case relkind when 'S' then 'sequence' else 'table' end, 'outbox.' || quote_ident(relname), relacl, relowner
          from pg_class where relnamespace = 'outbox'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          union all
          select 'column', 'outbox.' || quote_ident(relname) || '.' || quote_ident(attname), attacl, relowner
          from pg_class join pg_attribute on attrelid = pg_class.oid
          where relnamespace = 'outbox'::regnamespace and attacl is not null
          union all
          select 'function', format('outbox.%I(%s)', proname, oidvectortypes(proargtypes)),
                 coalesce(proacl, acldefault('f', proowner)), proowner
          from pg_proc where pronamespace = 'outbox'::regnamespace) o,
        lateral aclexplode(o.acl) a
    where a.grantee <> o.owner;
end;

-- What grants.sql gave our group roles when it ran last.
create table outbox.rights (
    role text collate "C" not null,
    object text collate "C" not null,
    privilege text collate "C" not null,
    primary key (role, object, privilege)
);

create function outbox.grant_findings() returns table (code text, subject text, seen text, mend text)
    language sql stable security definer
begin atomic
    with held as (
        select case g.grantee when 0 then 'public' else pg_get_userbyid(g.grantee) end as role, g.kind, g.object, g.privilege
        from outbox.granted() g),
    groups as (select rolname::text as role from pg_roles
               where rolname in ('outbox_app', 'outbox_operator', 'outbox_relay', 'outbox_reader')),
    excess as (
        select h.*, exists (select from groups g where g.role = h.role) as ours
        from held h
        where case when h.role in (select role from groups)
                   then not exists (select from outbox.rights r
                                    where (r.role, r.object, r.privilege) = (h.role, h.object, h.privilege))
                   else h.role = 'public' or h.privilege like '%*'
                        or h.object in ('outbox.secrets', 'outbox.secrets.secret')
                        or not exists (select from outbox.rights r where (r.object, r.privilege) = (h.object, h.privilege)
                                       or h.kind = 'column' and r.privilege = h.privilege
                                          and starts_with(h.object, r.object || '.'))
              end)
    select 'grant.too_wide', e.role, format('%s may %s on %s %s', e.role, lower(string_agg(rtrim(e.privilege, '*')
               || case when e.privilege like '%*' then ' with grant option' else '' end, ', ' order by e.privilege)),
               e.kind, e.object),
           case when e.ours then 'relay migrate'
                when e.kind = 'column' then format('revoke %s (%s) on %s from %s',
                    lower(string_agg(rtrim(e.privilege, '*'), ', ' order by e.privilege)),
                    split_part(e.object, '.', 3), split_part(e.object, '.', 1) || '.' || split_part(e.object, '.', 2), e.role)
                else format('revoke %s on %s %s from %s',
                    lower(string_agg(rtrim(e.privilege, '*'), ', ' order by e.privilege)), e.kind, e.object,
                    case e.role when 'public' then 'public' else quote_ident(e.role) end) end
    from excess e group by e.role, e.kind, e.object, e.ours
    union all
    select 'grant.too_wide', m.rolname, format('%s is a member of %s', m.rolname, r.rolname),
           format('revoke %I from %I', r.rolname, m.rolname)
    from pg_auth_members a join pg_roles m on m.oid = a.member join pg_roles r on r.oid = a.roleid
    where m.rolname in (select role from groups)
    union all
    select 'grant.too_wide', r.rolname, format('%s passes over every right: it is a superuser', r.rolname),
           format('alter role %I nosuperuser', r.rolname)
    from pg_roles r where r.rolname in (select role from groups) and r.rolsuper;
end;

create function outbox.collation_findings() returns table (code text, subject text, seen text, mend text)
    language sql stable security definer
begin atomic
    select 'collation.changed', 'database ' || datname,
           format('texts were sorted by version %s of its collation, the server now has %s: indexes on text may miss rows',
                  datcollversion, coalesce(pg_database_collation_actual_version(oid), 'none')),
           format('reindex database %I; then alter database %1$I refresh collation version', datname)
    from pg_database
    where datname = current_database() and datcollversion is not null
      and datcollversion is distinct from pg_database_collation_actual_version(oid)
    union all
    select 'collation.changed', 'collation ' || collname,
           format('indexes of the schema outbox were made with version %s of it, the server now has %s',
                  collversion, coalesce(pg_collation_actual_version(c.oid), 'none')),
           format('reindex schema outbox; then alter collation %s refresh version', c.oid::regcollation)
    from pg_collation c
    where collversion is not null and collversion is distinct from pg_collation_actual_version(c.oid)
      and exists (select from pg_index i join pg_class t on t.oid = i.indrelid
                  where t.relnamespace = 'outbox'::regnamespace and c.oid = any (i.indcollation));
end;

-- Everything of this schema that is not as it should be and that `relay migrate --check` and `relay status` name.
create function outbox.findings() returns table (code text, subject text, seen text, mend text)
    language sql stable security definer
begin atomic
    select * from outbox.collation_findings()
    union all
    select * from outbox.grant_findings()
    union all
    select 'sequence.behind', s.sequence::text,
           format('%s is at %s, but there are rows up to %s: inserts will fail', s.sequence, s.last, s.highest),
           'relay migrate'
    from outbox.sequences_behind() s
    union all
    select 'replica_identity.missing', t::text,
           format('%s has no replica identity: deletes fail under a publication for all tables', t), 'relay migrate'
    from outbox.without_identity() t
    union all
    select 'deliveries.orphaned', outbox.text_id('sub', o.subscription_id),
           'deliveries are left of a subscription whose row was deleted',
           'a running relay cancels them within a minute; or: select outbox.cancel_orphans()'
    from outbox.orphans() o;
end;

do $$
declare
    one regclass;
begin
    alter table outbox.resolutions replica identity full;
    alter table outbox.attempts replica identity full;
    for one in select inhrelid::regclass from pg_inherits where inhparent = 'outbox.attempts'::regclass loop
        execute format('alter table %s replica identity full', one);
    end loop;
end $$;
set local lock_timeout to default;

-- Without rows there is nothing to read.
do $$
declare
    one record;
    empty boolean;
begin
    for one in select conrelid::regclass t, conname from pg_constraint
               where connamespace = 'outbox'::regnamespace and not convalidated and conparentid = 0
                 and conname in ('due_at_is_a_date', 'times_are_dates', 'at_is_a_date') loop
        execute format('select not exists (select from %s)', one.t) into empty;
        if empty then
            execute format('alter table %s validate constraint %I', one.t, one.conname);
        end if;
    end loop;
end $$;
