-- An event may carry metadata: text by name, which filters and transformations see and receivers do not, such as who did it.
-- least code: 27
set local lock_timeout = '5s';

-- In the order in which relays lock them: who buries writes a dead letter and reads its event.
alter table outbox.dead_letters add column metadata jsonb;

-- Null needs no rewrite of a row. The rule asks nothing of who inserts, and costs nothing where there is none; no old row can
-- break it, so none is read. jsonb keeps no NUL, and of a name that is given twice the last.
alter table outbox.events add column metadata jsonb;
alter table outbox.events add constraint metadata_is_text_by_name
    check (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 8192
           and not jsonb_path_exists(metadata, 'strict $.* ? (@.type() <> "string")')) not valid;

create or replace function outbox.restore_events(dead uuid[]) returns bigint[] language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    numbers constant bigint[] := array(select distinct event_seq from outbox.dead_letters where delivery_id = any (dead));
    there bigint[];
    restored bigint[];
begin
    execute 'select array_agg(seq) from outbox.events where seq = any ($1)' into there using numbers;
    with missing as (
        select distinct on (event_seq) * from outbox.dead_letters
        where delivery_id = any (dead) and payload is not null and event_seq <> all (coalesce(there, '{}'))
        order by event_seq),
    written as (
        insert into outbox.events (seq, id, tenant, type, key, payload, recorded_at, metadata)
        select event_seq, event_id, tenant, type, key, payload, recorded_at, metadata from missing returning seq)
    select array_agg(seq) into restored from written;
    delete from outbox.pending where event_seq = any (restored);
    return coalesce(restored, '{}');
end $$;

-- The functions of before stay as they are: calls that run meanwhile end well, and what depends on one holds. Those below have
-- the same names and one argument more, which has to be given.

-- Metadata are no part of the content: who records an event a second time may be another.
create function outbox.record_once(type text, payload text, key text, tenant text, available_at timestamptz,
                                   priority smallint, trace text, idempotency_key text, metadata jsonb,
                                   out event_id uuid, out same boolean)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    content constant bytea := outbox.content_of(type, key, payload);
    recorded bytea;
    event_seq bigint;
begin
    if (octet_length(idempotency_key) between 1 and 256) is not true then
        raise 'idempotency_key: must be a text of 1 to 256 bytes'
            using errcode = 'check_violation', constraint = 'idempotency_key_is_text';
    end if;
    -- The table's own rule lets triggers of the owner record these; this runs as the owner, also in anybody's trigger.
    if starts_with(type, 'relay.') then
        raise 'new row for relation "events" violates check constraint "type_is_not_reserved"'
            using errcode = 'check_violation', schema = 'outbox', table = 'events', constraint = 'type_is_not_reserved',
                  hint = 'Types that begin with relay. are for events about the relay itself: begin it with another word.';
    end if;
    event_id := outbox.id_of_key(tenant, idempotency_key);
    recorded := outbox.content_recorded(event_id);
    same := coalesce(recorded = content, true);
    if recorded is null then
        insert into outbox.events (id, type, key, tenant, payload, available_at, priority, trace, metadata)
            values (event_id, record_once.type, record_once.key, record_once.tenant, record_once.payload,
                    record_once.available_at, record_once.priority, record_once.trace, record_once.metadata)
            returning seq into event_seq;
        insert into outbox.idempotency_requests (event_id, event_seq, content)
            values (event_id, event_seq, content);
    end if;
end $$;

-- For SQL, in any language: with metadata, by name or third.
create function outbox.record(type text, data json, metadata jsonb, key text default null, tenant text default '',
                              available_at timestamptz default null, idempotency_key text default null,
                              priority integer default 0, traceparent text default null,
                              tracestate text default null, baggage text default null)
    returns text language plpgsql volatile as $$
declare
    trace constant pg_catalog.text := case
        when traceparent is not null or tracestate is not null or baggage is not null
        then pg_catalog.rtrim(pg_catalog.format(E'%s\n%s\n%s', traceparent, tracestate, baggage), E'\n') end;
    recorded pg_catalog.uuid;
    same pg_catalog.bool;
begin
    if idempotency_key is null then
        insert into outbox.events (type, payload, key, tenant, available_at, priority, trace, metadata)
            values (record.type, record.data::pg_catalog.text, record.key, record.tenant, record.available_at,
                    record.priority, trace, record.metadata)
            returning id into recorded;
        return outbox.text_id('evt', recorded);
    end if;
    select once.event_id, once.same into recorded, same
        from outbox.record_once(type, data::pg_catalog.text, key, tenant, available_at, priority::pg_catalog.int2, trace,
                                idempotency_key, metadata) once;
    if not same then
        raise 'idempotency_key: % was used for an event with another type, key or data', pg_catalog.quote_literal(idempotency_key)
            using errcode = 'unique_violation', schema = 'outbox', table = 'idempotency_keys',
                  constraint = 'idempotency_key_is_of_one_event', detail = outbox.text_id('evt', recorded),
                  hint = 'Give what is another event a key of its own.';
    end if;
    return outbox.text_id('evt', recorded);
end $$;

-- Who had a right by hand on what was there has it on what is new.
do $$
declare
    one record;
begin
    for one in
        select 'execute on function ' || (
                   select n.oid::regprocedure from pg_proc n
                   where n.pronamespace = p.pronamespace and n.proname = p.proname and n.oid <> p.oid) as what, a.*
        from pg_proc p cross join aclexplode(p.proacl) a
        where p.pronamespace = 'outbox'::regnamespace and p.proname in ('record', 'record_once')
            and not ('metadata' = any (p.proargnames)) and a.grantee <> p.proowner
        union all
        select 'insert (metadata) on outbox.events', a.*
        from pg_attribute t cross join aclexplode(t.attacl) a
        where t.attrelid = 'outbox.events'::regclass and t.attname = 'trace' and a.privilege_type = 'INSERT'
    loop
        execute format('grant %s to %s%s', one.what,
                       case one.grantee when 0 then 'public' else one.grantee::regrole::text end,
                       case when one.is_grantable then ' with grant option' else '' end);
    end loop;
end $$;
set local lock_timeout to default;
