"""Filters over large events, or with much to do, are asked in a process of their own; without it they are asked too."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import psutil
import pytest

from outbox.subscriptions.filters import Answer, FilteredEvent, FilterSet, RefusedFilter, parse
from relay.engine.asking import Asking
from relay.message.evaluator_process.evaluator import LARGE_BYTES, Evaluator
from relay.message.evaluator_process.large_bodies import transformed
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts
from tests.integration.engine.world import FarEnd, Relay, World, stepping
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

LARGE = '{"total":120,"x":"%s"}' % ("x" * LARGE_BYTES)
BUSY = '{"total":120,"x":[1%s]}' % (",1" * 8000)
MANY_CONDITIONS = {"payload": {"x": {"$or": [{"a": {"$gt": n}} for n in range(50)]}}}
FILTERS = {
    b"more": parse({"payload": {"total": {"$gte": 100}}}),
    b"less": parse({"payload": {"total": {"$lt": 100}}}),
    b"equal": parse({"payload": {"total": 120}}),
    b"busy": parse(MANY_CONDITIONS),
    b"refused": RefusedFilter("", "cannot be read"),
}


def parts(payload: str) -> EventParts:
    return EventParts(b"evt_01jd3v0000e008000000000000", b"a.b", "acme", None, 123_456_789, payload.encode())


async def as_always(filters: FilterSet, payload: str) -> tuple[list[bytes], list[bytes]]:
    """What they say where nobody shares the work."""
    event = FilteredEvent("a.b", payload)
    found = {name: one.answer(event) for name, one in filters.candidates(event)}
    matched = [name for name, said in found.items() if said is Answer.MATCH]
    return matched, [name for name, said in found.items() if said.gave_up]


@pytest.fixture
async def evaluator() -> AsyncIterator[Evaluator]:
    made = Evaluator()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("payload", "elsewhere"), [('{"total":120}', False), (LARGE, True), (BUSY, True), ("[" * 40_000, True)]
)
async def test_wherever_they_are_asked_the_answers_are_the_same(
    evaluator: Evaluator, payload: str, elsewhere: bool
) -> None:
    filters = FilterSet(FILTERS)
    for _ in range(2):  # the second time the process knows them
        answers = await Asking(evaluator).ask(parts(payload), filters)
        assert (answers.matched, answers.gave_up) == await as_always(filters, payload)
        assert answers.names == filters.names
    assert (evaluator.pid is not None) is elsewhere


async def test_metadata_and_key_go_with_the_event_to_the_process(evaluator: Evaluator) -> None:
    filters = FilterSet({name: parse({"metadata": {"by": name.decode()}}) for name in (b"u-1", b"u-2")})
    told = replace(parts(LARGE), metadata=b'{"by": "u-2"}')
    assert (await Asking(evaluator).ask(told, filters)).matched == [b"u-2"]
    assert (await Asking(evaluator).ask(parts(LARGE), filters)).matched == []
    made = await transformed(Transformation("metadata.by"), told, evaluator)
    assert made.payload == b'"u-2"'
    assert evaluator.pid is not None


async def test_sets_of_filters_are_told_apart(evaluator: Evaluator) -> None:
    one, other = (FilterSet({b"it": parse({"payload": {"total": total}})}) for total in (120, 121))
    assert one.digest == other.digest, "a name means one filter for ever, so these sets would be the same"
    other = FilterSet({b"another": parse({"payload": {"total": 121}})})
    asking = Asking(evaluator)
    assert (await asking.ask(parts(LARGE), one)).matched == [b"it"]
    assert (await asking.ask(parts(LARGE), other)).matched == []
    assert (await asking.ask(parts(LARGE), one)).matched == [b"it"]


async def test_a_large_event_goes_to_those_whose_filter_it_meets(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/more", filter={"payload": {"total": {"$gte": 100}}})
    world.subscribe(path="/less", filter={"payload": {"total": {"$lt": 100}}})
    world.record(payload=LARGE)
    async with stepping(world.url, far_end) as relay:
        await resolve(relay, world)
        assert relay.engine.evaluator.pid is not None
    assert far_end.paths() == ["/more"]


async def test_fan_out_waits_for_one_transformation_however_many_its_tenant_has(evaluator: Evaluator) -> None:
    order = []

    async def transform() -> None:
        await transformed(Transformation("data.total"), parts(LARGE), evaluator)
        order.append("transformed")

    async def ask() -> None:
        await Asking(evaluator).ask(parts(LARGE), FilterSet(FILTERS))
        order.append("asked")

    async with asyncio.TaskGroup() as tasks:
        for work in (transform, transform, transform, ask):
            tasks.create_task(work())
    assert order == ["transformed", "asked", "transformed", "transformed"]


@pytest.mark.parametrize("how", ["killed", "late", "never started"])
async def test_no_match_is_lost_with_the_process(
    evaluator: Evaluator,
    asked: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    filters, asking = FilterSet(FILTERS), Asking(evaluator)
    if how == "never started":
        monkeypatch.setattr("relay.message.evaluator_process.child.COMMAND", ("-c", "raise SystemExit(3)"))
        answers = await asking.ask(parts(LARGE), filters)
        assert "does not start" in caplog.text
    else:
        await asking.ask(parts(LARGE), filters)
        pid = evaluator.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        if how == "late":
            monkeypatch.setattr("relay.engine.asking.DEADLINE_SECONDS", 0.1)
        asked.clear()
        under_way = asyncio.create_task(asking.ask(parts(LARGE), filters))
        await await_until(asked.is_set)
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        answers = await under_way
        assert not psutil.pid_exists(pid)
        again = await asking.ask(parts(LARGE), filters)
        assert again == answers
        assert evaluator.pid is None, "the process is not asked the same again, which may have been its end"
    assert (answers.matched, answers.gave_up) == await as_always(filters, LARGE)


async def test_an_error_of_our_own_in_the_process_is_logged_once_and_loses_no_match(
    evaluator: Evaluator, process_answers: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    process_answers("later.pop() if later else later.append(b'+[]') or b'!ValueError at answering.py:1'")
    filters, asking = FilterSet(FILTERS), Asking(evaluator)
    for _ in range(2):  # the second time the process, which would answer, is not asked
        answers = await asking.ask(parts(LARGE), filters)
        assert (answers.matched, answers.gave_up) == await as_always(filters, LARGE)
    assert [line.message.partition("the process")[2] for line in caplog.records if line.levelname == "ERROR"] == [
        " for large transformations, filters and formats: ValueError at answering.py:1"
    ]


async def test_filters_give_up_on_an_event_that_needs_more_memory_than_the_process_has(
    evaluator: Evaluator, process_answers: Callable[[str], None]
) -> None:
    process_answers("later.pop() if later else later.append(b'+[]') or b'-it needs more memory'")
    filters, asking = FilterSet(FILTERS), Asking(evaluator)
    answers = await asking.ask(parts(LARGE), filters)
    assert (answers.matched, set(answers.gave_up)) == ([], set(FILTERS))
    answers = await asking.ask(parts(LARGE), filters)
    assert (answers.matched, answers.gave_up) == ([], []), "another event is another question"


async def test_the_process_is_asked_again_some_minutes_after_it_ended(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    filters, asking = FilterSet(FILTERS), Asking(evaluator)
    await asking.ask(parts(LARGE), filters)
    assert evaluator.pid is not None
    os.kill(evaluator.pid, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr("relay.engine.asking.DEADLINE_SECONDS", 0.1)
        patched.setattr("relay.engine.asking.NOT_AGAIN_SECONDS", 0.0)
        await asking.ask(parts(LARGE), filters)
    assert evaluator.pid is None
    await asking.ask(parts(LARGE), filters)
    assert evaluator.pid is not None


async def resolve(relay: Relay, world: World) -> None:
    while world.count("pending"):
        await relay.look()
    await relay.settled()
