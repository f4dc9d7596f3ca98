-- Turns: what one process does at a time, a row each, taken by FOR UPDATE. That needs UPDATE on this table; an advisory
-- lock needs no right at all, so whoever could connect could stop fan_out, housekeeping and retention for everybody.
--
-- A relay of the former version takes the advisory lock and not the row, so while an upgrade rolls both kinds may fan out
-- at once. That is safe: `for update skip locked` gives each pending row to one of them, the delivery's own snapshot
-- decides what matches, and no order is promised between two batches. The turn only saves them from stepping over the
-- rows that the other has locked.
create table outbox.turns (
    name text collate "C" primary key,
    -- Nothing writes it: the right to UPDATE this column is the right to take a turn, and not to rename one.
    taken boolean not null default false check (not taken)
);
insert into outbox.turns (name) values ('fan_out'), ('housekeeping'), ('leaves'), ('retention');

-- Takes this turn until the end of the transaction, unless somebody has it; tells whether it did.
create function outbox.try_turn(turn text) returns boolean language sql set search_path = pg_catalog, pg_temp
begin atomic
    select count(*) = 1 from (select from outbox.turns where name = turn for update skip locked) mine;
end;

-- The functions that excluded each other by advisory locks, otherwise unchanged.
create or replace function outbox.make_event_leaf(ahead integer default 8, leaf_rows bigint default 1000000,
                                       max_default_bytes bigint default null)
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    drawn bigint := (select last_value from outbox.events_seq);
    first bigint := (select coalesce(max(to_value::bigint), 1) from outbox.leaves_of('outbox.events'));
    leaf text;
begin
    if first > drawn + ahead * leaf_rows or pg_relation_size('outbox.events_default') > max_default_bytes
            or not outbox.try_turn('leaves') then
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

create or replace function outbox.make_attempt_leaf(ahead_days integer default 7, today date default null)
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
    if wanted = '{}' or not outbox.try_turn('leaves') then
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

create or replace function outbox.begin_retention() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise 'retention needs READ COMMITTED: its last check must see what others commit';
    end if;
    perform from outbox.turns where name = 'retention' for update;
end $$;

-- How large its event's payload is, so that a claim can be bounded by bytes without looking into events. Null: a relay of
-- the former version made it. And a dead letter of an event that the server cannot read has no payload.
set local lock_timeout = '5s';
alter table outbox.deliveries add column event_bytes integer;
alter table outbox.dead_letters alter column payload drop not null;
set local lock_timeout to default;
