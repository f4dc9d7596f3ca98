"""An attempt is guarded whole: whatever raises in it, its places come free and the delivery goes on."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from relay.engine.window import Window
from relay.model.delivery import Delivery
from relay.model.settlement import Settlement
from tests.integration.engine.world import FarEnd, World, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


def fail(*_: Any, **__: Any) -> NoReturn:
    raise ZeroDivisionError("an error of our own")


@pytest.mark.parametrize(
    ("where", "name"), [("relay.engine.sending", "decide"), (Window, "learn"), (Settlement, "of")], ids=str
)
async def test_whatever_raises_after_the_answer_frees_the_slot_and_gives_the_delivery_back(
    world: World,
    far_end: FarEnd,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: Any,
    name: str,
) -> None:
    world.subscribe()
    world.record(count=3)
    async with stepping(world.url, far_end, max_in_flight=1, per_endpoint=1) as relay:
        free = relay.room.free
        with monkeypatch.context() as patched:
            patched.setattr(f"{where}.{name}", fail) if isinstance(where, str) else patched.setattr(where, name, fail)
            await relay.look()
            await relay.settled()
        assert len(far_end.requests) == 3, "with one place for all, each attempt needs the one before to free it"
        assert relay.room.free == free
        assert relay.room.unbegun == 0
        assert world.deliveries("attempts, lease, due_at > now() + interval '50 s'") == [(0, None, True)] * 3
        assert world.count("attempts") == 0
        world.rows("update outbox.deliveries set due_at = now()")
        await relay.look()
        await relay.settled()
    assert world.count("deliveries") == 0
    assert world.count("attempts", "verdict = 'delivered'") == 3
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 3
    assert all("dlv_" in record.getMessage() for record in told)


async def test_whatever_raises_over_a_batch_with_an_unfit_member_gives_all_of_it_back_once(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = world.subscribe()
    world.rows(
        "update outbox.subscriptions set batch_events = 3, batch_milliseconds = 0, transformation = 'length(data)'"
        " where id = %s",
        uuid_of(subscription),
    )
    world.record(count=2, payload="[1, 2]")
    world.record(payload="null")
    async with stepping(world.url, far_end, max_in_flight=1, per_endpoint=1) as relay:
        free = relay.room.free
        with monkeypatch.context() as patched:
            patched.setattr("relay.engine.judging.decide", fail)
            await relay.look()
            await relay.settled()
        assert (relay.sending.leased, relay.room.free, relay.room.unbegun) == (0, free, 0)
        assert world.deliveries("attempts, lease") == [(0, None)] * 3
        world.rows("update outbox.deliveries set due_at = now()")

        async def delivered() -> bool:
            await relay.look()
            await relay.settled()
            return not world.count("deliveries")

        await await_until(delivered)
    assert sorted(world.rows("select verdict from outbox.attempts")) == [("dead",), ("delivered",), ("delivered",)]


async def test_an_exception_in_the_sender_is_a_failed_attempt(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture
) -> None:
    """The request may have been read, so it is charged."""
    world.subscribe()
    world.record()
    far_end.script["/"] = fail
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        assert relay.sending.idle
    assert world.deliveries("attempts, lease") == [(1, None)]
    assert world.rows("select outcome, error from outbox.attempts") == [
        ("internal", "ZeroDivisionError inside the relay; see its log")
    ]
    assert "an error of our own" in caplog.text


async def test_an_attempt_cut_before_its_first_step_does_not_hold_up_the_drain(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    far_end.hold("/")
    async with stepping(world.url, far_end, max_in_flight=1) as relay:
        world.record()
        await relay.look()
        (endpoint,) = relay.endpoints
        (waiting,) = world.rows("select id from outbox.deliveries")
        delivery = Delivery(waiting[0].bytes, 1, endpoint.subscription.id, 1, 1, None, 1e18)
        before = asyncio.all_tasks()
        endpoint.unbegun.append(delivery)
        relay.sending.begin_next(endpoint)
        (task,) = asyncio.all_tasks() - before
        task.cancel()
        await relay.sending.abort()
        assert task.cancelled()
