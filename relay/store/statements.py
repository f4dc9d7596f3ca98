"""Every SQL statement of the data plane, one a verb; store.py runs them, states.py draws the arrows they make.

Plans: nothing is prepared, and every transaction forces custom plans and index order, because a plan made on tables
that are empty every quiet night takes seconds when a burst comes. Sets are probed by `= any(array(select …))` or
`lateral (… limit 1)`, never by a join to a CTE that a plan could turn round.
"""

from __future__ import annotations

LEASE_SLACK_SECONDS = 6.0  # a lease outlives the timeout by this
START_WITHIN_SECONDS = 3.0  # of it to begin the attempt; the rest is for settling it
MAX_CRASHES = 3  # lone crashes in a row after which a delivery is buried
MAX_ATTEMPTS = 32_767  # counted; a schedule ends long before, but an endpoint may be disabled and resumed for ever
SUSPECTS_AMONG = 20  # of a subscription's oldest due rows: like any row, a suspect waits for what was due before it
FAN_OUT_LOCK = 0x6F7574626F7801  # the advisory lock that lets one fan_out run at a time

BEGIN = "begin isolation level read committed read write"
# jit off: before version 18 a plan that cannot avoid what is switched off looks so dear that PostgreSQL compiles it,
# 100 ms each time.
_PLANS = (
    "select set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true),"
    " set_config('jit', 'off', true), set_config('synchronous_commit', %s, true)"
)
# No statement may both wait for rows that others change and choose partitions while it runs: PostgreSQL 18 then reads
# freed memory, and the server restarts (the second look at a changed row starts a plan of its own, which leaves the
# state of the choice to its own, short, memory). Only fan_out, whose rows nobody changes, may choose.
SETTINGS = f"{_PLANS}, set_config('enable_partition_pruning', 'off', true)"
# A process that is stopped between take and commit must not stop the fan_out of all: the server ends its transaction,
# and whoever waits for the lock goes back to its claims meanwhile.
FAN_OUT_SETTINGS = (
    f"{_PLANS}, set_config('lock_timeout', '250ms', true),"
    " set_config('idle_in_transaction_session_timeout', '5s', true)"
)
LOCK = f"select pg_advisory_xact_lock({FAN_OUT_LOCK})"

# A subscription that may be sent to now; of any other nothing is claimed, so nothing of it is charged.
_WANTED = "paused_at is null and disabled_at is null and removed_at is null"
OPEN = f"{_WANTED} and coalesce(held_until <= clock_timestamp(), true)"
_CLOSED_SECONDS = (
    f"case when {_WANTED} then greatest(extract(epoch from held_until - clock_timestamp())::double precision, 0)"
    " else 'infinity' end"
)

# The look that an idle relay repeats a hundred times a second: one message of the simple protocol costs Python half of
# what a pipeline does. Its two numbers are formatted by %d and %f, so nothing else can get in.
POLL = f"""{BEGIN};
set local enable_seqscan = off;
set local jit = off;
select (select min(event_seq) from outbox.pending where event_seq > %d),
       (select last_value from outbox.events_seq),
       array(select distinct subscription_id from outbox.deliveries
             where lease is null and due_at > to_timestamp(%f) and due_at <= now()),
       extract(epoch from clock_timestamp())::double precision;
commit"""

# The bounds stand twice, so that the planner sees which partitions they leave: planning many takes longer than taking.
# Two kinds of row in one answer, read by one snapshot: the events taken, and for each distinct (tenant, type) among
# them the subscriptions that match. A subscription committed before an event is therefore never missed.
TAKE = f"""
with taken as materialized (
    select event_seq from outbox.pending where event_seq > %b and event_seq <= %b
    order by event_seq limit %b for update skip locked),
gone as (
    delete from outbox.pending where event_seq = any(array(select event_seq from taken))),
e as materialized (
    select t.event_seq, ev.*, sum(octet_length(ev.payload)) over (order by t.event_seq) as bytes
    from taken t left join lateral (
        select id, tenant, type, key, recorded_at, available_at, payload
        from outbox.events where seq = t.event_seq and seq > %b and seq <= %b limit 1) ev on true),
kinds as (select distinct tenant, type from e where type is not null),
matches as (
    select k.tenant, k.type, array_agg(s.id) as ids, array_agg(s.version) as versions, array_agg(s.open) as open
    from kinds k
    cross join lateral (
        select distinct st.subscription_id from outbox.subscription_types st
        where st.tenant = any(array[k.tenant, '*']) and st.pattern = any(outbox.patterns_of(k.type))) m
    cross join lateral (select id, version, {OPEN} as open
                        from outbox.subscriptions where id = m.subscription_id limit 1) s
    group by k.tenant, k.type)
select event_seq, available_at, coalesce(available_at <= clock_timestamp(), true),
       id, tenant, type, key, recorded_at, case when bytes <= %b then convert_to(payload, 'UTF8') end,
       null::uuid[], null::bigint[], null::boolean[]
from e
union all select null, null, null, null, tenant, type, null, null, null, ids, versions, open from matches
"""

