-- Statistics: how many deliveries arrived, failed, died and were cancelled, how long the requests took, and the views that
-- a person reads.
--
-- Each attempt is counted exactly once, whenever its transaction commits. A trigger notes the attempts of a statement in
-- outbox.uncounted, in their own transaction: presence is the truth, as in outbox.pending. Housekeeping deletes such rows
-- and appends what they add up to, in one transaction. So an attempt is at any time, for every snapshot, in exactly one
-- of the two tables; a crash or a second relay changes nothing about that, and nothing waits for open transactions.
set local lock_timeout = '5s';

-- One row a statement that inserted attempts; the arrays are parallel. Null stands for what is so in a delivered one:
-- verdict, outcome, status and delivery. verdict 'buried' is a dead letter, not an attempt. xid is the transaction's own,
-- also inside a savepoint.
create table outbox.uncounted (
    xid xid8 not null default pg_current_xact_id(),
    ats timestamptz[] not null,
    subscription_ids uuid[] not null,
    event_seqs bigint[] not null,
    milliseconds integer[] not null,
    verdicts text[] not null,
    outcomes text[] not null,
    statuses smallint[] not null,
    delivery_ids uuid[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000, toast_tuple_target = 8160);
-- Compressing a row that lives for a minute costs more than writing it.
alter table outbox.uncounted
    alter ats set storage external, alter subscription_ids set storage external, alter event_seqs set storage external,
    alter milliseconds set storage external, alter verdicts set storage external, alter outcomes set storage external,
    alter statuses set storage external, alter delivery_ids set storage external;
create index uncounted_xid on outbox.uncounted (xid);

-- Append only: several rows of the same bucket add up. seconds: 60, 3600 or 86400, how long the bucket is that begins at
-- start. scope says which of the columns after it are set, the others are empty:
--   all                  no column                         type           type
--   tenant               tenant, type                      subscription   subscription_id, tenant, type
-- failed: attempts that did not deliver. dead: dead letters that were made. cancelled: by hand. delivered is the sum of
-- counts; buckets and counts are the histogram of how long delivered requests took (latency_bounds), milliseconds their sum.
create table outbox.rollups (
    seconds integer not null,
    start timestamptz not null,
    scope text collate "C" not null,
    subscription_id uuid not null,
    tenant text collate "C" not null,
    type text collate "C" not null,
    delivered bigint not null,
    failed bigint not null,
    dead bigint not null,
    cancelled bigint not null,
    milliseconds bigint not null,
    buckets smallint[] not null,
    counts bigint[] not null,
    last_delivered_at timestamptz,
    last_failed_at timestamptz,
    last_failed_delivery uuid,
    last_outcome text,
    last_status smallint,
    constraint seconds_are_known check (seconds in (60, 3600, 86400)),
    constraint scope_is_known check (scope in ('all', 'type', 'tenant', 'subscription')),
    constraint times_are_dates check (
        least(start, last_delivered_at, last_failed_at) >= '0001-01-01Z'
        and greatest(start, last_delivered_at, last_failed_at) < '10000-01-01Z')
);
create index rollups_of on outbox.rollups (scope, seconds, subscription_id, tenant, start);
create index rollups_start on outbox.rollups (seconds, start);

-- hour_until, day_until: what began before is in rows of an hour, of a day. What comes later for such an hour is added to
-- them too. counted: all that this snapshot sees of outbox.uncounted is gone from there; the dead rows that a held
-- snapshot keeps are not stepped over again and again.
create table outbox.rollup_state (
    single boolean primary key default true,
    counted pg_snapshot,
    hour_until timestamptz not null default date_bin('1 hour', clock_timestamp(), '2000-01-01Z'),
    day_until timestamptz not null default date_bin('1 day', clock_timestamp(), '2000-01-01Z'),
    constraint there_is_one check (single),
    constraint times_are_dates check (least(hour_until, day_until) >= '0001-01-01Z'
                                      and greatest(hour_until, day_until) < '10000-01-01Z')
) with (fillfactor = 50);
insert into outbox.rollup_state default values;
insert into outbox.turns (name) values ('statistics');

-- The attempts of before, a row for each piece of a leaf that is still to be noted in outbox.uncounted.
create table outbox.uncounted_leaves (
    leaf text not null,
    first_page bigint not null,
    last_page bigint not null,
    before timestamptz not null,
    constraint before_is_a_date check (before >= '0001-01-01Z' and before < '10000-01-01Z')
);

-- Where buckets begin, in milliseconds: 2^(n/8) rounded up, so that neighbours differ by less than 9.1 %. Bucket 0 is below
-- the first. A value that is read from a bucket is wrong by 4.4 % at most, and exact below 16 ms.
create function outbox.latency_bounds() returns integer[] language sql immutable parallel safe
begin atomic
    select '{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,18,20,21,23,25,27,30,32,35,39,42,46,50,54,59,64,70,77,83,91,99,108,118,128,
        140,153,166,182,198,216,235,256,280,305,332,363,395,431,470,512,559,609,664,725,790,862,940,1024,1117,1218,1328,1449,
        1580,1723,1879,2048,2234,2436,2656,2897,3159,3445,3757,4096,4467,4871,5312,5793,6317,6889,7513,8192,8934,9742,10624,
        11586,12634,13778,15025,16384,17867,19484,21248,23171,25268,27555,30049,32768,35734,38968,42495,46341,50536,55109,
        60097,65536,71468,77936,84990,92682,101071,110218,120194,131072,142936,155872,169980,185364,202141,220436,240388,
        262144,285871,311744,339959,370728,404282,440872,480775,524288,571741,623488,679918,741456,808563,881744,961549,
        1048576}'::integer[];
