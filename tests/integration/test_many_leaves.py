"""Leaves of events: sized by the rate, and however many there are, whoever works locks only those of its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from outbox.control.replay.replay import replay
from outbox.control.replay.replayable import candidates_by_id
from relay.config.options import Config
from relay.model.verdict import VerdictKind
from relay.operations.gauges import read_gauges
from relay.operations.status.documents import Pending
from relay.operations.status.outstanding import read_pending
from relay.operations.status.status import status
from relay.operations.status.unmatched_events import Unmatched, read_unmatched
from relay.process.housekeeping import Housekeeping
from relay.store.bodies import BODIES, Bodies
from relay.store.database import SETTINGS, Database
from relay.store.fan_out import MAX_SEQ, TakenBatch, new_ids
from relay.store.pending_shares import Shares
from relay.store.rows import Birth
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World, held, result, stepping
from tests.support import databases

pytestmark = [
    pytest.mark.field("F64"),
    pytest.mark.anyio,
    pytest.mark.xdist_group("many leaves"),  # they are made once
]

LEAVES, LEAF_ROWS = 200, 1_000_000
LOCKS_MAX = 100
LOCKS = "select count(*) from pg_locks where pid = pg_backend_pid()"
FULL = f"""
do $$ begin
    for n in 0..{LEAVES - 1} loop
        perform outbox.attach_leaf('outbox.events', ('events_' || n)::name, 'seq', (n * {LEAF_ROWS} + 1)::text,
                                   ((n + 1) * {LEAF_ROWS} + 1)::text);
    end loop;
end $$"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def leafy_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """A database with 200 leaves of events, an event in each, all drawn."""
    with databases.database(server_url, template=migrated_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for (leaf,) in connection.execute("select leaf::text from outbox.leaves_of('outbox.events')").fetchall():
                connection.execute(f"drop table {leaf}")
            connection.execute(FULL)
            connection.execute(
                "insert into outbox.events (seq, type, payload)"
                f" select n * {LEAF_ROWS} + 7, 'a.b', '1' from generate_series(0, {LEAVES - 1}) n"
            )
            connection.execute(f"select setval('outbox.events_seq', {LEAVES * LEAF_ROWS})")
            connection.execute("delete from outbox.pending")
        yield url


@pytest.fixture
def leafy(leafy_url: str) -> Iterator[World]:
    world = World(leafy_url)
    world.rows(
        "truncate outbox.deliveries, outbox.dead_letters, outbox.attempts, outbox.subscriptions, outbox.resolutions,"
        " outbox.pending cascade"
    )
    yield world
    world.close()


class CountingStore(Store):
    """A store that counts the locks of each of its transactions, just before it commits."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo)
        self.locks: list[int] = []

    async def transaction(self, *asked: tuple[str, Sequence[object]], settings: str = SETTINGS) -> list[list[Any]]:
        *answers, ((locks,),) = await super().transaction(*asked, (LOCKS, ()), settings=settings)
        self.locks.append(locks)
        return answers


@pytest.fixture
async def counting(leafy: World) -> AsyncIterator[CountingStore]:
    store = CountingStore(leafy.url)
    yield store
    await Database.close(store)


def leased(world: World, subscription_id: bytes, seqs: Sequence[int]) -> list[Birth]:
    """Deliveries of these events that somebody has leased."""
    births = [Birth(new_ids(1)[0], seq, subscription_id, None, 7, 60.0) for seq in seqs]
    for birth in births:
        world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)"
            " values (%s, %s, %s, now() + interval '1 hour', 1, 7)",
            UUID(bytes=birth.id),
            birth.event_seq,
            UUID(bytes=subscription_id),
        )
    return births


@pytest.mark.parametrize("verdict", [VerdictKind.DELIVERED, VerdictKind.RETRY, VerdictKind.DEAD])
async def test_settling_locks_only_the_leaves_of_what_it_buries(
    leafy: World, counting: CountingStore, verdict: VerdictKind
) -> None:
    births = leased(leafy, leafy.subscribe(), [n * LEAF_ROWS + 7 for n in range(60, 70)])
    await counting.settle([result(held(birth), verdict) for birth in births])
    assert leafy.count("deliveries", "lease is not null") == 0
    assert max(counting.locks) <= LOCKS_MAX
    if verdict is VerdictKind.DEAD:
        assert leafy.count("dead_letters", "payload = '1' and type = 'a.b'") == len(births)