# due is "not before" for a row that nobody leases yet; for a leased one, due_at is the end of its lease.
BIRTH = """
with resolved as (
    insert into outbox.resolutions (first_seq, seqs, matches) values (%b, %b, %b))
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)
select id, event_seq, subscription_id,
       case when lease is null then greatest(due, clock_timestamp())
            else clock_timestamp() + make_interval(secs => lease_seconds) end,
       case when lease is null then 0 else 1 end, lease
from unnest(%b, %b, %b, %b, %b, %b) r(id, event_seq, subscription_id, due, lease, lease_seconds)
"""

FIRST_PENDING = "select event_seq from outbox.pending where event_seq > %b order by event_seq limit 1"

UNRESOLVABLE = """
with gone as (delete from outbox.pending where event_seq = %b returning event_seq)
insert into outbox.dead_letters (delivery_id, event_seq, event_id, tenant, type, key, payload, recorded_at, attempts,
                                 reason, error)
select %b, seq, id, tenant, type, key, payload, recorded_at, 0, 'unresolvable', %s
from gone join outbox.events on seq = event_seq
"""

_ASKED = f"""
asked as materialized (
    select a.id, a.slots from unnest(%b, %b) with ordinality a(id, slots, place)
    cross join lateral (select from outbox.subscriptions where id = a.id and {OPEN} limit 1) s
    order by a.place)"""

_LEASED_WITH_EVENT = """
select d.id, d.event_seq, d.subscription_id, d.attempts, s.version, s.timeout_seconds,
       e.id, e.tenant, e.type, e.key, e.recorded_at, convert_to(e.payload, 'UTF8')
from leased d
cross join lateral (select version, timeout_seconds from outbox.subscriptions where id = d.subscription_id limit 1) s
left join lateral (select id, tenant, type, key, recorded_at, payload from outbox.events
                   where seq = d.event_seq limit 1) e on true
"""

_LEASE_END = f"""clock_timestamp() + make_interval(secs => {LEASE_SLACK_SECONDS} + (
        select timeout_seconds from outbox.subscriptions where id = d.subscription_id))"""

# coalesce, not `lease is null`: with stale statistics the planner would take the partial index and step over the due
# rows of every other subscription.
CLAIM = f"""
with {_ASKED},
chosen as materialized (
    select c.id, c.event_seq from asked a cross join lateral (
        select id, event_seq from outbox.deliveries
        where subscription_id = a.id and due_at <= now() and coalesce(lease, -1) < 0
        order by due_at, id limit a.slots for no key update skip locked) c
    limit %b),
fitting as materialized (
    select id from (
        select c.id, sum(octet_length(e.payload)) over (rows unbounded preceding) - octet_length(e.payload) as before
        from chosen c left join lateral (select payload from outbox.events where seq = c.event_seq limit 1) e on true) s
    where coalesce(before, 0) < %b),
leased as (
    update outbox.deliveries d set lease = %b, attempts = least(attempts + 1, {MAX_ATTEMPTS}), due_at = {_LEASE_END}
    where d.id = any(array(select id from fitting))
    returning d.id, d.event_seq, d.subscription_id, d.attempts)
{_LEASED_WITH_EVENT}"""

_DEAD_LETTER = """
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, key, payload,
                                 recorded_at, attempts, reason, error)
select b.id, b.event_seq, coalesce(e.id, b.id), b.subscription_id, coalesce(e.tenant, ''), coalesce(e.type, 'unknown'),
       e.key, coalesce(e.payload, 'null'), coalesce(e.recorded_at, clock_timestamp()), b.attempts, b.reason, b.error
from {source} b
left join lateral (select id, tenant, type, key, payload, recorded_at from outbox.events
                   where seq = b.event_seq limit 1) e on true"""

# One suspect at a time in a process: whoever was sent before it and is still out is no longer the lone one, so that
# one's charge is taken back in the same statement. What reached the limit is buried instead of sent.
CLAIM_SUSPECT = f"""
with {_ASKED},
candidates as materialized (
    select c.id from asked a cross join lateral (
        select id from (select id, lease from outbox.deliveries where subscription_id = a.id and due_at <= now()
                        order by due_at, id limit {SUSPECTS_AMONG}) oldest
        where lease is not null limit a.slots) c),
chosen as materialized (
    select id, crashes from outbox.deliveries
    where id = any(array(select id from candidates)) and due_at <= now() and lease is not null
    limit 1 for no key update skip locked),
cleared as (
    update outbox.deliveries set crashes = crashes - 1
    where id = %b and lease = %b and crashes > 0 and exists (select from chosen where chosen.id <> deliveries.id)),
lost as (
    delete from outbox.deliveries where id = any(array(select id from chosen where crashes >= {MAX_CRASHES}))
    returning id, event_seq, subscription_id, attempts, 'crash' as reason,
              'the relay process ended ' || crashes || ' times in a row while it sent this delivery alone' as error),
buried as ({_DEAD_LETTER.format(source="lost")}),
leased as (
    update outbox.deliveries d set lease = %b, crashes = crashes + 1, due_at = {_LEASE_END}
    where d.id = any(array(select id from chosen where crashes < {MAX_CRASHES}))
    returning d.id, d.event_seq, d.subscription_id, d.attempts)
{_LEASED_WITH_EVENT}"""

