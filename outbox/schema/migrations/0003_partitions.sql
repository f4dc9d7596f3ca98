-- Leaves of the partitioned tables, and retention. CREATE … PARTITION OF, DETACH and a plain DROP wait for every open
-- transaction while each insert queues behind them; so a leaf is made apart with a CHECK and attached, is emptied by
-- TRUNCATE of itself alone, and is dropped only in a moment when nobody holds the table.
-- The functions run as their owner, so that a relay with few rights can call them. One that takes a lock waits at most
-- 50 ms and does one leaf; it returns null when there is nothing to do. Its caller commits after each call, and tries
-- again later when a lock was not to be had (55P03).

-- Payloads compress and decompress faster by lz4, where the server was built with it. Leaves inherit it.
do $$
begin
    if 'lz4' = any((select enumvals from pg_settings where name = 'default_toast_compression')::text[]) then
        alter table outbox.events alter column payload set compression lz4;
        alter table outbox.events_default alter column payload set compression lz4;
        alter table outbox.dead_letters alter column payload set compression lz4;
    end if;
end $$;

-- The leaves of a table with their bounds as text, UTC; not the default one.
create function outbox.leaves_of(parent regclass, out leaf regclass, out from_value text, out to_value text)
    returns setof record language sql stable set timezone = 'UTC' set datestyle = 'ISO'
begin atomic
    select c.oid::regclass, substring(bound from 'FROM \(''([^'']+)'), substring(bound from 'TO \(''([^'']+)')
    from pg_inherits i join pg_class c on c.oid = i.inhrelid,
         lateral (select pg_get_expr(c.relpartbound, c.oid) bound) b
    where i.inhparent = parent and bound <> 'DEFAULT'
    order by c.oid;
end;

-- Makes a leaf, attaches it, and takes away whatever rights the database's default privileges gave on it: a row put
-- straight into a leaf would never become pending.
create function outbox.attach_leaf(parent regclass, leaf name, by name, from_value text, to_value text)
    returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    grantee oid;
begin
    execute format('create table outbox.%I (like %s including all)', leaf, parent);
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

-- Makes the next leaf of events unless `ahead` are ready above the sequence. Rows in the default leaf stay there, and
-- the next leaf begins above them. Attaching reads the default leaf under a lock that stops inserts into it: a caller
-- for whom that matters bounds its size.
create function outbox.make_event_leaf(ahead integer default 8, leaf_rows bigint default 1000000,
                                       max_default_bytes bigint default null)
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    first bigint := (select coalesce(max(to_value::bigint), 1) from outbox.leaves_of('outbox.events'));
    leaf text;
begin
    if first > drawn + ahead * leaf_rows or pg_relation_size('outbox.events_default') > max_default_bytes
            or not pg_try_advisory_xact_lock(31372865143011331) then
        return null;
    end if;
    lock table outbox.events_default in access exclusive mode;
    first := greatest(first, drawn / leaf_rows * leaf_rows,
                      (select max(seq) + 1 from outbox.events_default),
                      (select max(to_value::bigint) from outbox.leaves_of('outbox.events')));
    leaf := 'events_' || first;
    perform outbox.attach_leaf('outbox.events', leaf, 'seq', first::text,
                               ((first / leaf_rows + 1) * leaf_rows)::text);
    return 'outbox.' || leaf;
end $$;

-- Makes the first missing leaf of attempts among today and the days ahead (UTC), skipping a day that has rows in the
-- default leaf.
create function outbox.make_attempt_leaf(ahead_days integer default 7, today date default null)
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    begin_day date := coalesce(today, clock_timestamp()::date);
    covered timestamptz[] := array(select from_value::timestamptz from outbox.leaves_of('outbox.attempts'));
    wanted timestamptz[] := array(select d from generate_series(begin_day::timestamptz, begin_day + ahead_days, '1 day') d
                                  where d <> all (covered) order by d);
    day timestamptz;
    leaf text;
begin
    if wanted = '{}' or not pg_try_advisory_xact_lock(31372865143011331) then
        return null;
    end if;
    lock table outbox.attempts_default in access exclusive mode;
    foreach day in array wanted loop
        leaf := 'attempts_' || to_char(day, 'YYYYMMDD');
        if to_regclass('outbox.' || leaf) is null and not exists (
                select from outbox.attempts_default where at >= day and at < day + interval '1 day') then
            perform outbox.attach_leaf('outbox.attempts', leaf, 'at', day::text, (day + interval '1 day')::text);
            return 'outbox.' || leaf;
        end if;
    end loop;
    return null;
end $$;

-- Retention goes one at a time, and refuses a snapshot that would not see what others commit meanwhile.
create function outbox.begin_retention() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise 'retention needs READ COMMITTED: its last check must see what others commit';
    end if;
    perform pg_advisory_xact_lock(31372865143011330);
end $$;

