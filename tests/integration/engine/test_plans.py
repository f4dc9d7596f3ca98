"""Plans: whatever the statistics say, no statement of the data plane reads a table through.

Every quiet night leaves the statistics of empty tables behind; then a burst comes. Pages touched, and rows that a scan
or a sort gives, are bounded, not time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from relay.model.decide import GONE
from relay.model.delivery import Delivery
from relay.model.verdict import Hold, VerdictKind
from relay.store.arrays import Uuids
from relay.store.claims import FIRST, Mark
from relay.store.fan_out import MAX_SEQ, new_ids
from relay.store.filters import Answers, Look, PassedOver
from relay.store.lease import new_lease
from relay.store.pending_shares import Shares
from relay.store.rows import Birth
from tests.integration.engine.world import PlanWatch, World, claimed, fan_out, held, result
from tests.support import databases

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("plans")]  # its databases are filled once

ROWS = 300_000  # deliveries
EVENTS = 30_000  # and attempts, and dead letters
SUBSCRIPTIONS = 50
ROWS_MAX = 1100  # that a scan or a sort may give, where a test is not about more
HOT = {"deliveries", "events_default", "pending", "attempts_default", "dead_letters", "resolutions"}

FILL = f"""
insert into outbox.subscriptions (url, types, tenant)
    select 'http://127.0.0.1/' || n, array['t' || n], '' from generate_series(1, {SUBSCRIPTIONS}) n;
insert into outbox.secrets (subscription_id, secret)
    select id, 'whsec_' || repeat('A', 43) || '=' from outbox.subscriptions;
"""

FILL_FULL = f"""
set session_replication_role = replica;
insert into outbox.events (id, type, payload)
    select gen_random_uuid(), 't1', '{{}}' from generate_series(1, {EVENTS});
insert into outbox.pending select seq from outbox.events order by seq limit 20000;
reset session_replication_role;
create temporary table subs as select id as sub, row_number() over (order by id) nth from outbox.subscriptions;
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)
    select lpad(to_hex(n), 32, '0')::uuid, n % {EVENTS} + 1, sub,
           now() + case when n <= 100000 then make_interval(secs => -100 - n * 0.01) else interval '1 day' end, 1
    from generate_series(1, {ROWS - 1000}) n join subs on nth = n % {SUBSCRIPTIONS} + 1;
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)
    select gen_random_uuid(), n, sub, now() + make_interval(secs => case when n % 2 = 0 then -50 else 5000 end), 1, n
    from generate_series(1, 1000) n join subs on nth = n / 2 % {SUBSCRIPTIONS} + 1;
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
    select id, event_seq, subscription_id, 1, 'retry', 'timeout', 1 from outbox.deliveries limit {EVENTS};
insert into outbox.dead_letters
    (delivery_id, event_seq, event_id, tenant, type, payload, recorded_at, attempts, reason)
    select gen_random_uuid(), n, gen_random_uuid(), '', 't1', '{{}}', now(), 1, 'timeout'
    from generate_series(1, {EVENTS}) n;
