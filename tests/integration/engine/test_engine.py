"""An engine is everything that one database needs; several in a process share its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import anyio
import pytest

from relay.engine.engine import Engine, EngineOptions
from relay.engine.room import Room
from relay.model.outcome import Outcome
from relay.model.settlement import Settlement
from relay.secrets.keyring import Keyring
from relay.store.rows import Settled
from tests.integration.engine.world import DELIVERED, FarEnd, World
from tests.support import databases
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def second_world(server_url: str, migrated_template: str) -> Iterator[World]:
    """Another database."""
    with databases.database(server_url, template=migrated_template) as url:
        world = World(url)
        yield world
        world.close()


async def answer_slowly() -> Outcome:
    await asyncio.sleep(0.002)
    return DELIVERED


async def test_two_engines_share_one_process_limit_and_drain_each_for_itself(
    world: World, second_world: World, far_end: FarEnd
) -> None:
    far_end.script["/"] = far_end.script["/second"] = answer_slowly
    world.subscribe()
    second_world.subscribe(path="/second")
    world.record(count=40)
    second_world.record(count=40)
    room, options = Room(3), EngineOptions(until_drained=True)
    engines = [Engine(one.url, far_end, room, Keyring(), options) for one in (world, second_world)]
    busiest = 0
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for engine in engines:
                tasks.start_soon(engine.run)
            while len(far_end.requests) < 80:
                busiest = max(busiest, far_end.in_flight)
                await asyncio.sleep(0.001)
    assert busiest == 3
    for one in (world, second_world):
        assert one.count("attempts", "verdict = 'delivered'") == 40
        assert one.count("deliveries") == one.count("pending") == 0


async def test_an_engine_whose_database_is_away_takes_no_place_from_another(
    world: World, second_world: World, far_end: FarEnd
) -> None:
    world.subscribe()
    room = Room(1)
    away = Engine(f"{second_world.url}_that_is_not_there", far_end, room, Keyring(), EngineOptions())
    well = Engine(world.url, far_end, room, Keyring(), EngineOptions())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(away.run)
        tasks.start_soon(well.run)
        world.record(count=10)
        await await_until(lambda: world.count("attempts") == 10)
        assert away.outage.failures > 0
        away.stop()
        well.stop()
    assert room.unbegun == 0


async def test_a_database_that_takes_results_slowly_is_not_outrun(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one delivery more is leased than twice the room, however quickly they are answered; all go out in the end."""
    room = Room(64, leased_max=20)
    engine = Engine(databases.as_relay(world.url), far_end, room, Keyring(), EngineOptions(until_drained=True))
    write, may_write = engine.settle_store.settle, asyncio.Event()

    async def write_later(batch: Sequence[Settlement]) -> Settled:
        await may_write.wait()
        return await write(batch)

    monkeypatch.setattr(engine.settle_store, "settle", write_later)
    world.subscribe()
    world.record(count=200)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run)
            await await_until(lambda: len(far_end.requests) >= 40)
            began = engine.feeder.steps
            await await_until(lambda: engine.feeder.steps > began + 20)
            assert len(far_end.requests) == 40
            may_write.set()
    assert len(far_end.requests) == world.count("attempts") == 200


@pytest.mark.parametrize("drain_seconds", [30.0, 0.0])
async def test_a_database_that_takes_results_slowly_has_the_time_of_the_drain(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch, drain_seconds: float
) -> None:
    """Each takes a fifth of a second, alone; what is not written is sent again, so all are, while the drain lasts."""
    monkeypatch.setattr("relay.engine.engine.SETTLE_AFTER_DRAIN_SECONDS", 1.0)
    monkeypatch.setattr("relay.engine.settler.BATCH", 1)
    count = 12
    world.subscribe()
    world.record(count=count)
    engine = Engine(
        databases.as_relay(world.url), far_end, Room(64), Keyring(), EngineOptions(drain_seconds=drain_seconds)
    )
    write = engine.settle_store.settle

    async def write_slowly(batch: Sequence[Settlement]) -> Settled:
        await asyncio.sleep(0.2)
        return await write(batch)

    monkeypatch.setattr(engine.settle_store, "settle", write_slowly)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        await await_until(lambda: len(far_end.requests) == count)
        engine.stop()
    assert (world.count("attempts") == count) is (drain_seconds > 0)
    assert world.count("deliveries") == count - world.count("attempts")
