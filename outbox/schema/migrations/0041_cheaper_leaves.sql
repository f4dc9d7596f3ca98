-- Making a leaf of events and dropping an empty one no longer turn the bounds of every leaf into text: 11 µs each, twice
-- for each leaf that was made. A leaf of events is named after its first number, so names tell which ones to ask about.
-- least code: 27
set local lock_timeout = '5s';

-- The bounds of one leaf as text, UTC.
create function outbox.bounds_of(leaf regclass, out from_value text, out to_value text)
    language sql stable set timezone = 'UTC' set datestyle = 'ISO'
begin atomic
    select split_part(bound, '''', 2), split_part(bound, '''', 4)
    from (select pg_get_expr(relpartbound, oid) bound from pg_class where oid = leaf) of_leaf;
end;

-- The leaves of events with the number in their names, null where a name has none; not the default one. The number is
-- the first one of a leaf that make_event_leaf made. A table that a person attached may have any name.
create function outbox.named_event_leaves(out leaf regclass, out number numeric)
    returns setof record language sql stable
begin atomic
    with leaves as materialized (
        select c.oid, c.relname::text as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox.events'::regclass
            and c.oid <> (select partdefid from pg_partitioned_table where partrelid = 'outbox.events'::regclass))
    select oid::regclass, case when rtrim(name, '0123456789') = 'events_' then nullif(substr(name, 8), '')::numeric end
    from leaves;
end;

-- The bounds of the highest leaf of events, null when there is none. Where a name has no number, or the highest number is
-- not where its leaf begins, it asks each leaf.
create function outbox.last_event_leaf(out from_value bigint, out to_value bigint) language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
declare
    named record;
begin
    select leaf, number into named from outbox.named_event_leaves() order by number desc nulls first limit 1;
    select b.from_value, b.to_value into from_value, to_value from outbox.bounds_of(named.leaf) b;
    if from_value is distinct from named.number then
        select l.from_value, l.to_value into from_value, to_value from outbox.leaves_of('outbox.events') l
            order by l.to_value::bigint desc limit 1;
    end if;
end $$;

-- As before, but for how the highest leaf is found.
create or replace function outbox.make_event_leaf(ahead integer default 8, leaf_rows bigint default null,
                                       max_default_bytes bigint default null, span interval default '18 hours')
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    bounded constant boolean := outbox.require_leaf_bounds(ahead, leaf_rows, null, null);
    drawn bigint := (select last_value from outbox.events_seq);
    first bigint;
    size bigint;
    room bigint;
    leaf text;
begin
    select to_value, coalesce(leaf_rows, outbox.event_leaf_rows(span, to_value - from_value))
        into first, size from outbox.last_event_leaf() where to_value is not null;
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
                      (select to_value from outbox.last_event_leaf()));
    leaf := 'events_' || first;
    begin
        perform outbox.attach_leaf('outbox.events', leaf, 'seq', first::text, ((first / size + 1) * size)::text);
    exception when invalid_object_definition then  -- a leaf lies there whose name has a low number
        first := greatest(first, (select max(to_value::bigint) from outbox.leaves_of('outbox.events')));
        leaf := 'events_' || first;
        perform outbox.attach_leaf('outbox.events', leaf, 'seq', first::text, ((first / size + 1) * size)::text);
    end;
    return 'outbox.' || leaf;
end $$;

-- As before, but of the leaves of events it asks only those that it would look into for where they end.
create or replace function outbox.drop_empty_leaf(today date default null) returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    bounded constant boolean := outbox.require_leaf_bounds(null, null, today, clock_timestamp()::date);
    drawn bigint := (select last_value from outbox.events_seq);
    midnight timestamptz := coalesce(today, clock_timestamp()::date);
    seen integer := 0;
    one record;
    leaf text;
    empty boolean;
begin
    for one in select behind.* from (
                   select 'outbox.events' parent, l.leaf, false ends_behind from outbox.named_event_leaves() l
                   where coalesce(l.number <= drawn, true)
                   union all select 'outbox.attempts', l.leaf, true from outbox.leaves_of('outbox.attempts') l
                   where l.to_value::timestamptz <= midnight) behind
               order by pg_relation_size(behind.leaf) > 0, random() loop
        continue when not one.ends_behind and (select to_value::bigint > drawn from outbox.bounds_of(one.leaf));
        exit when seen = 10;
        seen := seen + 1;
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
set local lock_timeout to default;