end;

-- The value whose relative distance to both ends of a bucket is the same: 2ab/(a+b).
create function outbox.latency_of(bucket integer) returns double precision language sql immutable strict parallel safe
begin atomic
    select case when bucket < 1 then 0 when bucket >= cardinality(b) then b[cardinality(b)]
                else 2.0 * b[bucket] * (b[bucket + 1] - 1) / (b[bucket] + b[bucket + 1] - 1) end::double precision
    from (select outbox.latency_bounds() as b) bounds;
end;

create function outbox.note_uncounted() returns trigger language plpgsql security definer as $$
begin
    insert into outbox.uncounted (ats, subscription_ids, event_seqs, milliseconds, verdicts, outcomes, statuses, delivery_ids)
        select pg_catalog.array_agg(at), pg_catalog.array_agg(subscription_id), pg_catalog.array_agg(event_seq),
               pg_catalog.array_agg(milliseconds),
               pg_catalog.array_agg(case when verdict operator(pg_catalog.<>) 'delivered' then verdict end),
               pg_catalog.array_agg(case when verdict operator(pg_catalog.<>) 'delivered' then outcome end),
               pg_catalog.array_agg(case when verdict operator(pg_catalog.<>) 'delivered' then status end),
               pg_catalog.array_agg(delivery_id)
        from inserted where verdict operator(pg_catalog.<>) 'test' having pg_catalog.count(*) operator(pg_catalog.>) 0;
    return null;
end $$;
create trigger note_uncounted after insert on outbox.attempts
    referencing new table as inserted for each statement execute function outbox.note_uncounted();

-- Some die without an attempt that says so: by a crash, or because they cannot be resolved. So the letters are counted.
create function outbox.note_buried() returns trigger language plpgsql security definer as $$
begin
    insert into outbox.uncounted (ats, subscription_ids, event_seqs, milliseconds, verdicts, outcomes, statuses, delivery_ids)
        select pg_catalog.array_agg(died_at), pg_catalog.array_agg(subscription_id), pg_catalog.array_agg(event_seq),
               pg_catalog.array_agg(0), pg_catalog.array_agg('buried'::pg_catalog.text), pg_catalog.array_agg(reason),
               pg_catalog.array_agg(null::pg_catalog.int2), pg_catalog.array_agg(delivery_id)
        from inserted having pg_catalog.count(*) operator(pg_catalog.>) 0;
    return null;
end $$;
create trigger note_buried after insert on outbox.dead_letters
    referencing new table as inserted for each statement execute function outbox.note_buried();

-- Whether this transaction wrote down how a delivery ended. Asked of attempts it would lock each leaf of them, with each of
-- its indexes, however many there are.
create function outbox.ends_here(delivery uuid, verdicts text[]) returns boolean language sql stable
begin atomic
    select exists (
        select from outbox.uncounted u, unnest(u.delivery_ids, u.verdicts) a(id, verdict)
        where u.xid = pg_current_xact_id_if_assigned() and a.id = ends_here.delivery
          and coalesce(a.verdict, 'delivered') = any (ends_here.verdicts));
end;

do $$
declare
    one record;
    was text;
    becomes text;
begin
    for one in select * from (values
            ('outbox.audit_delivery()'::regprocedure,
             $a$exists (select from outbox.attempts where delivery_id = old.id and verdict = any ('{delivered,cancelled}'))$a$,
             $a$outbox.ends_here(old.id, '{delivered,cancelled}')$a$),
            ('outbox.audit_dead_letter()'::regprocedure,
             $a$exists (select from outbox.attempts where delivery_id = old.delivery_id and verdict = 'delivered')$a$,
             $a$outbox.ends_here(old.delivery_id, '{delivered}')$a$)) v(name, words, others) loop
        was := pg_get_functiondef(one.name);
        becomes := replace(was, one.words, one.others);
        if was = becomes then
            raise 'no % in %', one.words, one.name;
        end if;
        execute becomes;
    end loop;
end $$;
-- When the transaction commits, as that of dead letters is: by then the attempt is noted.
drop trigger audit on outbox.deliveries;
create constraint trigger audit after delete on outbox.deliveries deferrable initially deferred for each row
    when (old.lease is null or not starts_with(current_setting('application_name', true), 'outbox-relay'))
    execute function outbox.audit_delivery();

-- From here on nobody inserts into attempts without the trigger, and whoever did before has committed: creating the
-- trigger waited for them. Their rows have an `at` of before.
insert into outbox.uncounted_leaves (leaf, first_page, last_page, before)
    select leaf, page, page + 999, clock_timestamp()
    from (select l.leaf::text from outbox.leaves_of('outbox.attempts') l union all select 'outbox.attempts_default') leaves,
         generate_series(0, pg_relation_size(leaf::regclass) / current_setting('block_size')::bigint, 1000) page
    where pg_relation_size(leaf::regclass) > 0;