@pytest.mark.field("F64")
async def test_a_claim_locks_no_leaf_and_its_bodies_only_theirs(leafy: World, counting: CountingStore) -> None:
    subscription_id = leafy.subscribe()
    births = leased(leafy, subscription_id, [n * LEAF_ROWS + 7 for n in range(60, 73)])
    leafy.rows("update outbox.deliveries set lease = null, due_at = now()")
    rows = await counting.claim([(subscription_id, 20)], 20, 10**6, 8)
    assert [row.event.type for row in rows if row.event] == [b"a.b"] * len(births)
    assert max(counting.locks) <= LOCKS_MAX
    with psycopg.connect(leafy.url) as connection:
        connection.execute(BODIES.replace("%b", "%s::bigint[]"), ([row.event_seq for row in rows],))
        assert connection.execute(LOCKS).fetchall()[0][0] <= LOCKS_MAX


async def test_a_burial_without_its_event_stays_a_burial(leafy: World, counting: CountingStore) -> None:
    (birth,) = leased(leafy, leafy.subscribe(), [8])
    await counting.settle([result(held(birth), VerdictKind.DEAD)])
    assert leafy.rows("select event_seq, type, payload from outbox.dead_letters") == [(8, "unknown", "null")]


async def test_a_replay_locks_only_the_leaves_of_its_events(leafy: World, counting: CountingStore) -> None:
    (birth,) = leased(leafy, leafy.subscribe(), [5 * LEAF_ROWS + 7])
    await counting.settle([result(held(birth), VerdictKind.DEAD)])
    with databases.engine_on(leafy.url) as engine, engine.begin() as connection:
        found = candidates_by_id(connection, None, UUID(bytes=birth.id))
        replay(connection, None, found)
        assert connection.scalar(sa.text(LOCKS)) <= LOCKS_MAX
    assert leafy.count("deliveries", "event_seq = %s", 5 * LEAF_ROWS + 7) == 1


async def test_a_suspect_is_claimed_and_buried_with_its_own_leaf_only(leafy: World, counting: CountingStore) -> None:
    subscription_id = leafy.subscribe()
    leased(leafy, subscription_id, [50 * LEAF_ROWS + 7])
    leafy.rows("update outbox.deliveries set due_at = now() - interval '1 minute'")
    (row,) = await counting.claim_suspect([subscription_id], 8, None)
    assert row.event is not None
    leafy.rows("update outbox.deliveries set due_at = now() - interval '1 minute', crashes = 3")
    assert await counting.claim_suspect([subscription_id], 9, None) == []
    assert leafy.count("dead_letters", "reason = 'crash' and payload = '1' and type = 'a.b'") == 1
    assert max(counting.locks) <= LOCKS_MAX


async def test_an_unresolvable_event_is_buried_with_its_own_leaf_only(leafy: World, counting: CountingStore) -> None:
    leafy.rows("insert into outbox.pending values (%s)", 50 * LEAF_ROWS + 7)
    assert await counting.bury_unresolvable(50 * LEAF_ROWS + 7, "refused")
    assert leafy.count("dead_letters", "reason = 'unresolvable' and payload = '1' and type = 'a.b'") == 1
    assert max(counting.locks) <= LOCKS_MAX


def pend(world: World, *numbers: int) -> None:
    """Let the events of these leaves be pending."""
    for number in numbers:
        world.rows("insert into outbox.pending values (%s)", number * LEAF_ROWS + 7)


@pytest.mark.parametrize("filter_", [None, {"payload": 1}])
async def test_a_relay_that_was_away_for_long_opens_the_leaves_of_its_events_only(
    leafy: World, monkeypatch: pytest.MonkeyPatch, filter_: dict[str, int] | None
) -> None:
    """It has no mark yet below which everything is resolved, and what is pending may lie in any leaf."""
    leafy.subscribe(filter=filter_)
    held: list[int] = []
    resolve = TakenBatch.resolve

    async def count_locks(self: TakenBatch, *args: Any, **kwargs: Any) -> Bodies:
        held.append(leafy.locks("true"))
        return await resolve(self, *args, **kwargs)

    monkeypatch.setattr(TakenBatch, "resolve", count_locks)
    async with stepping(leafy.url, FarEnd()) as relay:
        for numbers in ((3, 50), (4, 51)):  # of the second ones, filters are asked ahead
            pend(leafy, *numbers)
            await relay.look()
    assert leafy.count("pending") == 0
    assert leafy.count("resolutions") == len(held) == 2
    assert max(held) <= LOCKS_MAX


