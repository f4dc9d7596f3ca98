"""The database goes away and comes back: what was answered is settled from memory, and nothing is sent again for it."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.engine.world import ERROR_500, FarEnd, World, running
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

TERMINATE = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


class Gate:
    """Lets nobody into the database; whoever is in is thrown out."""

    def __init__(self, world: World, server_url: str) -> None:
        self._world = world
        self._server_url = server_url
        self._name = world.value("select current_database()")

    def close(self) -> None:
        self._allow(False)
        self._world.rows(TERMINATE)

    def open(self) -> None:
        self._allow(True)

    def _allow(self, connections: bool) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f"alter database {self._name} with allow_connections {connections}")


async def test_a_backend_killed_between_answer_and_settle_costs_no_second_request(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe()
    world.record(count=10)
    freed = far_end.hold("/")
    async with running(world.url, far_end) as relay:
        await await_until(lambda: far_end.in_flight == 10)
        world.rows(TERMINATE)
        freed.set()
        await relay.settled()
    assert len(far_end.requests) == 10
    assert world.rows("select verdict, count(*) from outbox.attempts group by 1") == [("delivered", 10)]
    assert world.count("deliveries") == 0


async def test_answers_of_an_outage_are_settled_from_memory_when_it_ends(
    own_world: World, far_end: FarEnd, server_url: str
) -> None:
    own_world.subscribe(path="/fine")
    own_world.subscribe(path="/fails")
    own_world.record(count=10)
    gate = Gate(own_world, server_url)
    fine, fails = far_end.hold("/fine"), far_end.hold("/fails", ERROR_500)
    async with running(own_world.url, far_end) as relay:
        await await_until(lambda: far_end.in_flight == 20)
        gate.close()
        fine.set()
        fails.set()
        await await_until(lambda: relay.outage.failures > 5)
        assert relay.settler.unsettled == 20
        gate.open()
        await relay.settled()
    assert len(far_end.requests) == 20
    verdicts = own_world.rows("select verdict, count(*) from outbox.attempts group by 1 order by 1")
    assert verdicts == [("delivered", 10), ("retry", 10)]
    assert own_world.deliveries("attempts, lease") == [(1, None)] * 10


async def test_backends_killed_all_the_time_lose_nothing(world: World, far_end: FarEnd) -> None:
    world.subscribe(schedule=(0,) * 20)
    async with running(world.url, far_end) as relay:
        for _ in range(12):
            world.record(count=20)
            world.rows(TERMINATE)
            await await_until(lambda: not relay.outage.failures)
        world.expire("lease is not null and attempts < 0")
        # A commit whose answer was cut leaves leases that nobody knows of; they end by themselves.
        await relay.settled()
        world.expire()
        await await_until(lambda: not world.count("pending") and not world.count("deliveries"))
    delivered = world.value("select count(distinct event_seq) from outbox.attempts where verdict = 'delivered'")
    assert delivered == 240
    assert world.count("dead_letters") == 0


@pytest.mark.case("F4")
async def test_results_that_the_database_cannot_take_for_now_are_kept(
    own_world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover, when the old primary still answers and refuses to write; or while a table is missing."""
    own_world.subscribe()
    own_world.record(count=5)
    freed = far_end.hold("/")
    async with running(own_world.url, far_end) as relay:
        await await_until(lambda: far_end.in_flight == 5)
        own_world.rows("alter table outbox.attempts rename to mislaid")
        refusals = []
        monkeypatch.setattr(relay.outage, "note_failure", refusals.append)
        freed.set()
        await await_until(lambda: len(refusals) > 2)
        assert relay.settler.unsettled == 5
        own_world.rows("alter table outbox.mislaid rename to attempts")
        await relay.settled()
    assert len(far_end.requests) == own_world.count("attempts") == 5


@pytest.mark.case("C3")
async def test_a_relay_that_starts_while_the_database_is_away_begins_when_it_is_there(
    own_world: World, far_end: FarEnd, server_url: str
) -> None:
    own_world.subscribe()
    own_world.record()
    gate = Gate(own_world, server_url)
    gate.close()
    async with running(own_world.url, far_end) as relay:
        await await_until(lambda: relay.outage.failures > 2)
        gate.open()
        await await_until(lambda: far_end.requests)
