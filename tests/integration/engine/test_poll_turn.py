"""The poll turn: one of several idle relays looks often, and the next takes over when it stops saying so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from relay.engine import poll_turn
from relay.engine.poll_turn import STANDBY_SECONDS, PollTurn
from relay.store.poll_turn import TURN_SECONDS
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World, running
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F76")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, world: World) -> list[float]:
    """The processes' clock, moved by hand; nobody has the turn."""
    world.rows("update outbox.poller set holder = null, until = null")
    now = [1000.0]
    monkeypatch.setattr(poll_turn.time, "monotonic", lambda: now[0])
    return now


async def test_one_has_the_turn_and_keeps_it(store: Store, other_store: Store, clock: list[float]) -> None:
    first, second = (PollTurn(one, processes=1, slow_seconds=0.25) for one in (store, other_store))
    for _ in range(3):
        await first.look()
        await second.look()
        assert (first.is_ours, second.is_ours) == (True, False)
        clock[0] += TURN_SECONDS / 2


async def test_another_takes_the_turn_that_ran_out(
    world: World, store: Store, other_store: Store, clock: list[float]
) -> None:
    first, second = (PollTurn(one, processes=1, slow_seconds=0.25) for one in (store, other_store))
    await first.look()
    world.rows("update outbox.poller set until = clock_timestamp()")
    await second.look()
    clock[0] += TURN_SECONDS
    await first.look()
    assert (first.is_ours, second.is_ours) == (False, True)


async def test_nobody_waits_for_a_relay_that_stopped_while_it_took_the_turn(
    world: World, store: Store, clock: list[float]
) -> None:
    with world.open() as stopped:
        stopped.execute("update outbox.poller set until = null")
        turn = PollTurn(store, processes=1, slow_seconds=0.25)
        await turn.look()
        assert not turn.is_ours


async def test_the_others_rest_longer_the_more_there_are(store: Store, clock: list[float]) -> None:
    """All together they look no more often than one alone would."""
    for processes in (2, 10, 50):
        turn = PollTurn(store, processes=processes, slow_seconds=0.25)
        others = processes - 1
        assert others / turn.pause_seconds(1e6, 0.5) == pytest.approx(1 / STANDBY_SECONDS)


async def test_a_relay_that_just_had_work_looks_often_whoever_has_the_turn(store: Store, clock: list[float]) -> None:
    turn = PollTurn(store, processes=2, slow_seconds=0.25)
    assert turn.pause_seconds(0.0, 0.5) == pytest.approx(0.016)


@pytest.mark.slow
async def test_a_relay_that_stands_by_polls_and_leaves_the_rest_to_the_one_with_the_turn(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    for verb in ("poll", "sweep", "read_noted", "sweep_lanes"):
        monkeypatch.setattr(Store, verb, counted(asked, verb))
    world.rows("update outbox.poller set holder = gen_random_uuid(), until = clock_timestamp() + interval '1 day'")
    world.subscribe()
    async with running(world.url, far_end):
        await await_until(lambda: asked["poll"] >= 8)
        assert max(asked["sweep"], asked["read_noted"], asked["sweep_lanes"]) <= asked["poll"] / 4
        world.record()
        await await_until(lambda: world.count("attempts") == 1)


@pytest.mark.slow
async def test_a_relay_that_stands_by_goes_on_with_a_batch_that_waits_to_be_full(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll_turn, "STANDBY_SWEEP_SECONDS", 3600.0)
    world.rows("update outbox.poller set holder = gen_random_uuid(), until = clock_timestamp() + interval '1 day'")
    world.subscribe()
    world.rows("update outbox.subscriptions set batch_events = 9, batch_milliseconds = 4000")
    async with running(world.url, far_end):
        world.record(count=3)
        await await_until(lambda: world.count("attempts") == 3)


def counted(asked: Counter[str], verb: str) -> Callable[..., Awaitable[Any]]:
    """Return a verb of the store that counts how often it is asked for."""
    original = getattr(Store, verb)

    def asking(*args: Any, **options: Any) -> Awaitable[Any]:
        asked[verb] += 1
        return original(*args, **options)

    return asking
