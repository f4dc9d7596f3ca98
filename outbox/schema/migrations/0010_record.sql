-- What an event may carry besides: a priority, a trace context, and a key by which it is recorded once.
set local lock_timeout = '5s';

-- trace: as it is sent on, W3C's traceparent on the first line, then tracestate and baggage, a line each, where there are
-- any. A constant default and null need no rewrite of a row.
alter table outbox.events add column priority smallint not null default 0, add column trace text;

-- The rules of 0009, and those of the new columns behind them: a row that keeps to the defaults pays next to nothing.
create function outbox.broken_rule(seq bigint, tenant text, type text, key text, payload text, recorded_at timestamptz,
                                   available_at timestamptz, priority smallint, trace text)
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
        when not priority between 0 and 3 then 'priority_is_0_to_3'
        when not (octet_length(trace) <= 8761
                  and trace ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(\n[\x20-\x7e]*){0,2}$')
            then 'trace_is_w3c'
    end;
end;

create function outbox.keeps_rules(seq bigint, tenant text, type text, key text, payload text, recorded_at timestamptz,
                                   available_at timestamptz, priority smallint, trace text)
    returns boolean language plpgsql immutable parallel safe as $$
declare
    broken constant pg_catalog.text := outbox.broken_rule(seq, tenant, type, key, payload, recorded_at, available_at,
                                                          priority, trace);
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

-- Not valid for good, as in 0009: pg_dump then adds it after the rows.
alter table outbox.events
    drop constraint rules_are_kept,
    add constraint rules_are_kept
        check (outbox.keeps_rules(seq, tenant, type, key, payload, recorded_at, available_at, priority, trace)) not valid;
drop function outbox.keeps_rules(bigint, text, text, text, text, timestamptz, timestamptz);
drop function outbox.broken_rule(bigint, text, text, text, text, timestamptz, timestamptz);

set local lock_timeout to default;

-- How long an idempotency key is known: for so many days, and until the end of the day (UTC) on which they are over.
alter table outbox.settings
    drop constraint setting_is_known,
    add constraint setting_is_known check (case name
        when 'max_payload_bytes' then value between 1 and 268435456
        when 'least_retention_days' then value between 1 and 36500
        when 'idempotency_days' then value between 1 and 365
        else false end);
insert into outbox.settings (name, value) values ('idempotency_days', 7);

-- Idempotency: the same tenant and key, within the window, is the same event.
--
-- The event's id is made of both, so that whoever records it knows the id at once, also when two transactions do it at
-- the same moment; neither has to wait for the other to know it. Which of them writes the event is decided when they
-- commit, by a deferred trigger: each claims the keys that it used, all of them in one order, and takes its own event back
-- where it finds that another has the key. So nobody waits for a key while it still has something else to wait for, and no
-- two transactions wait for each other, in whatever order they used their keys. Who waits for a transaction that then
-- rolls back has the key.

-- UUID version 8: 122 bits of the hash. A tenant holds no NUL.
create function outbox.id_of_key(tenant text, idempotency_key text) returns uuid language sql stable strict parallel safe
begin atomic
    select encode(set_byte(set_byte(hash, 6, get_byte(hash, 6) & 15 | 128), 8, get_byte(hash, 8) & 63 | 128), 'hex')::uuid
    from (select substring(sha256(convert_to(tenant, 'UTF8') || '\x00'::bytea || convert_to(idempotency_key, 'UTF8'))
                           from 1 for 16) as hash) hashed;
end;

-- What must be the same where the key is: the event's type, its key, and its data to the letter.
create function outbox.content_of(type text, key text, payload text) returns bytea language sql stable parallel safe
begin atomic
    select sha256(convert_to(type, 'UTF8') || '\x00'::bytea
                  || case when key is null then ''::bytea else '\x01'::bytea || convert_to(key, 'UTF8') end
                  || '\x00'::bytea || convert_to(payload, 'UTF8'));
end;

-- Keys that are taken. Each has a row on the day of its commit and one on the day before: a unique index sees the rows of
-- one day only, and so two transactions on either side of midnight still meet in a row.
create table outbox.idempotency_keys (
    event_id uuid not null,
    day date not null,
    event_seq bigint not null,
    content bytea not null,
    primary key (event_id, day),
    constraint day_is_a_date check (day >= '0001-01-01' and day < '10000-01-01')
) partition by range (day);
create table outbox.idempotency_keys_default partition of outbox.idempotency_keys default;

-- Keys that an open transaction used and claims at its end. Nobody else ever sees a row of it.
create table outbox.idempotency_requests (
    xid xid8 not null default pg_current_xact_id(),
    event_id uuid not null,
    event_seq bigint not null,
    content bytea not null,
    primary key (xid, event_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

create function outbox.first_key_day() returns date language sql stable
begin atomic
    select (clock_timestamp() at time zone 'UTC')::date - value::integer
    from outbox.settings where name = 'idempotency_days';
end;

-- The content that was recorded under this id within the window, by this transaction or one that has committed; else null.
create function outbox.content_recorded(event_id uuid) returns bytea language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    since constant date := outbox.first_key_day();
begin
    return (select r.content from outbox.idempotency_requests r
            where r.xid = pg_current_xact_id_if_assigned() and r.event_id = content_recorded.event_id
            union all
            select k.content from outbox.idempotency_keys k where k.event_id = content_recorded.event_id and k.day >= since
            limit 1);
end $$;

-- Records an event unless its key was used; `same` is false where it was, with other content. It never waits, and raises
-- nothing that a caller could have checked. Runs as its owner: what is claimed is what was inserted here.
create function outbox.record_once(type text, payload text, key text, tenant text, available_at timestamptz,
                                   priority smallint, trace text, idempotency_key text,
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
        insert into outbox.events (id, type, key, tenant, payload, available_at, priority, trace)
            values (event_id, record_once.type, record_once.key, record_once.tenant, record_once.payload,
                    record_once.available_at, record_once.priority, record_once.trace)
            returning seq into event_seq;
        insert into outbox.idempotency_requests (event_id, event_seq, content)
            values (event_id, event_seq, content);
    end if;
end $$;

create function outbox.claim_keys() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    mine constant xid8 := pg_current_xact_id();
    today constant date := (clock_timestamp() at time zone 'UTC')::date;
    since constant date := outbox.first_key_day();
    lost bigint[];
    other uuid;
begin
    -- The first row's turn claims them all.
    if not exists (select from outbox.idempotency_requests where xid = mine and event_id = new.event_id) then
        return null;
    end if;
    -- Waits here for whoever has a row of these and has not ended. In this order; it is what rules out a deadlock.
    insert into outbox.idempotency_keys (event_id, day, event_seq, content)
        select r.event_id, d.day, r.event_seq, r.content
        from outbox.idempotency_requests r cross join (values (today - 1), (today)) d(day)
        where r.xid = mine order by r.event_id, d.day
        on conflict do nothing;
    -- A statement of its own, which sees what the one above waited for, and what was committed since the key was used.
    select array_agg(r.event_seq), min(r.event_id::text) filter (where k.content <> r.content) into lost, other
        from outbox.idempotency_requests r cross join lateral (
            select content from outbox.idempotency_keys
            where event_id = r.event_id and day >= since and event_seq <> r.event_seq limit 1) k
        where r.xid = mine;
    if other is not null then
        raise 'idempotency_key: of two transactions that used one key at the same time, the other recorded another type, '
              'key or data' using errcode = 'unique_violation', schema = 'outbox', table = 'idempotency_keys',
            constraint = 'idempotency_key_is_of_one_event', detail = outbox.text_id('evt', other),
            hint = 'Give what is another event a key of its own.';
    end if;
    if lost is not null then
        delete from outbox.idempotency_keys k using outbox.idempotency_requests r
            where r.xid = mine and k.event_id = r.event_id and k.day >= today - 1 and k.event_seq = any (lost);
        delete from outbox.pending where event_seq = any (lost);
        -- With the numbers known when it is planned, it opens only the leaves that hold them.
        execute 'delete from outbox.events where seq = any ($1)' using lost;
    end if;
    delete from outbox.idempotency_requests where xid = mine;
    return null;
end $$;
create constraint trigger claim after insert on outbox.idempotency_requests deferrable initially deferred
    for each row execute function outbox.claim_keys();

-- For SQL, in any language: as before, and with what is new. plpgsql keeps its plan; what is looked up is qualified.
drop function outbox.record(text, json, text, text, timestamptz);
create function outbox.record(type text, data json, key text default null, tenant text default '',
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
        insert into outbox.events (type, payload, key, tenant, available_at, priority, trace)
            values (record.type, record.data::pg_catalog.text, record.key, record.tenant, record.available_at,
                    record.priority, trace)
            returning id into recorded;
        return outbox.text_id('evt', recorded);
    end if;
    select once.event_id, once.same into recorded, same
        from outbox.record_once(type, data::pg_catalog.text, key, tenant, available_at, priority::pg_catalog.int2, trace,
                                idempotency_key) once;
    if not same then
        raise 'idempotency_key: % was used for an event with another type, key or data', pg_catalog.quote_literal(idempotency_key)
            using errcode = 'unique_violation', schema = 'outbox', table = 'idempotency_keys',
                  constraint = 'idempotency_key_is_of_one_event', detail = outbox.text_id('evt', recorded),
                  hint = 'Give what is another event a key of its own.';
    end if;
    return outbox.text_id('evt', recorded);
end $$;

-- Makes the first missing leaf among yesterday, today and the days ahead (UTC), skipping a day that has rows in the
-- default leaf.
create function outbox.make_key_leaf(ahead_days integer default 7, today date default null)
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    begin_day date := coalesce(today, clock_timestamp()::date) - 1;
    covered date[] := array(select from_value::date from outbox.leaves_of('outbox.idempotency_keys'));
    wanted date[] := array(select d::date from generate_series(begin_day, begin_day + ahead_days + 1, '1 day') d
                           where d::date <> all (covered) order by d);
    one date;
    leaf text;
begin
    if wanted = '{}' or not outbox.try_turn('leaves') then
        return null;
    end if;
    lock table outbox.idempotency_keys_default in access exclusive mode;
    foreach one in array wanted loop
        leaf := 'idempotency_keys_' || to_char(one, 'YYYYMMDD');
        if to_regclass('outbox.' || leaf) is null
                and not exists (select from outbox.idempotency_keys_default where day = one) then
            perform outbox.attach_leaf('outbox.idempotency_keys', leaf, 'day', one::text, (one + 1)::text);
            return 'outbox.' || leaf;
        end if;
    end loop;
    return null;
end $$;

-- Forgets keys that are out of the window: empties or drops one leaf, or deletes up to `batch` rows of the default leaf;
-- says how many rows or leaves, 0 when nothing is left. A leaf is emptied by itself and dropped in a later call, in a
-- moment when nobody holds the table; who finds it held tries again.
create function outbox.forget_keys(batch integer) returns bigint language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    since constant date := outbox.first_key_day();
    leaf regclass;
    gone bigint;
begin
    select l.leaf into leaf from outbox.leaves_of('outbox.idempotency_keys') l
        where l.to_value::date <= since order by pg_relation_size(l.leaf) = 0, l.to_value::date limit 1;
    if pg_relation_size(leaf) > 0 then
        execute format('truncate table %s', leaf);
        return 1;
    elsif leaf is not null then
        execute format('lock table only outbox.idempotency_keys, only outbox.idempotency_keys_default, only %s'
                       ' in access exclusive mode nowait', leaf);
        execute format('drop table %s', leaf);
        return 1;
    end if;
    delete from only outbox.idempotency_keys_default where ctid = any (array(
        select ctid from only outbox.idempotency_keys_default where day < since limit batch));
    get diagnostics gone = row_count;
    return gone;
end $$;
