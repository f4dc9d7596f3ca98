"""Who asks the other process when, what an unexpected answer means, and how long small evaluations hold the loop."""

from __future__ import annotations

import asyncio
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from relay.engine import transforming
from relay.engine.room import Room
from relay.engine.transforming import LoopShare, Transforming
from relay.message.evaluator_process.answering import answer
from relay.message.evaluator_process.evaluator import LARGE_BYTES, Evaluator
from relay.message.evaluator_process.requests import UnexpectedError, content_of
from relay.message.evaluator_process.turns import Turns
from relay.message.formats import Formatter
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_tenant_with_many_lets_the_others_have_every_second_turn() -> None:
    turns, order = Turns(), []

    async def ask(tenant: str) -> None:
        async with turns.of(tenant):
            order.append(tenant)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for tenant in "aaaaabbc":
            tasks.create_task(ask(tenant))
    assert order == list("aabcabaa")


async def test_fan_out_has_the_next_turn_whoever_waits_and_leaves_one_to_the_others() -> None:
    turns, order = Turns(), []

    async def ask(tenant: str | None) -> None:
        async with turns.of(tenant):
            order.append(tenant or "fan_out")
            await asyncio.sleep(0)

    async def fan_out() -> None:
        for _ in range(2):
            await ask(None)

    async with asyncio.TaskGroup() as tasks:
        for tenant in "aab":
            tasks.create_task(ask(tenant))
        tasks.create_task(fan_out())
    assert order == ["a", "fan_out", "a", "fan_out", "b"]


async def test_who_is_cancelled_while_it_waits_or_in_its_turn_leaves_the_turn_to_the_next() -> None:
    turns, order = Turns(), []

    async def ask(name: str) -> None:
        async with turns.of("a"):
            order.append(name)
            await asyncio.sleep(1e6 if name == "first" else 0)

    tasks = {name: asyncio.create_task(ask(name)) for name in ("first", "second", "third", "fourth")}
    await asyncio.sleep(0)
    tasks["second"].cancel()
    tasks["first"].cancel()
    await asyncio.sleep(0)
    tasks["third"].cancel()  # whose turn has just come
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert order == ["first", "fourth"]


async def test_many_small_evaluations_let_the_loop_turn_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr(transforming.time, "perf_counter", lambda: float(next(seconds)))
    share, order = LoopShare(), []

    async def evaluate() -> None:
        await share.wait()
        with share.taking():
            order.append("evaluated")

    async def turn() -> None:
        while len(order) < 20:
            order.append("turned")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(evaluate())
        tasks.create_task(turn())
    at = [place for place, what in enumerate(order) if what == "evaluated"]
    assert len(at) == 5
    assert all("turned" in order[one:other] for one, other in pairwise(at))


async def test_what_is_made_at_once_leaves_the_rest_to_the_next_turn_and_what_is_large_to_the_other_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = count()
    monkeypatch.setattr(transforming.time, "perf_counter", lambda: float(next(seconds)))
    made_by = Transforming(Room(1), Evaluator())
    envelope: Any = SimpleNamespace(transformation=Transformation("{n: data.n}"), formatter=Formatter("zapier", {}, ""))
    small, large = (
        EventParts(b"evt_1", b"a", "", None, 0, b'{"n":1,"x":"%b"}' % (b"x" * size)) for size in (1, LARGE_BYTES)
    )
    assert made_by.make_at_once(envelope, large) is None
    made = made_by.make_at_once(envelope, small)
    assert made is not None
    assert made.payload == b'{"n":1}'
    assert envelope.formatter.kept(made) is not None
    assert made_by.make_at_once(envelope, small) is None, "its turn had no time left"
    await asyncio.sleep(0)
    assert made_by.make_at_once(envelope, small) is made


def test_an_error_of_our_own_says_where_and_nothing_of_the_event() -> None:
    with pytest.raises(UnexpectedError) as caught:
        content_of(answer(b"nothing that was marshalled"))
    assert "answering.py" in str(caught.value)
    assert "nothing that" not in str(caught.value)
