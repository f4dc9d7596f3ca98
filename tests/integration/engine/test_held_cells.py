"""A limit's cell that somebody keeps locked, such as a relay that stopped, delays its own endpoints only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.integration.engine.world import FarEnd, World, running, uuid_of
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F66")]
WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
LIMITS = {"rate_limit": "500/s", "max_in_flight": 20}


@contextmanager
def held(world: World, cell: bytes, *, made: bool) -> Iterator[None]:
    """Keep a cell locked, as a transaction does that stopped; or make it without a commit."""
    if made:
        world.rows("insert into outbox.limits (id) values (%s)", uuid_of(cell))
    with world.open() as other:
        statement = "select from outbox.limits where id = %s for update"
        other.execute(statement if made else "insert into outbox.limits (id) values (%s)", [uuid_of(cell)])
        yield


def arrived(far_end: FarEnd, path: str) -> int:
    return sum(request[0] == path for request in far_end.requests)


@pytest.mark.parametrize("made", [True, False], ids=["locked", "not committed"])
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_cell_that_is_held_delays_no_other_endpoint(world: World, limit: str, *, made: bool) -> None:
    far_end = FarEnd()
    cells = {path: world.subscribe(path=path) for path in ("/held", "/limited", "/free")}
    for path in ("/held", "/limited"):
        world.rows(f"update outbox.subscriptions set {limit} = %s where id = %s", LIMITS[limit], uuid_of(cells[path]))
    world.record(count=30)
    with held(world, cells["/held"], made=made):
        async with running(world.url, far_end):
            await await_until(lambda: arrived(far_end, "/free") == arrived(far_end, "/limited") == 30)
            world.record(count=30)
            await await_until(lambda: arrived(far_end, "/free") == arrived(far_end, "/limited") == 60)
            assert arrived(far_end, "/held") == 0
    async with running(world.url, far_end):
        await await_until(lambda: arrived(far_end, "/held") == 60)
    assert world.count("attempts", "number > 1") == 0


async def test_a_cell_that_is_let_go_is_asked_by_the_relay_that_found_it_held(world: World) -> None:
    far_end = FarEnd()
    cell = world.subscribe()
    world.rows("update outbox.subscriptions set rate_limit = '500/s'")
    world.record(count=30)
    with ExitStack() as holding:
        holding.enter_context(held(world, cell, made=True))
        async with running(world.url, far_end):
            await await_until(lambda: world.value(WAITING))
            await await_until(lambda: not world.value(WAITING))
            assert not far_end.requests
            holding.close()
            await await_until(lambda: len(far_end.requests) == 30)