# The rotating look at every subscription in turn: finds what the due map does not know, and expired leases.
SWEEP = f"""
with slice as materialized (
    select id, version from outbox.subscriptions where id > %b and {OPEN} order by id limit %b)
select s.id,
       exists (select from outbox.deliveries
               where subscription_id = s.id and due_at <= now() and coalesce(lease, -1) < 0),
       exists (select from (select lease from outbox.deliveries where subscription_id = s.id and due_at <= now()
                            order by due_at, id limit {SUSPECTS_AMONG}) oldest where lease is not null),
       s.version
from slice s order by s.id
"""

# Of subscriptions known at a version: those that have a newer one, or may not be sent to now.
CHANGED = f"""
select s.id from unnest(%b, %b) known(id, version)
cross join lateral (select id, version, {OPEN} as open from outbox.subscriptions where id = known.id limit 1) s
where s.version > known.version or not s.open
"""

_LIVE = "subscription_id = s.id and (expires_at is null or expires_at > now())"
SUBSCRIPTIONS = f"""
select s.id, version, url, timeout_seconds, schedule_seconds, scheme, final_statuses,
       array(select kind from outbox.secrets where {_LIVE} order by created_at desc, id desc),
       array(select secret from outbox.secrets where {_LIVE} order by created_at desc, id desc),
       {_CLOSED_SECONDS}
from outbox.subscriptions s where s.id = any(%b)
"""

# Success is accepted from whoever brings it: a 2xx that a relay saw must not end as "dead". Failure is fenced by the
# lease, or a stale holder would overwrite a newer one.
SETTLE = f"""
with r as materialized (
    select * from unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
        as r(id, lease, verdict, wait_seconds, event_seq, subscription_id, number, outcome, status, milliseconds,
             error, url, address, headers, excerpt)),
won as (
    delete from outbox.deliveries where id = any(array(select id from r where verdict = 0)) returning id),
again as (
    update outbox.deliveries d set lease = null, crashes = 0,
           due_at = clock_timestamp() + make_interval(secs => r.wait_seconds)
    from r where d.id = r.id and d.lease = r.lease and r.verdict = 1 returning d.id),
lost as (
    delete from outbox.deliveries d using r where d.id = r.id and d.lease = r.lease and r.verdict = 2
    returning d.id, d.event_seq, d.subscription_id, d.attempts, r.outcome as reason, r.error),
buried as ({_DEAD_LETTER.format(source="lost")}),
logged as (
    insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status,
                                 milliseconds, error, url, address, headers, excerpt)
    select id, event_seq, subscription_id, number, (array['delivered', 'retry', 'dead'])[verdict + 1], outcome, status,
           milliseconds, error, url, address, headers, excerpt
    from r)
select id from won
"""

# What succeeded after another relay buried it. A statement after SETTLE, in the same transaction: SETTLE's own snapshot
# may be older than the burial.
DELETE_BURIED_SUCCESSES = "delete from outbox.dead_letters where delivery_id = any(%b) returning delivery_id"

# What an endpoint asked for stands with the results that tell of it. It is about the URL that was asked, not one that
# took its place since. A row that somebody else has locked is passed over: no result waits for an application's
# transaction, and the endpoint's next answer says it again. A hold is written only when it ends later by a second.
DISABLE = """
with gone as materialized (
    select asked.id, asked.reason from unnest(%b, %b, %b) asked(id, url, reason)
    cross join lateral (select from outbox.subscriptions where id = asked.id and url = asked.url and disabled_at is null
                        limit 1 for no key update skip locked) s)
update outbox.subscriptions s
set disabled_at = clock_timestamp(), disabled_reason = (select reason from gone where id = s.id limit 1)
where id = any(array(select id from gone))
returning id
"""
HOLD = """
with held as materialized (
    select asked.id, s.until from unnest(%b, %b, %b) asked(id, url, seconds)
    cross join lateral (
        select clock_timestamp() + make_interval(secs => asked.seconds) as until from outbox.subscriptions
        where id = asked.id and url = asked.url
          and coalesce(held_until < clock_timestamp() + make_interval(secs => asked.seconds - 1), true)
        limit 1 for no key update skip locked) s)
update outbox.subscriptions s set held_until = (select until from held where id = s.id)
where id = any(array(select id from held))
returning id
"""

# The end of a hold is not written into it: a hold may be lifted, and what waited goes on at once.
RELEASE = """
update outbox.deliveries d set lease = null, attempts = greatest(attempts - r.charged, 0), crashes = 0,
       due_at = clock_timestamp() + make_interval(secs => r.wait_seconds)
from unnest(%b, %b, %b, %b) r(id, lease, charged, wait_seconds)
where d.id = r.id and d.lease = r.lease
"""

DRAINED = f"""
select not exists (select from outbox.pending)
   and not exists (select from outbox.subscriptions s
                   where {OPEN}
                     and exists (select from outbox.deliveries d where d.subscription_id = s.id
                                 and (d.due_at <= (select clock_timestamp()) or d.lease is not null)))
"""
