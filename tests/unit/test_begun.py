"""A request without a task: its place and its connection are free again, whatever becomes of it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.engine.attempts import Attempts
from relay.http.begun import Begun, Request, read_by
from relay.http.pool import Key, Pool, Pools
from relay.http.reader import Answer, Lost
from relay.http.sender import Endpoint, HttpSender
from relay.model.outcome import Outcome, OutcomeKind

pytestmark = pytest.mark.anyio


class Connection:
    """One that answers when the test says so."""

    address = "127.0.0.1"

    def __init__(self, *, broken: bool = False) -> None:
        self.closed = False
        self.broken = broken
        self.answered: Callable[[Answer | Lost], object] | None = None
        self.early: Answer | Lost | None = None

    def exchange(self, _data: bytes, _deadline: float, answered: Callable[[Answer | Lost], object]) -> None:
        if self.broken:
            raise ValueError("cannot write")
        self.answered = answered
        if self.early is not None:
            answered(self.early)

    def answer(self, result: Answer | Lost) -> None:
        if self.answered is None:
            self.early = result
        elif not self.closed:
            self.answered(result)

    def is_open(self) -> bool:
        return not self.closed

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Wire:
    """A pool with one place, and what was sent anew."""

    def __init__(self, *, broken: bool = False) -> None:
        self.pools = Pools(1, 8)
        self.pool: Pool = self.pools.of(Key("http", "receiver", 80, b"", b"one"))
        self.connection: Any = Connection(broken=broken)
        self.anew = 0
        self.send_anew: Callable[[], Awaitable[Any]] = asyncio.Event().wait

    def begin(self) -> Begun:
        assert self.pool.enter_at_once()
        now = time.monotonic()
        request = Request(None, b"", now, now + 5)  # type: ignore[arg-type]
        return Begun(self.pools, self.pool, self.connection, request, self._send_anew)

    async def _send_anew(self, _pool: Pool, _request: Request) -> Any:
        self.anew += 1
        return await self.send_anew()

    @property
    def has_place(self) -> bool:
        return self.pool.enter_at_once()


def attempts_of(wire: Wire, ended: list[Any], transforming: Any = None) -> tuple[Attempts, Any, Any]:
    envelope = SimpleNamespace(needs_time=transforming is not None, send=lambda *_: wire.begin())
    endpoint: Any = SimpleNamespace(
        problem=None, envelope=envelope, subscription=SimpleNamespace(), timeout_of=lambda _delivery: 5
    )
    delivery: Any = SimpleNamespace(members=(), unreadable=None, event=object(), attempts=1)
    clock: Any = SimpleNamespace(timestamp=lambda: b"1")
    sender: Any = None
    return Attempts(sender, clock, transforming, lambda _, outcome: ended.append(outcome)), endpoint, delivery


CLOSED_BEFORE = Lost(OutcomeKind.CONNECTION, "closed", b"")
DELIVERED = Answer(204, b"HTTP/1.1 204 No Content\r\n\r\n", b"", reusable=True)


async def test_an_abort_cuts_what_waits_for_its_answer() -> None:
    wire, ended = Wire(), list[Any]()
    attempts, endpoint, delivery = attempts_of(wire, ended)
    attempts.begin(endpoint, delivery)
    assert len(attempts) == 1
    await attempts.abort()
    assert [outcome.kind for outcome in ended] == [OutcomeKind.ABORTED]
    assert wire.connection.closed
    assert wire.has_place
    assert len(attempts) == 0


@pytest.mark.parametrize("turns", [1, 2], ids=["as the abort begins", "after it has cut"])
async def test_nothing_is_sent_anew_during_an_abort(turns: int) -> None:
    """The receiver has closed the connection at the same moment."""
    wire, ended = Wire(), list[Any]()
    attempts, endpoint, delivery = attempts_of(wire, ended)
    attempts.begin(endpoint, delivery)
    aborting = asyncio.create_task(attempts.abort())
    for _ in range(turns):
        await asyncio.sleep(0)
    wire.connection.answer(CLOSED_BEFORE)
    async with asyncio.timeout(5):
        await aborting
    assert [outcome.kind for outcome in ended] == [OutcomeKind.ABORTED]
    assert wire.anew == 0
    assert wire.has_place


async def test_otherwise_it_is_sent_anew_by_a_task_that_an_abort_cuts() -> None:
    wire, ended = Wire(), list[Any]()
    attempts, endpoint, delivery = attempts_of(wire, ended)
    attempts.begin(endpoint, delivery)
    wire.connection.answer(CLOSED_BEFORE)
    for _ in range(3):
        await asyncio.sleep(0)
    assert wire.anew == 1
    await attempts.abort()
    assert [outcome.kind for outcome in ended] == [OutcomeKind.ABORTED]
    assert wire.has_place


async def test_finish_waits_for_the_call_back_of_an_answer_that_is_there() -> None:
    wire, ended = Wire(), list[Any]()
    attempts, endpoint, delivery = attempts_of(wire, ended)
    attempts.begin(endpoint, delivery)
    wire.connection.answer(DELIVERED)
    await attempts.finish()
    assert [outcome.kind for outcome in ended] == [OutcomeKind.DELIVERED]
    assert wire.pools.resting == 1
    assert wire.has_place


@pytest.mark.parametrize("anew", [False, True])
async def test_finish_waits_for_an_answer_and_for_what_is_sent_anew_after_it(*, anew: bool) -> None:
    wire, ended, sent = Wire(), list[Any](), asyncio.Event()

    async def send_anew() -> Outcome:
        await sent.wait()
        return Outcome(OutcomeKind.DELIVERED, 204, 1, None)

    wire.send_anew = send_anew
    attempts, endpoint, delivery = attempts_of(wire, ended)
    attempts.begin(endpoint, delivery)
    finishing = asyncio.create_task(attempts.finish())
    await asyncio.sleep(0)
    wire.connection.answer(CLOSED_BEFORE if anew else DELIVERED)
    for _ in range(3):
        await asyncio.sleep(0)
    assert finishing.done() is not anew
    sent.set()
    async with asyncio.timeout(5):
        await finishing
    assert [outcome.kind for outcome in ended] == [OutcomeKind.DELIVERED]
    assert len(attempts) == 0


async def test_an_answer_ends_its_attempt_in_the_turn_that_reads_it() -> None:
    wire, ended = Wire(), list[Any]()
    attempts, endpoint, delivery = attempts_of(wire, ended)
    attempts.begin(endpoint, delivery)
    wire.connection.answer(DELIVERED)
    assert [outcome.kind for outcome in ended] == [OutcomeKind.DELIVERED]
    assert len(attempts) == 0


async def test_a_connection_that_is_closed_already_ends_no_attempt_before_it_has_begun() -> None:
    wire, ended = Wire(), list[Any]()
    attempts, endpoint, delivery = attempts_of(wire, ended)
    wire.connection.answer(CLOSED_BEFORE)
    attempts.begin(endpoint, delivery)
    assert (ended, len(attempts)) == ([], 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.anew == 1
    await attempts.abort()
    assert [outcome.kind for outcome in ended] == [OutcomeKind.ABORTED]


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_is_sent_is_made_without_a_task_unless_that_has_to_wait(at_once: bool) -> None:
    wire, ended, tasks = Wire(), list[Any](), asyncio.all_tasks()

    async def make(*_: object) -> object:
        return object()

    transforming = SimpleNamespace(make_at_once=lambda *_: object() if at_once else None, make=make)
    attempts, endpoint, delivery = attempts_of(wire, ended, transforming)
    delivery.start_by = time.monotonic() + 5
    attempts.begin(endpoint, delivery)
    assert (asyncio.all_tasks() == tasks) is at_once
    wire.connection.answer(DELIVERED)
    await attempts.finish()
    assert [outcome.kind for outcome in ended] == [OutcomeKind.DELIVERED]


async def test_who_awaits_it_and_stops_cuts_it() -> None:
    wire = Wire()
    begun = wire.begin()

    async def wait() -> None:
        await begun

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.connection.closed
    assert wire.has_place


async def test_what_cannot_be_written_takes_no_place() -> None:
    wire = Wire(broken=True)
    with pytest.raises(ValueError, match="cannot write"):
        wire.begin()
    assert wire.connection.closed
    assert wire.has_place


class Unwritable(asyncio.Transport):
    """A new connection that cannot be written to."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.socket, self._other = socket.socketpair()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" else default

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise ValueError("cannot write")

    def abort(self) -> None:
        self.aborted = True
        self.socket.close()
        self._other.close()