@pytest.mark.parametrize("shares", [None, Shares(10, "", 10, -1)])
async def test_what_is_chosen_before_a_take_locks_few_leaves(
    leafy: World, counting: CountingStore, shares: Shares | None
) -> None:
    pend(leafy, 3, 50)
    look = await counting.choose(-1, 500, MAX_SEQ, shares)
    assert look.seqs == [3 * LEAF_ROWS + 7, 50 * LEAF_ROWS + 7]
    assert [one.type for one in await counting.read_ahead([*look.seqs, 8])] == ["a.b", "a.b", None]
    assert max(counting.locks) <= LOCKS_MAX


@pytest.mark.parametrize("read", [read_gauges, read_pending, read_unmatched])
def test_what_is_asked_again_and_again_locks_few_leaves(
    leafy: World, read: Callable[[sa.Connection, str | None], Any]
) -> None:
    with databases.engine_on(leafy.url) as engine, engine.connect() as connection:
        for number in (50, 51):
            connection.execute(sa.text(f"insert into outbox.pending values ({number * LEAF_ROWS + 7})"))
            connection.execute(
                sa.text("insert into outbox.resolutions (first_seq, seqs, matches) values (:seq, array[:seq], '{0}')"),
                {"seq": number * LEAF_ROWS + 7},
            )
        found = read(connection, None)
        assert connection.scalar(sa.text(LOCKS)) <= LOCKS_MAX
        connection.rollback()
    if isinstance(found, Unmatched):
        assert found.types == ("a.b",)
    else:
        assert 0 < (found.oldest_seconds if isinstance(found, Pending) else found.oldest_pending_seconds) < 600


def test_each_statement_of_status_locks_few_leaves(leafy: World) -> None:
    """They share a transaction, which keeps what it has locked: what each of them adds is counted."""
    held: list[int] = [0]

    def count_locks(connection: sa.Connection, *_: object) -> None:
        held.append(connection.connection.cursor().execute(LOCKS).fetchone()[0])

    with databases.engine_on(leafy.url) as engine, engine.connect() as connection:
        sa.event.listen(engine, "after_cursor_execute", count_locks)
        found = status(connection, None)
    assert found.unresolved.of_last == 2, "of the last two million numbers"
    assert max(after - before for before, after in pairwise(held)) <= LOCKS_MAX
    assert held[-1] <= 2 * LOCKS_MAX


ROUNDS = (
    "select outbox.make_event_leaf()",
    "select outbox.make_attempt_leaf()",
    "select * from outbox.retire_next_event_leaf('-infinity', 0)",
    "select * from outbox.retire_next_event_leaf(clock_timestamp() - interval '30 days', 0)",
    "select * from outbox.prune_events('infinity', 0, 2000)",
    "select * from outbox.prune_events(clock_timestamp() - interval '30 days', 0, 2000)",
    "select * from outbox.retire_next_attempt_leaf(clock_timestamp() - interval '90 days', 0)",
    "select outbox.prune_attempts(clock_timestamp() - interval '90 days', 2000)",
    "select outbox.prune_resolutions(clock_timestamp() - interval '90 days', 2000)",
    "select outbox.drop_empty_leaf()",
)


@pytest.mark.parametrize("statement", ROUNDS)
def test_a_round_of_housekeeping_locks_a_bounded_number_of_leaves(leafy: World, statement: str) -> None:
    """Old attempts and resolutions of events that are still there, so that each round has something to ask about."""
    with psycopg.connect(leafy.url) as connection:
        connection.execute("select outbox.make_attempt_leaf(0, current_date - 100)")
        connection.execute(
            "insert into outbox.attempts"
            " (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, milliseconds)"
            f" select gen_random_uuid(), n * {LEAF_ROWS} + 7, gen_random_uuid(), 1,"
            "        clock_timestamp() - interval '100 days', 'delivered', 'x', 1 from generate_series(1, 10) n"
        )
        connection.execute(
            "insert into outbox.resolutions (at, first_seq, seqs, matches)"
            f" select clock_timestamp() - interval '100 days', n * {LEAF_ROWS} + 7, array[n * {LEAF_ROWS} + 7], '{{1}}'"
            " from generate_series(1, 10) n"
        )
        (before,) = connection.execute(LOCKS).fetchone() or ()
        connection.execute(statement)
        (after,) = connection.execute(LOCKS).fetchone() or ()
        assert after - before <= LOCKS_MAX
        connection.rollback()