"""


@pytest.fixture(scope="module")
def full_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """A database analysed while empty, then filled; autovacuum would hide what is tested, so it is off."""
    with databases.database(server_url, template=migrated_template) as url:
        world = World(url)
        for table in (
            "events",
            "events_default",
            "pending",
            "deliveries",
            "attempts",
            "attempts_default",
            "dead_letters",
        ):
            world.rows(f"analyze outbox.{table}")
        for table in ("events_default", "pending", "deliveries", "attempts_default", "dead_letters"):
            world.rows(f"alter table outbox.{table} set (autovacuum_enabled = off)")
        for (leaf,) in world.rows(
            "select inhrelid::regclass::text from pg_inherits"
            " where inhparent in ('outbox.events'::regclass, 'outbox.attempts'::regclass)"
        ):
            world.rows(f"alter table {leaf} set (autovacuum_enabled = off)")
        for statement in (FILL + FILL_FULL).split(";\n"):
            if statement.strip():
                world.rows(statement)
        world.close()
        yield url


@pytest.fixture
def full(full_url: str) -> Iterator[World]:
    world = World(full_url)
    yield world
    world.close()


@pytest.fixture
async def watch(full: World) -> AsyncIterator[PlanWatch]:
    watch = PlanWatch(full.url)
    yield watch
    await watch.store.close()


def ids_of(world: World) -> list[bytes]:
    return [row[0].bytes for row in world.rows("select id from outbox.subscriptions order by id")]


def is_hot(name: str) -> bool:
    """Tell whether this table or index is of what comes and goes with each event; a sequence is one row."""
    return name in HOT or (
        name.startswith(("events_", "attempts_", "pending_", "deliveries_")) and name != "events_seq"
    )


def unharmed(watch: PlanWatch, buffers: int, rows_max: int = ROWS_MAX) -> None:
    """No hot table was read through, nothing was sorted but what is needed, and so many pages were touched at most."""
    assert watch.plans, "auto_explain said nothing"
    assert [name for name in watch.seq_scans() if is_hot(name)] == []
    many = {what: rows for what, rows in watch.rows_given().items() if rows > rows_max}
    assert {what: rows for what, rows in many.items() if is_hot(what) or what.endswith("Sort")} == {}
    assert watch.buffers <= buffers


async def test_poll_with_a_hundred_thousand_due_and_two_hundred_thousand_waiting(full: World, watch: PlanWatch) -> None:
    clock = full.value("select extract(epoch from clock_timestamp())::float8")
    await watch.begin()
    look = await watch.store.poll(-1, clock)
    assert (look.first, look.due) == (full.value("select min(event_seq) from outbox.pending"), [])
    unharmed(watch, 40)


async def test_claim_with_a_hundred_thousand_due(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    rows = await watch.store.claim([(identity, 10) for identity in ids_of(full)], 500, 10**9, new_lease())
    assert len(rows) == 500
    unharmed(watch, 500 * 40)


async def test_a_claim_of_one_subscription_that_has_nothing_due(full: World, watch: PlanWatch) -> None:
    """200,000 rows wait for later, 100,000 are due to others."""
    identity = full.subscribe("nothing")
    full.rows(
        "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
        " select outbox.uuid7(), n, %s, now() + interval '1 day' from generate_series(1, 20000) n",
        full.value("select id from outbox.subscriptions where types = '{nothing}'"),
    )
    await watch.begin()
    assert await watch.store.claim([(identity, 64)], 500, 10**9, new_lease()) == []
    unharmed(watch, 60)


async def test_claim_suspect(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    assert len(await watch.store.claim_suspect(ids_of(full), new_lease(), None)) <= 1
    unharmed(watch, SUBSCRIPTIONS * 2300)


async def test_sweep(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    rows = await watch.store.sweep(bytes(16), 500)
    assert sum(row.due for row in rows) == SUBSCRIPTIONS
    unharmed(watch, SUBSCRIPTIONS * 2300)


async def test_take_and_birth(full: World, watch: PlanWatch) -> None:
    """Take 500 of 20,000 pending events, and resolve them."""
    await watch.begin()
    async with watch.store.fan_out(-1, 500, 10_000_000) as batch:
        births = [
            Birth(identity, taken.seq, batch.matches["", "t1"][0][0], None, None, None)
            for taken, identity in zip(batch.taken, new_ids(500), strict=True)
        ]
        await batch.resolve(births)
    unharmed(watch, 500 * 30)


async def test_a_take_that_is_shared_between_tenants(full: World, watch: PlanWatch) -> None:
    """Fifty tenants behind 20,000 pending events of none; a probe for each, and what is taken."""
    full.rows(
        "insert into outbox.events (type, tenant, key, payload)"
        " select 'tenants', 'tenant' || n % 50, 'k', '{}' from generate_series(1, 2000) n"
    )
    await watch.begin()
    async with watch.store.fan_out(-1, 500, 10_000_000, shares=Shares(250, "", 62, -1)) as batch:
        assert len({taken.tenant for taken in batch.taken}) == 51
    unharmed(watch, 500 * 20)
    full.rows("delete from outbox.pending where tenant <> ''")


async def test_a_shared_take_steps_over_no_pending_event_of_another_tenant(own_world: World) -> None:
    """So the tenth tenant costs what the first does."""
    own_world.rows("alter table outbox.pending set (autovacuum_enabled = off)")
    touched = []
    for each in (200, 6000):
        own_world.rows(
            "insert into outbox.events (type, tenant, payload)"
            " select 'order.paid', 'tenant' || n %% 10, '{}' from generate_series(1, %s) n",
            10 * each,
        )
        watch = PlanWatch(own_world.url)
        await watch.begin()
        async with watch.store.fan_out(-1, 50, 10_000_000, shares=Shares(25, "", 6, MAX_SEQ)) as batch:
            assert len({taken.tenant for taken in batch.taken}) == 10
        touched.append(watch.buffers)
        await watch.store.close()
    assert touched[1] < touched[0] + 150  # the index of 60,000 has some 400 pages, for each of nine tenants


@pytest.mark.slow
async def test_an_event_for_many_among_ten_thousands(full: World, watch: PlanWatch) -> None:
    full.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/', '{wide}' from generate_series(1, 2500) n"
    )
    (seq,) = full.record("wide")
    await watch.begin()
    async with watch.store.fan_out(seq - 1, 1, 10_000_000, up_to_seq=seq) as batch:
        assert batch.is_wide
        assert (await batch.resolve_wide(None, Answers(), may_order=True)).made == 2500
    assert len(await watch.store.find_filters("", "wide")) == 0
    unharmed(watch, 2500 * 50, 2500)
    full.rows("delete from outbox.deliveries where event_seq = %s", seq)  # the others count what is here
    full.rows("delete from outbox.subscriptions where types = '{wide}'")


@pytest.mark.parametrize("shares", [None, Shares(250, "", 62, MAX_SEQ)])
async def test_to_choose_before_a_take(full: World, watch: PlanWatch, shares: Shares | None) -> None:
    await watch.begin()
    assert (await watch.store.choose(-1, 500, MAX_SEQ, shares)).seqs
    unharmed(watch, 500 * 4)


async def test_look_ahead_for_filters(full: World, watch: PlanWatch) -> None:
    """Find 500 of 20,000 pending events, and read their payloads."""
    await watch.begin()
    ahead, _ = await watch.store.find_ahead(-1, 500, MAX_SEQ)
    assert len((await watch.store.read_bodies([event.seq for event in ahead])).events) == len(ahead) == 500
    unharmed(watch, 2 * 500 * 10)


@pytest.mark.slow
async def test_a_take_that_passes_over_ten_thousand_filters(full: World, watch: PlanWatch) -> None:
    """Their rows are left out before anything is looked up for them."""
    full.rows(
        "insert into outbox.subscriptions (url, types, filter) select 'http://127.0.0.1/', '{many}',"
        " json_build_object('key', n::text)::text from generate_series(1, 10000) n"
    )
    hashes = [
        row[0].bytes for row in full.rows("select filter_hash from outbox.subscriptions where filter is not null")
    ]
    seqs = full.record("many", 10)
    await watch.begin()
    look = Look(seqs, passing=PassedOver("", "many", Uuids(hashes[1:])))
    async with watch.store.fan_out(-1, 500, 10_000_000, look=look) as batch:
        assert [match.filter_hash for match in batch.matches["", "many"]] == hashes[:1]
    unharmed(watch, 5000)  # looking up each of them touches 30,000


async def test_settle_a_mixed_batch(full: World, watch: PlanWatch) -> None:
    rows = full.rows(
        "select id, event_seq, subscription_id, attempts, lease from outbox.deliveries"
        " where lease is not null and due_at > now() limit 300"
    )
    kinds = (VerdictKind.DELIVERED, VerdictKind.RETRY, VerdictKind.DEAD)
    batch = [
        result(held(Birth(row[0].bytes, row[1], row[2].bytes, None, row[4], None)), kinds[number % 3])
        for number, row in enumerate(rows)
    ]
    before = full.count("deliveries"), full.count("dead_letters")
    await watch.begin()
    await watch.store.settle(batch)
    assert (before[0] - full.count("deliveries"), full.count("dead_letters") - before[1]) == (200, 100)
    unharmed(watch, len(batch) * 50)


@pytest.mark.parametrize("kind", [VerdictKind.DELIVERED, VerdictKind.RETRY])
async def test_settling_what_buries_nothing_looks_for_no_event(
    full: World, watch: PlanWatch, kind: VerdictKind
) -> None:
    """The event of a dead letter may be in any leaf; planning for all of them takes longer than settling."""
    rows = full.rows("select id, event_seq, subscription_id, lease from outbox.deliveries where lease > 900 limit 20")
    births = [Birth(row[0].bytes, row[1], row[2].bytes, None, row[3], None) for row in rows]
    await watch.begin()
    await watch.store.settle([result(held(birth), kind) for birth in births])
    tables = {node["Relation Name"] for node in watch.nodes() if "Relation Name" in node}
    assert "deliveries" in tables
    assert [table for table in tables if table.startswith("events")] == []
    unharmed(watch, len(births) * 50)


async def test_release(full: World, watch: PlanWatch) -> None:
    lease = new_lease()
    rows = await watch.store.claim([(identity, 4) for identity in ids_of(full)], 200, 10**9, lease)
    await watch.begin()
    await watch.store.release([(claimed(row, lease), 0.0) for row in rows])
    assert full.count("deliveries", "lease = %s", lease) == 0
    unharmed(watch, len(rows) * 30)


async def test_a_late_success_among_many_dead_letters(full: World, watch: PlanWatch) -> None:
    identity = full.value("select delivery_id from outbox.dead_letters limit 1").bytes
    await watch.begin()
    await watch.store.settle([result(_delivery(identity), VerdictKind.DELIVERED)])
    unharmed(watch, 100)


def _delivery(identity: bytes) -> Delivery:
    return held(Birth(identity, 1, bytes(16), None, 1, None))


async def test_first_pending_and_unresolvable(full: World, watch: PlanWatch) -> None:
    """What tests before it left dead is no part of it: a first look finds what lies behind that."""
    full.rows("vacuum outbox.uncounted")
    first = await watch.store.find_first_pending(-1)
    assert first is not None
    await watch.begin()
    seq = await watch.store.find_first_pending(first - 1)
    assert seq == first
    await watch.store.bury_unresolvable(seq, "refused")
    assert full.count("dead_letters", "event_seq = %s and reason = 'unresolvable'", seq) == 1
    unharmed(watch, 160)


async def test_drained_does_not_read_what_waits_for_later(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    assert await watch.store.is_drained() is False
    unharmed(watch, 400)


@pytest.fixture(scope="module")
def crowded_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """Ten thousand subscriptions that came after the statistics."""
    with databases.database(server_url, template=migrated_template) as url:
        world = World(url)
        world.rows("analyze outbox.subscriptions")
        world.rows("alter table outbox.subscriptions set (autovacuum_enabled = off)")
        world.rows(
            "insert into outbox.subscriptions (url, types)"
            " select 'http://127.0.0.1/' || n, '{none}' from generate_series(1, 10000) n"
        )
        world.close()
        yield url


@pytest.mark.slow
async def test_changes_of_few_among_ten_thousand_subscriptions(crowded_url: str) -> None:
    """What is asked of an endpoint, and whether it changed: a few pages for each one asked about."""
    world, watch = World(crowded_url), PlanWatch(crowded_url)
    few = world.rows("select id, url from outbox.subscriptions order by url limit 20")
    await watch.begin()
    assert await watch.store.find_changed([(identity.bytes, 1) for identity, _ in few]) == []
    assert watch.buffers <= 20 * 10
    changes = [
        result(
            held(Birth(new_ids(1)[0], 1, identity.bytes, None, 1, None)),
            VerdictKind.RETRY,
            endpoint=GONE if number % 2 else Hold(60.0),
            url=url,
        )
        for number, (identity, url) in enumerate(few)
    ]
    await watch.begin()
    settled = await watch.store.settle(changes)
    assert len(settled.disabled) == len(settled.held) == 10
    assert world.count("subscriptions", "held_until is not null") == 10
    told = [plan for plan in watch.plans if "outbox.subscriptions" in plan["Query Text"]]
    assert len(told) >= 2
    assert sum(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] for plan in told) <= 20 * 60
    world.close()
    await watch.store.close()


async def test_subscriptions_are_read_by_id(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    assert len(await watch.store.read_subscriptions(ids_of(full)[:5])) == 5
    unharmed(watch, 100)


async def test_a_bounded_look_steps_over_dead_entries_that_a_held_snapshot_keeps(own_world: World) -> None:
    own_world.rows("alter table outbox.pending set (autovacuum_enabled = off)")
    with own_world.open() as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select from outbox.pending")
        seqs = own_world.record(count=30_000)
        own_world.rows("delete from outbox.pending")
        own_world.rows("analyze outbox.pending")
        watch = PlanWatch(own_world.url)
        touched = []
        for low in (-1, seqs[-1]):
            await watch.begin()
            assert (await watch.store.poll(low, 2e9)).first is None
            touched.append(watch.buffers)
        await watch.store.close()
    assert touched[1] <= 20 < touched[0]


async def test_a_claim_with_a_mark_steps_over_dead_entries_that_a_held_snapshot_keeps(own_world: World) -> None:
    """And takes the same: the mark is the row that it begins with."""
    own_world.rows("alter table outbox.deliveries set (autovacuum_enabled = off)")
    subscription = own_world.subscribe()
    fill = (
        "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
        " select outbox.uuid7(), n, id, now() + make_interval(secs => n * 0.001 - 60)"
        " from outbox.subscriptions, generate_series(%s::int, %s) n"
    )
    with own_world.open() as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select from outbox.deliveries")
        own_world.rows(fill, 1, 30_000)
        own_world.rows("delete from outbox.deliveries")
        own_world.rows(fill, 30_001, 30_200)
        own_world.rows("analyze outbox.deliveries")
        watch = PlanWatch(own_world.url)
        first: Mark = FIRST
        touched, seqs = [], []
        for begin in range(3):
            await watch.begin()
            marks = [first] if begin else ()
            rows = await watch.store.claim([(subscription, 50)], 50, 10**9, new_lease(), (), 6.0, marks)
            touched.append(watch.buffers)
            seqs.append([row.event_seq for row in rows])
            assert rows[0].due is not None
            first = (rows[0].due, rows[0].id)
        await watch.store.close()
    assert seqs == [list(range(begin, begin + 50)) for begin in (30_001, 30_051, 30_101)]
    assert max(touched[1:]) < touched[0] - 250  # 30,000 entries stand on some 300 pages


@pytest.mark.parametrize("kind", [VerdictKind.DELIVERED, VerdictKind.RETRY, VerdictKind.DEAD])
async def test_rows_are_found_by_id_also_where_statistics_were_made_of_an_empty_table(
    own_world: World, kind: VerdictKind
) -> None:
    """As ANALYZE leaves them beside a held snapshot, when nothing is due. By them every index costs the same."""
    own_world.rows("alter table outbox.deliveries set (autovacuum_enabled = off)")
    own_world.subscribe()
    with own_world.open() as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select from outbox.deliveries")
        own_world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
            " select outbox.uuid7(), n, id, now() from outbox.subscriptions, generate_series(1, 30000) n"
        )
        own_world.rows("delete from outbox.deliveries")
        own_world.rows("analyze outbox.deliveries")
        own_world.record(count=20)
        watch = PlanWatch(own_world.url)
        births = await fan_out(watch.store, leased=True)
        await watch.begin()
        await watch.store.settle([result(held(birth), kind) for birth in births])
        indexes = {node["Index Name"] for node in watch.nodes() if node.get("Index Name", "").startswith("deliveries_")}
        await watch.store.close()
    assert indexes == {"deliveries_pkey"}


async def test_orphans_are_found_by_one_look_up_for_each_subscription(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    connection = await watch.store.connect()
    await connection.execute("select from outbox.orphans()")
    await connection.rollback()
    unharmed(watch, 12 * SUBSCRIPTIONS)


async def test_a_sweep_that_does_not_look_at_what_is_due_touches_no_delivery(full: World, watch: PlanWatch) -> None:
    await watch.begin()
    rows = await watch.store.sweep(bytes(16), 500, for_due=False)
    assert len(rows) >= SUBSCRIPTIONS
    assert {row[1:3] for row in rows} == {(False, False)}
    unharmed(watch, 30)


@pytest.mark.slow
async def test_matching_a_type_among_ten_thousand_subscriptions_touches_few_pages(own_world: World) -> None:
    own_world.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/', array['t' || n] from generate_series(1, 10000) n"
    )
    own_world.record("t77")
    watch = PlanWatch(own_world.url)
    await watch.begin()
    async with watch.store.fan_out(-1, 500, 1_000_000) as batch:
        assert [len(matches) for matches in batch.matches.values()] == [1]
    assert watch.buffers <= 300
    await watch.store.close()


@pytest.mark.slow
async def test_probes_among_thousands_of_open_breakers(own_world: World) -> None:
    """Most have nothing due, as where nothing is recorded at night: a few pages for each of them."""
    for table in ("deliveries", "health"):
        own_world.rows(f"analyze outbox.{table}")
        own_world.rows(f"alter table outbox.{table} set (autovacuum_enabled = off)")
    own_world.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/', array[case when n <= 50 then 'due' else 'idle' end]"
        " from generate_series(1, 3000) n"
    )
    own_world.rows(
        "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
        " select gen_random_uuid(), n, s.id, now() + case when n % 2 = 0 then interval '1 day' else interval '-1 s' end"
        " from generate_series(1, 400) n, outbox.subscriptions s where types = '{due}'"
    )
    own_world.rows(
        "insert into outbox.health (subscription_id, opened_at, pause_seconds, probe_at, changed_at)"
        " select id, now(), 60, now() - interval '1 s', now() - interval '1 h' from outbox.subscriptions"
    )
    idle = [row[0].bytes for row in own_world.rows("select id from outbox.subscriptions where types = '{idle}'")]
    watch = PlanWatch(own_world.url)
    await watch.begin()
    noted, _ = await watch.store.read_noted(own_world.value("select extract(epoch from now())::float8"))
    assert len(noted) == 50
    unharmed(watch, 3000 * 10, 3000)
    await watch.begin()
    wanting = [*idle[:1950], *(one.subscription_id for one in noted)]
    assert len(await watch.store.claim_probes(wanting, 20, new_lease(), may_be_suspect=False)) == 20
    unharmed(watch, 2000 * 20, 3000)
    await watch.store.close()


async def test_the_statement_is_planned_anew_each_time_and_nothing_is_prepared(full: World, watch: PlanWatch) -> None:
    for _ in range(8):
        await watch.store.poll(-1, 2e9)
    connection: Any = await watch.store.connect()
    cursor = await connection.execute("select count(*) from pg_prepared_statements")
    assert await cursor.fetchone() == (0,)
