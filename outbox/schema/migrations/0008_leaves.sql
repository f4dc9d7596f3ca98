-- Fewer, larger leaves of events, and retention that opens only the leaves it looks at. A statement that reads events
-- plans and locks each leaf that the planner cannot leave out: a leaf for each million events made thousands of them.

-- As before, at half the price: the bound of a leaf is made into text once, not three times, and not matched by a pattern.
create or replace function outbox.leaves_of(parent regclass, out leaf regclass, out from_value text, out to_value text)
    returns setof record language sql stable set timezone = 'UTC' set datestyle = 'ISO'
begin atomic
    with bounds as materialized (
        select c.oid, pg_get_expr(c.relpartbound, c.oid) as bound
        from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = parent)
    select oid::regclass, split_part(bound, '''', 2), split_part(bound, '''', 4)
    from bounds where bound <> 'DEFAULT' order by oid;
end;

-- How many numbers the next leaf of events shall have: a million, doubled as long as so many events were resolved within
-- the last `span`. A leaf is then filled in half of `span` to all of it, whatever the rate. It is at most four times the
-- newest leaf, so that one odd resolution cannot make a leaf that lasts for ever.
create function outbox.event_leaf_rows(span interval, newest_leaf_rows bigint) returns bigint language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
declare
    smallest constant bigint := 1000000;
    largest constant bigint := 4 * greatest(smallest, newest_leaf_rows);
    resolved constant bigint := (select first_seq from outbox.resolutions order by first_seq desc limit 1);
    leaf_rows bigint := smallest;
begin
    while leaf_rows * 2 <= least(largest, resolved)
            and (select at from outbox.resolutions where first_seq >= resolved - leaf_rows * 2 order by first_seq limit 1)
                >= clock_timestamp() - span loop
        leaf_rows := leaf_rows * 2;
    end loop;
    return leaf_rows;
end $$;

-- Makes the next leaf of events unless enough are ready above the sequence: room for `ahead` million numbers and for two
-- leaves of the size that the next one would have, or for `ahead` leaves of `leaf_rows` when that is given. Rows in the
-- default leaf stay there, and the next leaf begins above them. Attaching reads the default leaf under a lock that stops
-- inserts into it: a caller for whom that matters bounds its size. The span is a fortieth of the retention time.
drop function outbox.make_event_leaf(integer, bigint, bigint);
create function outbox.make_event_leaf(ahead integer default 8, leaf_rows bigint default null,
                                       max_default_bytes bigint default null, span interval default '18 hours')
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    first bigint;
    size bigint;
    room bigint;
    leaf text;
begin
    select to_value::bigint, coalesce(leaf_rows, outbox.event_leaf_rows(span, to_value::bigint - from_value::bigint))
        into first, size from outbox.leaves_of('outbox.events') order by to_value::bigint desc limit 1;
    first := coalesce(first, 1);
    size := coalesce(size, leaf_rows, 1000000);
    room := coalesce(ahead * leaf_rows, greatest(ahead * 1000000::bigint, 2 * size));
    if first > drawn + room or pg_relation_size('outbox.events_default') > max_default_bytes
            or not outbox.try_turn('leaves') then
        return null;
    end if;
    lock table outbox.events_default in access exclusive mode;
    first := greatest(first, drawn / size * size,
                      (select max(seq) + 1 from outbox.events_default),
                      (select max(to_value::bigint) from outbox.leaves_of('outbox.events')));
    leaf := 'events_' || first;
    perform outbox.attach_leaf('outbox.events', leaf, 'seq', first::text, ((first / size + 1) * size)::text);
    return 'outbox.' || leaf;
end $$;

-- Like retire_event_leaf, in bounded steps: looks at no more than 10 leaves above the number `after`, the oldest first,
-- and says in `reached` where to go on; null at the end.
create function outbox.retire_next_event_leaf(older_than timestamptz, after bigint,
                                              out reached bigint, out leaf text, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    begun timestamptz := clock_timestamp();
    seen integer := 0;
    one record;
    low bigint;
    past bigint;
    young boolean;
begin
    perform outbox.begin_retention();
    for one in select l.leaf, l.from_value::bigint low, l.to_value::bigint past from outbox.leaves_of('outbox.events') l
               where l.to_value::bigint <= drawn and l.from_value::bigint > after order by 2 limit 10 loop
        seen := seen + 1;
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
        reached := low;
        return;
    end loop;
    gone := 0;
    reached := case when seen = 10 then low end;
end $$;

-- For relays of the former version: the same, over all leaves.
create or replace function outbox.retire_event_leaf(older_than timestamptz, out leaf text, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    after bigint := 0;
begin
    loop
        select next.reached, next.leaf, next.gone into after, leaf, gone
            from outbox.retire_next_event_leaf(older_than, after) next;
        exit when after is null or leaf is not null;
    end loop;
end $$;

-- Deletes old, done events among the next `batch` events above `after`, in one leaf and the default one, and says up to
-- which it looked; null at the end. When none of the batch is old, the rest of the leaf is passed over. The statements
-- are planned with their bounds known, which opens these leaves only. The rows are locked before the last look at what
-- is undelivered: a replay that holds one is passed over, and one that comes later finds the event gone.
create or replace function outbox.prune_events(older_than timestamptz, after bigint, batch integer,
                                               out reached bigint, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    drawn constant bigint := (select last_value from outbox.events_seq);
    past constant bigint := coalesce((select min(to_value::bigint) from outbox.leaves_of('outbox.events')
                                      where to_value::bigint > after + 1), 9223372036854775807);
    undelivered constant text := 'and not exists (select from outbox.pending where event_seq = e.seq)
                                  and not exists (select from outbox.deliveries where event_seq = e.seq)';
    seen bigint;
    old bigint[];
    done bigint[];
begin
    perform outbox.begin_retention();
    execute 'select count(*), max(seq), array_agg(seq) filter (where recorded_at < $1) from (
                 select seq, recorded_at from outbox.events where seq > $2 and seq < $3 order by seq limit $4) next_events'
        into seen, reached, old using older_than, after, past, batch;
    gone := 0;
    if old is not null then
        execute 'select array_agg(seq) from (
                     select seq from outbox.events e where seq = any ($1) ' || undelivered || ' for update skip locked) locked'
            into done using old;
        execute 'delete from outbox.events e where seq = any ($1) ' || undelivered using done;
        get diagnostics gone = row_count;
    end if;
    if old is null or seen < batch then
        reached := case when past <= drawn then past - 1 end;
    end if;
end $$;

-- The lowest and highest event of a leaf's attempts, from its index.
create function outbox.events_of_attempts(leaf regclass, out low bigint, out high bigint)
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    execute format('select (select min(event_seq) from only %s), (select max(event_seq) from only %1$s)', leaf)
        into low, high;
end $$;

-- Like retire_attempt_leaf, in bounded steps: looks at one leaf whose day begins after `after` (Unix seconds), the oldest
-- first, and says in `reached` where to go on; null at the end.
create function outbox.retire_next_attempt_leaf(older_than timestamptz, after bigint,
                                                out reached bigint, out leaf text, out gone bigint)
    language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    one record;
    needed boolean;
begin
    gone := 0;
    select l.leaf, extract(epoch from l.from_value::timestamptz)::bigint as day into one
        from outbox.leaves_of('outbox.attempts') l
        where l.to_value::timestamptz <= older_than and extract(epoch from l.from_value::timestamptz) > after
        order by 2 limit 1;
    reached := one.day;
    if reached is null then
        return;
    end if;
    execute format('select exists (select from %s a join outbox.events e on e.seq = a.event_seq
                                   where e.seq between $1 and $2 and a.event_seq between $1 and $2)', one.leaf)
        into needed using (outbox.events_of_attempts(one.leaf)).low, (outbox.events_of_attempts(one.leaf)).high;
    if needed then
        return;
    end if;
    execute format('select count(*) from %s', one.leaf) into gone;
    if gone = 0 then
        return;
    end if;
    execute format('lock table %s in access exclusive mode', one.leaf);
    execute format('select exists (select from %s where at >= $1)', one.leaf) into needed using older_than;
    if needed then
        gone := 0;
        return;
    end if;
    execute format('truncate table %s', one.leaf);
    leaf := one.leaf::text;
end $$;

-- For relays of the former version: the same, over all leaves.
create or replace function outbox.retire_attempt_leaf(older_than timestamptz, out leaf text, out gone bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    after bigint := 0;
begin
    loop
        select next.reached, next.leaf, next.gone into after, leaf, gone
            from outbox.retire_next_attempt_leaf(older_than, after) next;
        exit when after is null or leaf is not null;
    end loop;
end $$;

-- Deletes up to `batch` attempts older than `older_than` whose event is gone; returns how many.
create or replace function outbox.prune_attempts(older_than timestamptz, batch integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    one record;
    deleted bigint;
    gone bigint := 0;
begin
    for one in select old.leaf from (
                   select l.leaf from outbox.leaves_of('outbox.attempts') l where l.from_value::timestamptz < older_than
                   union all select 'outbox.attempts_default') old
               where pg_relation_size(old.leaf) > 0 loop
        execute format('delete from only %s where ctid = any(array(
                            select ctid from only %1$s a where at < $1
                            and not exists (select from outbox.events e where e.seq = a.event_seq and e.seq between $3 and $4)
                            limit $2))', one.leaf)
            using older_than, batch - gone,
                  (outbox.events_of_attempts(one.leaf)).low, (outbox.events_of_attempts(one.leaf)).high;
        get diagnostics deleted = row_count;
        gone := gone + deleted;
        exit when gone >= batch;
    end loop;
    return gone;
end $$;

-- Deletes up to `batch` resolutions older than `older_than` whose events are gone; returns how many. It looks at a piece
-- of them, so that it opens only the leaves of their events; at a larger one when those that stay fill the piece.
create or replace function outbox.prune_resolutions(older_than timestamptz, batch integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    piece bigint := batch;
    rows tid[];
    low bigint;
    high bigint;
    deleted bigint;
    gone bigint := 0;
begin
    loop
        select array_agg(ctid), min(first_seq), max(seqs[cardinality(seqs)]) into rows, low, high
            from (select ctid, first_seq, seqs from outbox.resolutions where at < older_than limit piece) old;
        exit when rows is null;
        execute 'delete from outbox.resolutions where ctid = any (array(
                     select ctid from outbox.resolutions r where ctid = any ($1)
                     and not exists (select from outbox.events e where e.seq = any (r.seqs) and e.seq between $2 and $3)
                     limit $4))'
            using rows, low, high, batch - gone;
        get diagnostics deleted = row_count;
        gone := gone + deleted;
        exit when gone >= batch or cardinality(rows) < piece;
        piece := piece * 2;
    end loop;
    return gone;
end $$;

-- Drops one empty leaf that lies behind: below the sequence's last number, or before today. It looks into leaves without
-- a byte, and into 10 others by chance: to look into a leaf is to lock it. It needs the whole table for a moment, so it
-- takes the locks only when they are free at once, and queues in front of nobody.
create or replace function outbox.drop_empty_leaf(today date default null) returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    midnight timestamptz := coalesce(today, clock_timestamp()::date);
    one record;
    leaf text;
    empty boolean;
begin
    for one in select behind.* from (
                   select 'outbox.events' parent, l.leaf from outbox.leaves_of('outbox.events') l
                   where l.to_value::bigint <= drawn
                   union all select 'outbox.attempts', l.leaf from outbox.leaves_of('outbox.attempts') l
                   where l.to_value::timestamptz <= midnight) behind
               order by pg_relation_size(behind.leaf) > 0, random() limit 10 loop
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

-- Which idle relay looks for new events at a high rate, and until when unless it says so again. One row.
create table outbox.poller (
    single boolean primary key default true check (single),
    holder uuid,
    until timestamptz
) with (fillfactor = 50);
insert into outbox.poller default values;
