"""Large transformations are made by a process of their own: what it is given, and what its death means."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import psutil
import pytest

from benchmarks.hostile import HOSTILE
from relay.message.evaluator_process.evaluator import LARGE_BYTES, Evaluator, NotStartedError
from relay.message.evaluator_process.large_bodies import TooLateError, transformed
from relay.message.evaluator_process.requests import transformation_request
from relay.message.transformation.budget import TransformationError
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts
from tests.integration.engine.world import FarEnd, Relay, World, stepping
from tests.support.waiting import await_until, wait_until

pytestmark = pytest.mark.anyio

LARGE = '{"n":19.90,"x":"%s"}' % ("x" * LARGE_BYTES)


def transforming(world: World, expression: str = "data.n", path: str = "/changed") -> bytes:
    one = world.subscribe("a.b", path=path)
    world.rows("update outbox.subscriptions set transformation = %s where id = %s", expression, UUID(bytes=one))
    return one


def event(data: bytes = LARGE.encode()) -> EventParts:
    return EventParts(b"evt_01jd3v0000e008000000000000", b"order.created", "acme", "k-1", 123_456_789, data)


async def start(evaluator: Evaluator) -> int:
    """Start the process before anything waits for it, since on a busy machine that takes a while; return its id."""
    await transformed(Transformation("data"), event(), evaluator)
    assert evaluator.pid is not None
    return evaluator.pid


@asynccontextmanager
async def stopped(relay: Relay) -> AsyncIterator[int]:
    """The process runs, and answers nothing: what it is asked stays with it."""
    pid = await start(relay.engine.evaluator)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def evaluator() -> AsyncIterator[Evaluator]:
    made = Evaluator()
    yield made
    await made.close()


async def test_small_ones_need_no_process_and_large_ones_come_out_the_same(world: World, far_end: FarEnd) -> None:
    transforming(world, "{n: data.n, all: data.x}")
    async with stepping(world.url, far_end) as relay:
        world.record(payload='{"n":19.90,"x":"x"}')
        await relay.look()
        await relay.settled()
        assert relay.engine.evaluator.pid is None
        pid = await start(relay.engine.evaluator)
        world.record(payload=LARGE)
        await relay.look()
        await relay.settled()
        assert relay.engine.evaluator.pid == pid
    small, large = (body.partition(b'"data":')[2] for _, _, body in far_end.requests)
    assert small == b'{"n":19.90,"all":"x"}}'
    assert large == b'{"n":19.90,"all":"%b"}}' % (b"x" * LARGE_BYTES)
    wait_until(lambda: not psutil.pid_exists(pid))


async def test_a_process_that_is_killed_in_the_middle_is_followed_by_another(
    world: World, far_end: FarEnd, asked: threading.Event
) -> None:
    transforming(world)
    async with stepping(world.url, far_end) as relay:
        async with stopped(relay) as pid:
            asked.clear()
            world.record(payload=LARGE)
            await relay.look()
            await await_until(asked.is_set)
            os.kill(pid, signal.SIGKILL)
            await relay.settled()
        assert relay.engine.evaluator.pid != pid
    assert far_end.paths() == ["/changed"]
    assert world.rows("select verdict, number from outbox.attempts") == [("delivered", 1)]
    assert world.count("dead_letters") == 0


@pytest.mark.slow
@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize(
    ("how", "told"), [("os._exit(3)", "ended with code 3"), ("time.sleep(1e6)", "took longer than 0 seconds")]
)
async def test_what_no_process_survives_is_retried_by_the_schedule_and_then_dead(
    world: World,
    far_end: FarEnd,
    process_answers: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    told: str,
    members: int | None,
) -> None:
    one = transforming(world)
    world.rows(
        "update outbox.subscriptions set schedule_seconds = '{100}', batch_events = %s, batch_milliseconds = 0"
        " where id = %s",
        *(members, UUID(bytes=one)),
    )
    process_answers(how)
    if "sleep" in how:
        monkeypatch.setattr("relay.message.evaluator_process.large_bodies.DEADLINE_SECONDS", 0.1)
    events = members or 1
    world.record(payload=LARGE, count=events)
    async with stepping(world.url, far_end) as relay:

        async def look_until_attempted(times: int) -> None:
            async def is_attempted() -> bool:
                await relay.look()
                await relay.settled()
                return bool(world.count("attempts") == times * events)

            await await_until(is_attempted)

        await look_until_attempted(1)
        assert world.deliveries("attempts, lease, due_at > now() + interval '50 s'") == [(1, None, True)] * (
            members or 1
        )
        assert world.count("dead_letters") == 0
        endpoint = relay.endpoints.get(one)
        assert (endpoint.ailing, endpoint.window.is_measured) == (None, False), "the endpoint is not blamed"
        for attempts in (2, 3) if members else (2,):  # the last of a batch is that of its halves
            world.rows("update outbox.deliveries set due_at = now()")
            await look_until_attempted(attempts)
    assert far_end.requests == []
    assert world.rows("select distinct reason, error from outbox.dead_letters") == [
        ("internal", f"transformation: the process that evaluates it {told}, and when asked again {told}")
    ]
    assert world.count("dead_letters") == events


async def test_what_is_too_late_already_is_not_made(evaluator: Evaluator) -> None:
    with pytest.raises(TooLateError):
        await transformed(Transformation("data"), event(), evaluator, time.monotonic() - 1)
    assert evaluator.pid is None


async def test_nobody_waits_for_its_turn_until_its_lease_has_ended(evaluator: Evaluator) -> None:
    """It would be a suspect, as if it had ended its relay."""
    async with evaluator.turn("acme"):
        with pytest.raises(TooLateError):
            await asyncio.wait_for(transformed(Transformation("data"), event(), evaluator, time.monotonic() + 0.05), 20)
    assert await start(evaluator), "the next turn is free"


async def test_one_that_died_while_nobody_asked_is_started_again(evaluator: Evaluator) -> None:
    pid = await start(evaluator)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    async with evaluator.turn("acme") as turn:
        assert await turn.ask(transformation_request("data.n", event()), 30.0) == b"+19.90"
    assert evaluator.pid not in (None, pid)


async def test_without_the_process_nothing_is_lost_and_the_log_says_why(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = transforming(world)
    world.subscribe(path="/plain")
    world.record(payload=LARGE, count=2)
    async with stepping(world.url, far_end) as relay:
        with monkeypatch.context() as patched:
            patched.setattr("relay.message.evaluator_process.child.COMMAND", ("-c", "raise SystemExit(3)"))
            patched.setattr("relay.message.evaluator_process.evaluator.START_AGAIN_SECONDS", 0.0)
            await relay.look()
            await relay.settled()
        assert far_end.paths() == ["/plain"] * 2
        assert world.deliveries("attempts, lease") == [(0, None)] * 2
        assert (world.count("dead_letters"), relay.endpoints.get(one).ailing) == (0, None)
        assert (
            "the process for large transformations, filters and formats does not start: ended with code 3"
            in caplog.text
        )
        assert "this shows why" in caplog.text

        async def delivered() -> bool:
            world.rows("update outbox.deliveries set due_at = now()")
            await relay.look()
            await relay.settled()
            return far_end.paths().count("/changed") == 2

        await await_until(delivered)


async def test_members_of_a_batch_are_made_there_too(world: World, far_end: FarEnd) -> None:
    one = transforming(world)
    world.rows(
        "update outbox.subscriptions set batch_events = 2, batch_milliseconds = 0 where id = %s", UUID(bytes=one)
    )
    world.record(payload=LARGE, count=2)
    async with stepping(world.url, far_end) as relay:

        async def delivered() -> bool:
            await relay.look()
            await relay.settled()
            return not world.count("deliveries")

        await await_until(delivered)
        assert relay.engine.evaluator.pid is not None
    ((_, _, body),) = far_end.requests
    assert body.count(b'"data":19.90') == 2


async def test_whatever_is_asked_the_answer_is_that_of_this_process(evaluator: Evaluator) -> None:
    """The largest payloads and the worst expressions, in the memory that it may have."""
    for name, (expression, data) in HOSTILE.items():
        transformation, answers = Transformation(expression), []
        for elsewhere in (False, True):
            try:
                given = event(data)
                made = await transformed(transformation, given, evaluator) if elsewhere else transformation.of(given)
                answers.append(made.payload)
            except TransformationError as error:
                answers.append(str(error).encode())
        assert answers[0] == answers[1], name


async def test_it_is_given_neither_the_environment_nor_a_file_of_the_relay(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@db/shop")
    monkeypatch.setenv("RELAY_SECRET_KEY", "a key")
    near, far = socket.socketpair()
    near.set_inheritable(True)
    process = psutil.Process(await start(evaluator))
    assert set(process.environ()) <= {"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LC_CTYPE"}
    near.close()
    far.settimeout(5)
    assert far.recv(1) == b"", "nobody else holds the other end"
    far.close()


async def test_no_process_is_started_once_the_relay_stops(evaluator: Evaluator) -> None:
    await evaluator.close()
    with pytest.raises(NotStartedError):
        await transformed(Transformation("data"), event(), evaluator)
    assert evaluator.pid is None