set local lock_timeout to default;

-- What is not counted yet, a row an attempt or dead letter, for this very snapshot. A `counted` of another cluster (after
-- a dump and a restore) says nothing here.
create function outbox.uncounted_attempts()
    returns table (at timestamptz, subscription_id uuid, event_seq bigint, milliseconds integer, verdict text, outcome text,
                   status smallint, delivery_id uuid) language sql stable rows 10000
begin atomic
    select a.* from outbox.uncounted u, unnest(u.ats, u.subscription_ids, u.event_seqs, u.milliseconds, u.verdicts,
                                               u.outcomes, u.statuses, u.delivery_ids) a
    where u.xid >= (select pg_snapshot_xmax(counted) from outbox.rollup_state
                    where pg_snapshot_xmax(counted) <= pg_snapshot_xmax(pg_current_snapshot())
                    union all select '0' limit 1)
    union all
    select a.* from outbox.uncounted u, unnest(u.ats, u.subscription_ids, u.event_seqs, u.milliseconds, u.verdicts,
                                               u.outcomes, u.statuses, u.delivery_ids) a
    where u.xid = any (array(select pg_snapshot_xip(counted) from outbox.rollup_state
                             where pg_snapshot_xmax(counted) <= pg_snapshot_xmax(pg_current_snapshot())));
end;

-- Counts up to `batch` rows of outbox.uncounted, then closes hours and days that are over; returns how many rows it took,
-- null while another process is at it. READ COMMITTED only: what is read after the turn was taken must see what whoever had
-- it before has committed. At least `at_least` rows must wait, or one for a minute, so that a quiet database has one row a minute.
create function outbox.roll_up(batch integer default 100, at_least integer default 1) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set work_mem = '32MB' as $$
declare
    state outbox.rollup_state;
    low xid8;
    open xid8[];
    taken bigint := 0;
    begun timestamptz := clock_timestamp();
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise 'roll_up needs READ COMMITTED: it must see what others committed before it took the turn';
    end if;
    if not outbox.try_turn('statistics') then
        return null;
    end if;
    select * into state from outbox.rollup_state;
    if pg_snapshot_xmax(state.counted) > pg_snapshot_xmax(pg_current_snapshot()) then
        state.counted := null;
        update outbox.rollup_state set counted = null;
    end if;
    low := coalesce(pg_snapshot_xmax(state.counted), '0');
    open := array(select pg_snapshot_xip(state.counted));
    if at_least <= (select count(*) from (select from outbox.uncounted where xid >= low limit at_least) waiting)
            or exists (select from outbox.uncounted where xid >= low and ats[1] < begun - interval '1 minute')
            or exists (select from outbox.uncounted where xid = any (open)) then
        taken := outbox.count_some(batch, low, open, state.hour_until, state.day_until);
    end if;
    perform outbox.close_rollups(60, 3600, 'hour_until', begun), outbox.close_rollups(3600, 86400, 'day_until', begun);
    return taken;
end $$;

-- Takes up to `batch` rows from outbox.uncounted and appends what they add up to; in the turn only.
create function outbox.count_some(batch integer, low xid8, open xid8[], hour_until timestamptz, day_until timestamptz)
    returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    origin constant timestamptz := '2000-01-01Z';
    nobody constant uuid := '00000000-0000-0000-0000-000000000000';
    taken bigint;
    seen pg_snapshot;