async def test_a_new_connection_that_cannot_be_written_to_is_closed() -> None:
    transport = Unwritable()

    async def reach(*_: object) -> Any:
        return SimpleNamespace(address="127.0.0.1", open=open_)

    async def open_(protocol: asyncio.Protocol, *_: object) -> None:
        protocol.connection_made(transport)

    sender = HttpSender(cast(Any, SimpleNamespace(reach=reach)), user_agent="test")
    with pytest.raises(ValueError, match="cannot write"):
        await sender.send(Endpoint.of("http://receiver.example/"), b"", b"{}", 5)
    assert transport.aborted
    assert sender.endpoints == 0


async def test_what_an_answer_means_is_asked_whichever_way_it_comes() -> None:
    """Of a request that is on its way, of one that is sent anew, and of one that had to wait."""

    def later(kind: OutcomeKind, outcome: Outcome) -> Outcome:
        return outcome._replace(kind=kind, error=f"{outcome.error} {kind}")

    async def waited() -> Outcome:
        return Outcome(OutcomeKind.DELIVERED, 204, 1, "said")

    def read_twice(sent: Awaitable[Outcome]) -> Awaitable[Outcome]:
        return read_by(partial(later, OutcomeKind.NOT_TAKEN), read_by(partial(later, OutcomeKind.SLOWED), sent))

    wire = Wire()
    begun = wire.begin()
    assert read_twice(begun) is begun
    wire.connection.answer(DELIVERED)
    outcome = await begun
    assert (outcome.kind, outcome.error) == (OutcomeKind.NOT_TAKEN, "None slowed not_taken")

    wire = Wire()
    wire.send_anew = waited
    begun = wire.begin()
    read_twice(begun)
    wire.connection.answer(CLOSED_BEFORE)
    assert (await begun).error == "said slowed not_taken"
    assert (await read_twice(waited())).error == "said slowed not_taken"