-- Empties one leaf of events whose numbers are all drawn and whose every row is older than `older_than` and done: no
-- pending row, no delivery. What is slow is asked before the leaf is locked, and asked again inside the lock, where no
-- writer is open. An event that came in between is pending, or one of the last resolutions.
create function outbox.retire_event_leaf(older_than timestamptz, out leaf text, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    begun timestamptz := clock_timestamp();
    one record;
    low bigint;
    past bigint;
    young boolean;
begin
    perform outbox.begin_retention();
    for one in select l.leaf, l.from_value::bigint low, l.to_value::bigint past
               from outbox.leaves_of('outbox.events') l where l.to_value::bigint <= drawn order by 2 loop
        low := one.low;
        past := one.past;
        execute format('select recorded_at >= $1 from %s order by seq desc limit 1', one.leaf) into young using older_than;
        continue when young is null or young
            or exists (select from outbox.pending where event_seq >= low and event_seq < past)
            or exists (select from outbox.deliveries where event_seq >= low and event_seq < past);
        execute format('select count(*), bool_or(recorded_at >= $1) from %s', one.leaf) into gone, young using older_than;
        continue when young;
        execute format('lock table %s in access exclusive mode', one.leaf);
        continue when exists (select from outbox.pending where event_seq >= low and event_seq < past)
            or exists (select from outbox.deliveries where event_seq >= low and event_seq < past)
            or exists (select from outbox.resolutions r, unnest(r.seqs) seq
                       where r.at >= begun - interval '1 hour' and seq >= low and seq < past);
        execute format('truncate table %s', one.leaf);
        leaf := one.leaf::text;
        return;
    end loop;
    gone := 0;
end $$;

-- Deletes old, done events among the next `batch` events above `after`, and says up to which it looked; null at the end.
-- The rows are locked before the last look at what is undelivered: a replay that holds one is passed over, and one that
-- comes later finds the event gone.
create function outbox.prune_events(older_than timestamptz, after bigint, batch integer,
                                    out reached bigint, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    low bigint;
    old bigint[];
    done bigint[];
begin
    perform outbox.begin_retention();
    select min(seq), max(seq), array_agg(seq) filter (where recorded_at < older_than) into low, reached, old
        from (select seq, recorded_at from outbox.events where seq > after order by seq limit batch) next_events;
    select array_agg(seq) into done from (
        select seq from outbox.events e where seq between low and reached and seq = any (old)
            and not exists (select from outbox.pending where event_seq = e.seq)
            and not exists (select from outbox.deliveries where event_seq = e.seq)
        for update skip locked) locked;
    delete from outbox.events e where seq between low and reached and seq = any (done)
        and not exists (select from outbox.pending where event_seq = e.seq)
        and not exists (select from outbox.deliveries where event_seq = e.seq);
    get diagnostics gone = row_count;
    if old is null then
        reached := null;
    end if;
end $$;

-- Empties one leaf of attempts whose day ended before `older_than` and whose events are all gone: the record of what was
-- done with an event outlives it.
create function outbox.retire_attempt_leaf(older_than timestamptz, out leaf text, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    one record;
    needed boolean;
begin
    for one in select l.leaf from outbox.leaves_of('outbox.attempts') l
               where l.to_value::timestamptz <= older_than order by l.to_value::timestamptz loop
        execute format('select count(*), bool_or(exists (select from outbox.events e where e.seq = a.event_seq))
                        from %s a', one.leaf) into gone, needed;
        continue when needed is null or needed;
        execute format('lock table %s in access exclusive mode', one.leaf);
        execute format('select exists (select from %s where at >= $1)', one.leaf) into needed using older_than;
        continue when needed;
        execute format('truncate table %s', one.leaf);
        leaf := one.leaf::text;
        return;
    end loop;
    gone := 0;
end $$;

-- Deletes up to `batch` attempts older than `older_than` whose event is gone; returns how many.
create function outbox.prune_attempts(older_than timestamptz, batch integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    leaf regclass;
    deleted bigint;
    gone bigint := 0;
begin
    for leaf in select l.leaf from outbox.leaves_of('outbox.attempts') l where l.from_value::timestamptz < older_than
                union all select 'outbox.attempts_default' loop
        execute format('delete from only %s where ctid = any(array(
                            select ctid from only %1$s a where at < $1
                            and not exists (select from outbox.events e where e.seq = a.event_seq) limit $2))', leaf)
            using older_than, batch - gone;
        get diagnostics deleted = row_count;
        gone := gone + deleted;
        exit when gone >= batch;
    end loop;
    return gone;
end $$;

-- Deletes up to `batch` resolutions older than `older_than` whose events are gone; returns how many.
create function outbox.prune_resolutions(older_than timestamptz, batch integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone bigint;
begin
    delete from outbox.resolutions where ctid = any (array(
        select ctid from outbox.resolutions r where at < older_than
        and not exists (select from outbox.events e where e.seq = any (r.seqs)) limit batch));
    get diagnostics gone = row_count;
    return gone;
end $$;

-- Drops one empty leaf that lies behind: below the sequence's last number, or before today. It needs the whole table for
-- a moment, so it takes the locks only when they are free at once, and queues in front of nobody.
create function outbox.drop_empty_leaf(today date default null) returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    midnight timestamptz := coalesce(today, clock_timestamp()::date);
    one record;
    leaf text;
    empty boolean;
begin
    for one in select 'outbox.events' parent, l.leaf from outbox.leaves_of('outbox.events') l
                   where l.to_value::bigint <= drawn
               union all select 'outbox.attempts', l.leaf from outbox.leaves_of('outbox.attempts') l
                   where l.to_value::timestamptz <= midnight loop
        execute format('select not exists (select from %s)', one.leaf) into empty;
        continue when not empty;
        execute format('lock table only %s, only %1$s_default, only %s in access exclusive mode nowait',
                       one.parent, one.leaf);
        execute format('select not exists (select from %s)', one.leaf) into empty;
        continue when not empty;
        leaf := one.leaf::text;
        execute format('drop table %s', leaf);
        return leaf;
    end loop;
    return null;
end $$;