def test_retention_reaches_every_leaf_in_its_bounded_steps(own_leafy: str) -> None:
    """A leaf keeps an undelivered event, one a young one; all others go, and then the leaves themselves."""

    async def once() -> None:
        async with await psycopg.AsyncConnection.connect(own_leafy, autocommit=True) as connection:
            await Housekeeping(Config(database_url=own_leafy)).do_due(connection)

    with psycopg.connect(own_leafy, autocommit=True) as connection:
        connection.execute(
            "update outbox.events set recorded_at = recorded_at - interval '35 days' where seq <> 2000007"
        )
        connection.execute("insert into outbox.pending values (%s)", (5 * LEAF_ROWS + 7,))
        asyncio.run(once())
        left = connection.execute("select seq from outbox.events order by seq").fetchall()
        leaves = connection.execute("select count(*) from outbox.leaves_of('outbox.events')").fetchone()
    assert left == [(2 * LEAF_ROWS + 7,), (5 * LEAF_ROWS + 7,)]
    assert leaves == (2 + 1 + 9,)  # those two, the one that is not full yet, and nine ahead


@pytest.fixture
def own_leafy(database_url: str) -> str:
    """60 small leaves in a database of the test's own, with an event in each."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for (leaf,) in connection.execute("select leaf::text from outbox.leaves_of('outbox.events')").fetchall():
            connection.execute(f"drop table {leaf}")
        connection.execute(FULL.replace(f"0..{LEAVES - 1}", "0..59"))
        connection.execute(
            f"insert into outbox.events (seq, type, payload) select n * {LEAF_ROWS} + 7, 'a.b', '1'"
            " from generate_series(0, 59) n"
        )
        connection.execute(f"select setval('outbox.events_seq', {60 * LEAF_ROWS})")
        connection.execute("delete from outbox.pending")
    return database_url


# Sizes


def resolve_up_to(connection: psycopg.Connection[Any], seq: int) -> None:
    connection.execute("select setval('outbox.events_seq', %s)", (seq,))
    connection.execute(
        "insert into outbox.resolutions (first_seq, seqs, matches) values (%s, array[%s], '{1}')", (seq, seq)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "at_most"), [(1, 12), (100, 95), (1000, 95), (20_000, 95)])
def test_a_month_makes_a_bounded_number_of_leaves_at_any_rate(database_url: str, rate: int, at_most: int) -> None:
    """30 days pass, three hours at a time; a relay makes leaves each time."""
    hours = 3
    with psycopg.connect(database_url, autocommit=True) as connection:
        seq = 1
        for _ in range(30 * 24 // hours):
            connection.execute("update outbox.resolutions set at = at - make_interval(hours => %s)", (hours,))
            for _ in range(3):
                seq += rate * 3600 * hours // 3
                resolve_up_to(connection, seq)
                while connection.execute("select outbox.make_event_leaf()").fetchone() != (None,):
                    pass
        (leaves,) = connection.execute("select count(*) from outbox.leaves_of('outbox.events')").fetchone() or ()
        (default,) = (
            connection.execute(
                "select max(to_value::bigint) - %s from outbox.leaves_of('outbox.events')", (seq,)
            ).fetchone()
            or ()
        )
    assert leaves <= at_most
    assert default >= 8_000_000  # there is room ahead


def test_one_odd_resolution_makes_no_leaf_that_lasts_for_ever(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        resolve_up_to(connection, 1)
        resolve_up_to(connection, 50_000_000_000)
        connection.execute("select outbox.make_event_leaf()")
        sizes = connection.execute(
            "select max(to_value::bigint - from_value::bigint) from outbox.leaves_of('outbox.events')"
        ).fetchone()
    assert sizes is not None
    assert sizes[0] <= 4_000_000