begin
    with chosen as materialized (
        (select ctid from outbox.uncounted where xid = any (open) limit batch)
        union all (select ctid from outbox.uncounted where xid >= low order by xid limit batch)
        limit batch),
    rows as (
        delete from outbox.uncounted where ctid = any (array(select ctid from chosen)) returning *),
    noted as materialized (
        select a.* from rows u, unnest(u.ats, u.subscription_ids, u.event_seqs, u.milliseconds, u.verdicts, u.outcomes,
                                       u.statuses, u.delivery_ids)
            a(at, subscription_id, event_seq, milliseconds, verdict, outcome, status, delivery_id)),
    types as materialized (
        select distinct on (seq) seq, type, tenant from (
            select e.seq, e.type, e.tenant from outbox.events e where e.seq = any (array(select event_seq from noted))
            union all
            select d.event_seq, d.type, d.tenant from outbox.dead_letters d
                where d.event_seq = any (array(select event_seq from noted where verdict is not null))) known
        order by seq),
    fine as materialized (
        select date_bin('1 minute', n.at, origin) as start, coalesce(n.subscription_id, nobody) as subscription_id,
               coalesce(s.tenant, t.tenant, '') as tenant, coalesce(t.type, '') as type,
               case when n.verdict is null then width_bucket(n.milliseconds, outbox.latency_bounds()) end as bucket,
               count(*) as n,
               count(*) filter (where n.verdict in ('retry', 'dead')) as failed,
               count(*) filter (where n.verdict = 'buried') as dead,
               count(*) filter (where n.verdict = 'cancelled') as cancelled,
               coalesce(sum(n.milliseconds) filter (where n.verdict is null), 0) as milliseconds,
               max(n.at) filter (where n.verdict is null) as delivered_at,
               max(array[to_char(n.at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), n.delivery_id::text, n.outcome,
                         n.status::text]) filter (where n.verdict in ('retry', 'dead')) as failure
        from noted n left join outbox.subscriptions s on s.id = n.subscription_id left join types t on t.seq = n.event_seq
        group by 1, 2, 3, 4, 5),
    binned as (
        select bin.seconds, date_bin(make_interval(secs => bin.seconds), f.start, origin) as start, one.scope,
               case when one.scope = 'subscription' then f.subscription_id else nobody end as subscription_id,
               case when one.scope in ('subscription', 'tenant') then f.tenant else '' end as tenant,
               case when one.scope <> 'all' then f.type else '' end as type, f.bucket, sum(f.n) as n,
               sum(f.failed) as failed, sum(f.dead) as dead, sum(f.cancelled) as cancelled,
               sum(f.milliseconds) as milliseconds, max(f.delivered_at) as delivered_at, max(f.failure) as failure
        from fine f
        cross join (values (60), (3600), (86400)) bin(seconds)
        cross join (values ('all'), ('type'), ('tenant'), ('subscription')) one(scope)
        -- What is older than its rows are kept stands in those of a larger bucket alone.
        where case bin.seconds when 60 then f.start >= least(count_some.hour_until, clock_timestamp() - interval '26 hours')
                  when 3600 then f.start < count_some.hour_until
                      and f.start >= least(count_some.day_until, clock_timestamp() - interval '40 days')
                  else f.start < count_some.day_until end
          and (one.scope <> 'subscription' or f.subscription_id <> nobody)
        group by 1, 2, 3, 4, 5, 6, f.bucket),
    appended as (
        insert into outbox.rollups
        select seconds, start, scope, subscription_id, tenant, type, coalesce(sum(n) filter (where bucket is not null), 0),
               sum(failed), sum(dead), sum(cancelled), sum(milliseconds),
               coalesce(array_agg(bucket order by bucket) filter (where bucket is not null), '{}'),
               coalesce(array_agg(n order by bucket) filter (where bucket is not null), '{}'),
               max(delivered_at), (max(failure))[1]::timestamp at time zone 'UTC', (max(failure))[2]::uuid,
               (max(failure))[3], (max(failure))[4]::smallint
        from binned group by seconds, start, scope, subscription_id, tenant, type)
    select count(*), pg_current_snapshot() into taken, seen from rows;
    if taken > 0 and taken < batch then
        update outbox.rollup_state set counted = seen;
    end if;
    return taken;
end $$;

-- Adds up the smaller buckets of one larger bucket that is over, if one is due; in the turn only. What comes later for it
-- is added to both by roll_up.
create function outbox.close_rollups(smaller integer, larger integer, until name, now timestamptz) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    begin_at timestamptz;
    end_at timestamptz;
