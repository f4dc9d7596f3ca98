"""What waits for the process for large transformations: its place is lent, its time may pass, and it may be cut."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from relay.engine.endpoint import Endpoint
from relay.message.evaluator_process.large_bodies import transformed
from relay.message.transformation.transformation import Transformation
from relay.model.delivery import Delivery
from tests.integration.engine.test_evaluator import LARGE, event, stopped, transforming
from tests.integration.engine.world import FarEnd, Relay, World, stepping
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


async def test_others_are_sent_while_one_waits_although_there_is_one_place(world: World, far_end: FarEnd) -> None:
    transforming(world)
    async with stepping(world.url, far_end, max_in_flight=1) as relay, stopped(relay) as pid:
        world.subscribe("other", path="/other")
        world.record(payload=LARGE)
        world.record("other")
        await relay.look()
        await await_until(lambda: "/other" in far_end.paths())
        assert "/changed" not in far_end.paths()
        os.kill(pid, signal.SIGCONT)
        await relay.settled()
    assert far_end.paths() == ["/other", "/changed"]


async def test_one_that_comes_back_waits_until_a_place_is_free_and_has_it_first(
    world: World, far_end: FarEnd, asked: threading.Event
) -> None:
    transforming(world)
    world.record(payload=LARGE)
    async with waiting(world, far_end, asked, max_in_flight=1) as (relay, pid, _):
        world.subscribe("other", path="/other")
        freed = far_end.hold("/other")
        world.record("other", count=2)
        await relay.look()
        await await_until(lambda: "/other" in far_end.paths())
        os.kill(pid, signal.SIGCONT)
        await transformed(
            Transformation("data"), event(), relay.engine.evaluator
        )  # its turn comes after the one that waits
        for _ in range(10):
            await asyncio.sleep(0)
        assert far_end.paths() == ["/other"]
        freed.set()
        await relay.settled()
    assert far_end.paths() == ["/other", "/changed", "/other"]


@asynccontextmanager
async def waiting(
    world: World, far_end: FarEnd, asked: threading.Event, max_in_flight: int = 256
) -> AsyncIterator[tuple[Relay, int, Delivery]]:
    """A delivery waits for the process, which is stopped: the relay, the process's id, and that delivery."""
    async with stepping(world.url, far_end, max_in_flight=max_in_flight) as relay, stopped(relay) as pid:
        begun, begin_next = [], relay.sending.begin_next

        def note(endpoint: Endpoint) -> None:
            begun.append(endpoint.unbegun[0])
            begin_next(endpoint)

        relay.sending.begin_next = note  # type: ignore[method-assign]
        asked.clear()
        while not begun:
            await relay.look()
        await await_until(asked.is_set)
        yield relay, pid, begun[0]


def given_back(world: World, count: int = 1) -> bool:
    return world.deliveries("attempts, lease") == [(0, None)] * count and not world.count("attempts")


async def test_what_is_made_too_late_is_given_back_uncharged(
    world: World, far_end: FarEnd, asked: threading.Event
) -> None:
    """Its lease ends soon: the request could be under way when another relay sends it."""
    transforming(world)
    world.record(payload=LARGE)
    async with waiting(world, far_end, asked) as (relay, pid, delivery):
        delivery.start_by = 0.0
        os.kill(pid, signal.SIGCONT)
        await relay.settled()
        assert given_back(world)
    assert far_end.requests == []


@pytest.mark.parametrize("members", [None, 2])
async def test_what_is_cut_while_it_waits_for_the_process_is_given_back_uncharged(
    world: World, far_end: FarEnd, asked: threading.Event, caplog: pytest.LogCaptureFixture, members: int | None
) -> None:
    """No byte was sent."""
    one = transforming(world)
    world.rows(
        "update outbox.subscriptions set batch_events = %s, batch_milliseconds = 0 where id = %s",
        *(members, UUID(bytes=one)),
    )
    world.record(payload=LARGE, count=members or 1)
    async with waiting(world, far_end, asked) as (relay, _, _):
        await relay.sending.abort()
        await relay.settled()
        assert given_back(world, members or 1)
    assert far_end.requests == []
    assert "given back" not in caplog.text, "nothing was late"
