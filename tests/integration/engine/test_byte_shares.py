"""Large bodies that wait for slow endpoints hold up nobody else's events."""

from __future__ import annotations

import asyncio

import pytest

from relay.engine import claim as claim_module
from tests.integration.engine.world import FarEnd, Relay, World, running, stepping
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F01")]


def payload(size: int) -> str:
    return '"' + "x" * (size - 2) + '"'


async def comes_through(world: World, far_end: FarEnd) -> None:
    """Record small events for an endpoint that was never asked, and wait until all have come."""
    world.subscribe("fine", path="/fine")
    for _ in range(5):
        world.record("fine", 10)
        expected = far_end.paths().count("/fine") + 10
        await await_until(lambda n=expected: far_end.paths().count("/fine") >= n)


async def at_rest(far_end: FarEnd) -> None:
    """Wait until no more requests are begun."""
    before = -1
    while before != (before := far_end.in_flight) or not before:
        await asyncio.sleep(0.3)


async def answers_well(world: World, far_end: FarEnd, path: str) -> None:
    """Let an endpoint earn its whole window, so that much is leased for it."""
    world.record(path.strip("/"), 100)
    await await_until(lambda: far_end.paths().count(path) == 100)


@pytest.mark.parametrize(("size", "count"), [(250_000, 100), (60_000, 350), (30_000, 700)])
async def test_a_slow_endpoint_with_a_backlog_of_large_events(
    world: World, far_end: FarEnd, size: int, count: int
) -> None:
    world.subscribe("slow", path="/slow")
    async with running(world.url, far_end):
        await answers_well(world, far_end, "/slow")
        freed = far_end.hold("/slow")
        world.record("slow", count, payload=payload(size))
        await at_rest(far_end)
        await comes_through(world, far_end)
        assert far_end.in_flight, "the slow one still holds its own"
        del far_end.script["/slow"]
        freed.set()
        await await_until(lambda: far_end.paths().count("/slow") == 100 + count)


async def test_many_slow_endpoints_that_all_answer(world: World, far_end: FarEnd) -> None:
    paths = [f"/slow{n}" for n in range(12)]
    for path in paths:
        world.subscribe(path.strip("/"), path=path)
    async with running(world.url, far_end, max_in_flight=2000):
        for path in paths:
            await answers_well(world, far_end, path)
        for path in paths:
            far_end.hold(path)
            world.record(path.strip("/"), 20, payload=payload(250_000))
        await at_rest(far_end)
        await comes_through(world, far_end)


async def test_eighty_hanging_endpoints_with_a_large_event_each(world: World, far_end: FarEnd) -> None:
    for number in range(80):
        world.subscribe(f"hanging{number}", path=f"/{number}")
        far_end.hold(f"/{number}")
        world.record(f"hanging{number}", payload=payload(250_000))
    async with running(world.url, far_end):
        await at_rest(far_end)
        await comes_through(world, far_end)


def record_huge(world: World, event_type: str) -> None:
    world.allow_payloads_of(20_000_000)
    world.record(event_type, payload=payload(17_000_000))


async def test_one_hanging_endpoint_with_an_event_larger_than_the_room(world: World, far_end: FarEnd) -> None:
    world.subscribe("hanging", path="/hanging")
    world.subscribe("large", path="/large")
    far_end.hold("/hanging")
    record_huge(world, "hanging")
    async with running(world.url, far_end):
        await await_until(lambda: far_end.in_flight == 1)
        await comes_through(world, far_end)
        world.record("large", 5, payload=payload(250_000))
        await await_until(lambda: far_end.paths().count("/large") == 5)


async def test_what_is_larger_than_the_room_goes_one_after_the_other(world: World, far_end: FarEnd) -> None:
    world.subscribe("huge", path="/huge")
    for _ in range(2):
        record_huge(world, "huge")
    async with running(world.url, far_end) as relay:
        await await_until(lambda: len(far_end.requests) == 2)
        await relay.settled()
        assert far_end.most_in_flight["/huge"] == 1


async def test_two_processes(world: World, far_end: FarEnd) -> None:
    world.subscribe("slow", path="/slow")
    async with running(world.url, far_end) as first, running(world.url, far_end):
        await answers_well(world, far_end, "/slow")
        far_end.hold("/slow")
        world.record("slow", 200, payload=payload(250_000))
        await at_rest(far_end)
        await comes_through(world, far_end)
        assert not first.sending.idle


async def test_a_full_claim_asks_the_others_first_next_time(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"turn{number}" for number in range(3)]
    for name in names:
        world.subscribe(name, path=f"/{name}")
    async with stepping(world.url, far_end) as relay:
        await known(world, relay, names)
        for name in names:
            far_end.hold(f"/{name}")
            world.record(name, 6)
        monkeypatch.setattr(claim_module, "ROWS_MAX", 3)
        while world.count("pending"):
            await resolve_only(relay)
        for turn in range(3):
            assert await relay.feeder.claim.run()
            await await_until(lambda turn=turn: far_end.in_flight == 3 * (turn + 1))
        assert {far_end.paths()[-9:].count(f"/{name}") for name in names} == {3}


async def known(world: World, relay: Relay, names: list[str]) -> None:
    """Make the endpoints known to the relay, and have them answer."""
    for name in names:
        world.record(name)
    while world.count("attempts") < len(names):
        await relay.look()
        await relay.settled()


async def resolve_only(relay: Relay) -> None:
    """Fan out with a backlog noted for all, so that nothing is born leased."""
    relay.feeder.due.add_all(one.subscription.id for one in relay.endpoints)
    await relay.feeder.fan_out.run(-1)


async def test_a_hundred_slow_endpoints_of_one_tenant_leave_room_for_anothers_event(
    world: World, far_end: FarEnd
) -> None:
    paths = [f"/slow{number}" for number in range(100)]
    for path in paths:
        world.subscribe(path.strip("/"), path=path, tenant="many")
    world.subscribe("one", path="/one", tenant="few")
    world.record("one", tenant="few")
    async with running(world.url, far_end, max_in_flight=2000):
        await await_until(lambda: "/one" in far_end.paths())
        for path in paths:
            world.record(path.strip("/"), tenant="many")
        await await_until(lambda: len(far_end.requests) == 101)
        for path in paths:
            far_end.hold(path)
            world.record(path.strip("/"), 4, tenant="many", payload=payload(250_000))
        await at_rest(far_end)
        world.record("one", tenant="few", payload=payload(60_000))
        await await_until(lambda: far_end.paths().count("/one") == 2)