begin
    execute format('update outbox.rollup_state set %1$I = %1$I + make_interval(secs => $1)
                    where %1$I + make_interval(secs => $1) <= case $1 when 86400 then hour_until else $2 - interval ''90 seconds'' end
                    returning %1$I', until) into end_at using larger, now;
    if end_at is null then
        return;
    end if;
    begin_at := end_at - make_interval(secs => larger);
    with parts as materialized (
        select *, row(scope, subscription_id, tenant, type)::text as key from outbox.rollups
        where seconds = smaller and start >= begin_at and start < end_at),
    histogram as (
        select key, array_agg(bucket order by bucket) as buckets, array_agg(n order by bucket) as counts from (
            select key, bucket, sum(n)::bigint as n from parts, unnest(buckets, counts) b(bucket, n) group by key, bucket) one
        group by key),
    failures as (
        select distinct on (key) key, last_failed_at, last_failed_delivery, last_outcome, last_status
        from parts where last_failed_at is not null order by key, last_failed_at desc),
    sums as (
        select key, min(scope) as scope, (array_agg(subscription_id))[1] as subscription_id, min(tenant) as tenant,
               min(type) as type, sum(delivered) as delivered, sum(failed) as failed, sum(dead) as dead,
               sum(cancelled) as cancelled, sum(milliseconds) as milliseconds,
               max(last_delivered_at) as last_delivered_at
        from parts group by key)
    insert into outbox.rollups
        select larger, begin_at, s.scope, s.subscription_id, s.tenant, s.type, s.delivered, s.failed, s.dead, s.cancelled, s.milliseconds,
               coalesce(h.buckets, '{}'), coalesce(h.counts, '{}'), s.last_delivered_at,
               f.last_failed_at, f.last_failed_delivery, f.last_outcome, f.last_status
        from sums s left join histogram h using (key) left join failures f using (key);
end $$;

-- Notes one piece of the attempts of before in outbox.uncounted, and counts what waits there, so that it never grows long;
-- true while pieces are left, null otherwise.
create function outbox.note_old_attempts() returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    piece outbox.uncounted_leaves;
begin
    delete from outbox.uncounted_leaves where ctid = (
        select ctid from outbox.uncounted_leaves order by leaf desc, first_page desc limit 1 for update skip locked)
        returning * into piece;
    if not found then
        return null;
    end if;
    if to_regclass(piece.leaf) is not null then
        execute format('
            insert into outbox.uncounted (ats, subscription_ids, event_seqs, milliseconds, verdicts, outcomes, statuses, delivery_ids)
            select array_agg(at), array_agg(subscription_id), array_agg(event_seq), array_agg(milliseconds),
                   array_agg(noted), array_agg(case when noted is not null then outcome end),
                   array_agg(case when noted is not null then status end),
                   array_agg(case when noted is not null then delivery_id end)
            from (select a.*, v.noted, row_number() over () / 500 as part from only %s a cross join lateral (
                      select nullif(verdict, ''delivered'') as noted
                      union all select ''buried'' where verdict = ''dead'') v
                  where a.ctid >= $1 and a.ctid < $2 and a.at < $3 and a.verdict <> ''test'') old
            group by part', piece.leaf)
            using format('(%s,0)', piece.first_page)::tid, format('(%s,0)', piece.last_page + 1)::tid, piece.before;
    end if;
    perform outbox.roll_up(500);
    return true;
end $$;

-- Deletes up to `batch` rows that are past their time, smaller buckets sooner, none younger than least_retention_days;
-- returns how many.
create function outbox.prune_rollups(days integer, batch integer) returns bigint language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    gone bigint := 0;
    deleted bigint;
    kept record;
    least_days constant bigint := greatest(days, outbox.setting('least_retention_days'));
begin
    for kept in select * from outbox.rollup_ages() loop
        delete from outbox.rollups where ctid = any (array(
            select ctid from outbox.rollups where seconds = kept.seconds
              and start < clock_timestamp() - least(kept.age, make_interval(days => least_days::integer))
              and start + make_interval(secs => kept.seconds)
                  <= (select case kept.seconds when 60 then hour_until when 3600 then day_until else 'infinity' end
                      from outbox.rollup_state)
            order by start limit batch - gone));
        get diagnostics deleted = row_count;
        gone := gone + deleted;
    end loop;
    return gone;
end $$;

-- How long rows of each bucket are kept, if the retention is not shorter.
create function outbox.rollup_ages(out seconds integer, out age interval) returns setof record
    language sql immutable parallel safe
begin atomic
    select * from (values (60, interval '26 hours'), (3600, interval '40 days'), (86400, interval '100 years')) ages;
end;

-- Where a time that lies `over` back is counted from: the whole minute, hour or day that holds it.
create function outbox.statistics_since(over interval) returns timestamptz language sql stable
begin atomic
    select date_bin(make_interval(secs => case when over <= interval '24 hours' then 60 when over <= interval '38 days' then 3600
                                               else 86400 end),
                    statement_timestamp() - over, '2000-01-01Z');
end;

-- What adds up to everything from `since` on, each attempt once: rows of outbox.rollups, of the largest bucket up to
-- `largest` seconds that fits, and what is not counted yet. Those that are null ask for all. `typed` false: type is only
-- right where it is asked for. The bounds are constants of the statement, so that it is planned for them.
create function outbox.rollup_parts(of_scope text, of_subscription uuid, of_tenant text, of_type text,
                                    since timestamptz, largest integer, typed boolean)
    returns table (start timestamptz, subscription_id uuid, tenant text, type text, delivered bigint, failed bigint,
                   dead bigint, cancelled bigint, milliseconds bigint, buckets smallint[], counts bigint[], last_delivered_at timestamptz,
                   last_failed_at timestamptz, last_failed_delivery uuid, last_outcome text, last_status smallint)
    language plpgsql stable rows 1000 set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    origin constant timestamptz := '2000-01-01Z';
    state outbox.rollup_state;
    hours timestamptz;  -- hours from here on are read from their own rows
    days timestamptz;
    begin_hour timestamptz := date_bin('1 hour', since + interval '1 hour' - interval '1 microsecond', origin);
    begin_day timestamptz := date_bin('1 day', since + interval '1 day' - interval '1 microsecond', origin);
    spans text;
    chosen text := '';
    live text := '';
    types text := '';
begin
    select * into state from outbox.rollup_state;
    hours := case when largest >= 3600 then least(begin_hour, greatest(state.hour_until, since)) else 'infinity' end;
    days := case when largest >= 86400 and begin_day < state.day_until then begin_day else 'infinity' end;
    spans := format('(seconds = 60 and (start >= %L and start < %L or start >= %L))', since, hours,
                    case when largest >= 3600 then greatest(state.hour_until, since) else 'infinity' end);
    if hours < state.hour_until then
        spans := spans || case when days < 'infinity' then
            format(' or (seconds = 3600 and (start >= %L and start < %L or start >= %L and start < %L))
                     or (seconds = 86400 and start >= %L and start < %L)',
                   hours, days, greatest(state.day_until, hours), state.hour_until, days, state.day_until)
            else format(' or (seconds = 3600 and start >= %L and start < %L)', hours, state.hour_until) end;
    end if;
    if of_subscription is not null then
        chosen := format(' and subscription_id = %L', of_subscription);
        live := live || format(' and u.subscription_id = %L', of_subscription);
    elsif of_scope in ('all', 'type', 'tenant') then
        chosen := ' and subscription_id = ''00000000-0000-0000-0000-000000000000''';
    end if;
    if of_tenant is not null then
        chosen := chosen || format(' and tenant = %L', of_tenant);
        live := live || format(' and coalesce(s.tenant, t.tenant, '''') = %L', of_tenant);
    elsif of_scope in ('all', 'type') then
        chosen := chosen || ' and tenant = ''''';
    end if;
    if of_type is not null then
        chosen := chosen || format(' and type = %L', of_type);
        live := live || format(' and t.type = %L', of_type);
    end if;
    if of_scope = 'subscription' then
        live := live || ' and u.subscription_id is not null';
    end if;
    -- Only where it matters, and only those events: this part is most of what a busy minute costs.
    if typed or of_type is not null or of_scope = 'tenant' then
        types := format('select seq, type, tenant from outbox.events where seq = any (array(
                             select event_seq from outbox.uncounted_attempts()%s))',
                        case when of_subscription is not null
                             then format(' where subscription_id = %L', of_subscription) else '' end);
    else
        types := 'select null::bigint as seq, '''' as type, '''' as tenant where false';
    end if;
    return query execute format('
        select start, subscription_id, tenant, type, delivered, failed, dead, cancelled, milliseconds, buckets, counts,
               last_delivered_at, last_failed_at, last_failed_delivery, last_outcome, last_status
        from outbox.rollups where scope = %L and (%s)%s
        union all
        select start, subscription_id, tenant, type, case when bucket is null then 0 else n end, failed, dead, cancelled, milliseconds,
               case when bucket is null then ''{}'' else array[bucket::smallint] end,
               case when bucket is null then ''{}'' else array[n] end, delivered_at,
               failure[1]::timestamp at time zone ''UTC'', failure[2]::uuid, failure[3], failure[4]::smallint
        from (
            select date_bin(''1 minute'', u.at, ''2000-01-01Z'') as start, u.subscription_id,
                   coalesce(s.tenant, t.tenant, '''') as tenant, coalesce(t.type, '''') as type,
                   case when u.verdict is null then width_bucket(u.milliseconds, outbox.latency_bounds()) end as bucket,
                   count(*) as n,
                   count(*) filter (where u.verdict in (''retry'', ''dead'')) as failed,
                   count(*) filter (where u.verdict = ''buried'') as dead,
                   count(*) filter (where u.verdict = ''cancelled'') as cancelled,
                   coalesce(sum(u.milliseconds) filter (where u.verdict is null), 0) as milliseconds,
                   max(u.at) filter (where u.verdict is null) as delivered_at,
                   max(array[to_char(u.at at time zone ''UTC'', ''YYYY-MM-DD HH24:MI:SS.US''), u.delivery_id::text, u.outcome,
                             u.status::text]) filter (where u.verdict in (''retry'', ''dead'')) as failure
            from outbox.uncounted_attempts() u left join outbox.subscriptions s on s.id = u.subscription_id
            left join (%s) t on t.seq = u.event_seq
            where u.at >= %L%s
            group by 1, 2, 3, 4, 5) live',
        of_scope, spans, chosen, types, since, live);
end $$;

-- What is asked for, added up: one row, or with `by` (subscription, tenant or type) one for each. rate is attempts a
-- second, success_rate the part of them that delivered, null without any; mean and p50 to p99 are milliseconds, of
-- delivered requests. last_error is there as long as its attempt is kept.
create function outbox.statistics(over interval default '24 hours', subscription text default null,
                                  tenant text default null, type text default null, by text default null)
    returns table (subscription_id text, of_tenant text, of_type text, since timestamptz, delivered bigint, failed bigint,
                   dead bigint, cancelled bigint, rate double precision, success_rate double precision,
                   mean double precision, p50 double precision, p95 double precision, p99 double precision,
                   last_delivered_at timestamptz,
                   last_failed_at timestamptz, last_failed_delivery text, last_outcome text, last_status smallint,
                   last_error text)
    language sql stable rows 100 set search_path = pg_catalog, pg_temp set jit = off
begin atomic
    with window_of as (select outbox.statistics_since(over) as since),
    parts as materialized (
        select p.*, case by when 'subscription' then p.subscription_id::text when 'tenant' then p.tenant
                            when 'type' then p.type else '' end as key
        from window_of w, outbox.rollup_parts(
            case when subscription is not null or by = 'subscription' then 'subscription'
                 when statistics.tenant is not null or by = 'tenant' then 'tenant'
                 when statistics.type is not null or by = 'type' then 'type' else 'all' end,
            outbox.uuid_of(subscription), statistics.tenant, statistics.type, w.since, 86400, coalesce(by = 'type', false)) p),
    keys as (
        select key, (array_agg(p.subscription_id))[1] as subscription_id, min(p.tenant) as tenant,
               sum(p.delivered) as delivered, sum(p.failed) as failed, sum(p.dead) as dead, sum(p.cancelled) as cancelled,
               sum(p.milliseconds) as milliseconds, max(p.last_delivered_at) as last_delivered_at
        from parts p group by key
        union all select '', null, null, 0, 0, 0, 0, 0, null where by is null and not exists (select from parts)),
    histogram as (
        select key, bucket, sum(sum(n)) over (partition by key order by bucket) as upto,
               sum(sum(n)) over (partition by key) as total
        from parts p, unnest(p.buckets, p.counts) b(bucket, n) group by key, bucket),
    percentiles as (
        select key, min(bucket) filter (where upto >= ceil(total * 0.50)) as p50,
               min(bucket) filter (where upto >= ceil(total * 0.95)) as p95,
               min(bucket) filter (where upto >= ceil(total * 0.99)) as p99
        from histogram group by key),
    failures as (
        select distinct on (key) key, p.last_failed_at, p.last_failed_delivery, p.last_outcome, p.last_status
        from parts p where p.last_failed_at is not null order by key, p.last_failed_at desc)
    select case when subscription is not null then outbox.text_id('sub', outbox.uuid_of(subscription))
                when by = 'subscription' then outbox.text_id('sub', k.subscription_id) end,
           coalesce(statistics.tenant, case when by in ('subscription', 'tenant') then k.tenant end),
           coalesce(statistics.type, case when by = 'type' then k.key end), w.since,
           k.delivered::bigint, k.failed::bigint, k.dead::bigint, k.cancelled::bigint,
           (k.delivered + k.failed)::double precision / greatest(1, extract(epoch from statement_timestamp() - w.since))::double precision,
           k.delivered::double precision / nullif(k.delivered + k.failed, 0)::double precision,
           k.milliseconds::double precision / nullif(k.delivered, 0)::double precision,
           outbox.latency_of(p.p50), outbox.latency_of(p.p95), outbox.latency_of(p.p99), k.last_delivered_at,
           f.last_failed_at, outbox.text_id('dlv', f.last_failed_delivery), f.last_outcome, f.last_status,
           (select a.error from outbox.attempts a where a.delivery_id = f.last_failed_delivery and a.at = f.last_failed_at limit 1)
    from window_of w cross join keys k left join percentiles p using (key) left join failures f using (key)
    order by k.failed desc, k.delivered desc, key;
end;

-- The same in buckets of `step_seconds`, the oldest first, each a row also where nothing happened. A step is a multiple of a
-- minute; from an hour and from a day on, of those. Below an hour it reaches 26 hours back.
create function outbox.statistics_series(over interval default '24 hours', step_seconds integer default 900,
                                         subscription text default null, tenant text default null, type text default null)
    returns table (start timestamptz, delivered bigint, failed bigint, dead bigint, cancelled bigint,
                   p50 double precision, p95 double precision, p99 double precision)
    language sql stable rows 100 set search_path = pg_catalog, pg_temp set jit = off
begin atomic
    with bins as materialized (
        select start from generate_series(
            date_bin(make_interval(secs => step_seconds), statement_timestamp() - over, '2000-01-01Z'),
            statement_timestamp(), make_interval(secs => step_seconds)) start),
    parts as materialized (
        select p.*, date_bin(make_interval(secs => step_seconds), p.start, '2000-01-01Z') as bin
        from outbox.rollup_parts(
            case when subscription is not null then 'subscription' when statistics_series.tenant is not null then 'tenant'
                 when statistics_series.type is not null then 'type' else 'all' end,
            outbox.uuid_of(subscription), statistics_series.tenant, statistics_series.type, (select min(start) from bins),
            step_seconds, false) p),
    sums as (
        select bin, sum(p.delivered) as delivered, sum(p.failed) as failed, sum(p.dead) as dead, sum(p.cancelled) as cancelled
        from parts p group by bin),
    histogram as (
        select bin, bucket, sum(sum(n)) over (partition by bin order by bucket) as upto,
               sum(sum(n)) over (partition by bin) as total
        from parts p, unnest(p.buckets, p.counts) b(bucket, n) group by bin, bucket),
    percentiles as (
        select bin, min(bucket) filter (where upto >= ceil(total * 0.50)) as p50,
               min(bucket) filter (where upto >= ceil(total * 0.95)) as p95,
               min(bucket) filter (where upto >= ceil(total * 0.99)) as p99
        from histogram group by bin)
    select b.start, coalesce(s.delivered, 0)::bigint, coalesce(s.failed, 0)::bigint, coalesce(s.dead, 0)::bigint,
           coalesce(s.cancelled, 0)::bigint, outbox.latency_of(p.p50), outbox.latency_of(p.p95), outbox.latency_of(p.p99)
    from bins b left join sums s on s.bin = b.start left join percentiles p on p.bin = b.start order by b.start;
end;

-- Views for people. They show the host of a URL only, ids as everywhere else, no payload. They count rows one by one: for
-- psql and dashboards, not for what asks every second.

-- The state of a delivery that is outstanding.
create function outbox.state_of(due_at timestamptz, lease bigint) returns text language sql stable
begin atomic
    select case when lease is not null then case when due_at > statement_timestamp() then 'leased' else 'lease ended' end
                when due_at = 'infinity' then 'parked' when due_at > statement_timestamp() then 'waiting' else 'due' end;
end;

create view outbox.v_deliveries_by_state as
    select outbox.state_of(due_at, lease) as state, count(*) as deliveries,
           count(*) filter (where attempts > 0) as retries, min(due_at) as oldest_due_at
    from outbox.deliveries group by 1
    union all select 'not resolved', count(*), 0, null from outbox.pending having count(*) > 0
    union all select 'dead', count(*), 0, null from outbox.dead_letters having count(*) > 0;

create view outbox.v_backlog as
    select outbox.text_id('sub', d.subscription_id) as subscription_id, s.tenant, outbox.host_of(s.url) as host,
           d.due, d.retries_due, d.waiting, d.parked, d.leased, d.oldest_due_at
    from (select subscription_id, count(*) filter (where state = 'due') as due,
                 count(*) filter (where state = 'due' and attempts > 0) as retries_due,
                 count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'parked') as parked,
                 count(*) filter (where state in ('leased', 'lease ended')) as leased,
                 min(due_at) filter (where state = 'due') as oldest_due_at
          from (select subscription_id, attempts, due_at, outbox.state_of(due_at, lease) as state from outbox.deliveries) each
          group by subscription_id) d
    left join outbox.subscriptions s on s.id = d.subscription_id;

create view outbox.v_statistics_1h as
    select subscription_id, of_tenant as tenant, delivered, failed, dead, cancelled, rate, success_rate, mean, p50, p95, p99,
           last_delivered_at, last_failed_at, last_outcome, last_status, last_error
    from outbox.statistics('1 hour', by => 'subscription');
create view outbox.v_statistics_24h as
    select subscription_id, of_tenant as tenant, delivered, failed, dead, cancelled, rate, success_rate, mean, p50, p95, p99,
           last_delivered_at, last_failed_at, last_outcome, last_status, last_error
    from outbox.statistics('24 hours', by => 'subscription');
create view outbox.v_statistics_7d as
    select subscription_id, of_tenant as tenant, delivered, failed, dead, cancelled, rate, success_rate, mean, p50, p95, p99,
           last_delivered_at, last_failed_at, last_outcome, last_status, last_error
    from outbox.statistics('7 days', by => 'subscription');
create view outbox.v_statistics_30d as
    select subscription_id, of_tenant as tenant, delivered, failed, dead, cancelled, rate, success_rate, mean, p50, p95, p99,
           last_delivered_at, last_failed_at, last_outcome, last_status, last_error
    from outbox.statistics('30 days', by => 'subscription');
create view outbox.v_statistics_types_24h as
    select of_type as type, delivered, failed, dead, cancelled, rate, success_rate, mean, p50, p95, p99, last_delivered_at,
           last_failed_at, last_outcome, last_status, last_error
    from outbox.statistics('24 hours', by => 'type');

create view outbox.v_subscriptions_health as
    select outbox.text_id('sub', s.id) as subscription_id, s.tenant, outbox.host_of(s.url) as host, s.types,
           case when s.disabled_at is not null then 'disabled' when s.paused_at is not null then 'paused'
                when s.held_until > statement_timestamp() then 'held' when h.opened_at is not null then 'breaker open'
                when h.failing_since is not null then 'failing' else 'active' end as state,
           s.disabled_reason, h.failing_since, h.probe_at, coalesce(t.delivered, 0) as delivered_7d,
           coalesce(t.failed, 0) as failed_7d, round((100 * t.success_rate)::numeric, 2) as success_percent_7d, t.mean as mean_7d, t.p95 as p95_7d,
           t.last_delivered_at, t.last_failed_at, t.last_outcome, t.last_status, t.last_error
    from outbox.subscriptions s left join outbox.health h on h.subscription_id = s.id
    left join outbox.v_statistics_7d t on t.subscription_id = outbox.text_id('sub', s.id)
    where s.removed_at is null;

create view outbox.v_recent_failures as
    select a.at, outbox.text_id('sub', a.subscription_id) as subscription_id, s.tenant, outbox.host_of(s.url) as host,
           e.type, a.outcome, a.status, a.error, a.milliseconds, a.number as attempt, a.verdict,
           outbox.text_id('dlv', a.delivery_id) as delivery_id, outbox.text_id('evt', e.id) as event_id
    from outbox.attempts a left join outbox.subscriptions s on s.id = a.subscription_id
    left join lateral (select id, type from outbox.events where seq = a.event_seq limit 1) e on true
    where a.at > statement_timestamp() - interval '24 hours' and a.verdict in ('retry', 'dead')
    order by a.at desc;

create view outbox.v_dead_letters as
    select l.died_at, outbox.text_id('dlv', l.delivery_id) as delivery_id, outbox.text_id('evt', l.event_id) as event_id,
           outbox.text_id('sub', l.subscription_id) as subscription_id, l.tenant, outbox.host_of(s.url) as host, l.type, l.key,
           l.reason, l.error, l.attempts
    from outbox.dead_letters l left join outbox.subscriptions s on s.id = l.subscription_id
    order by l.died_at desc;
