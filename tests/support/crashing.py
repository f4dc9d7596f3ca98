"""A relay that ends itself with SIGKILL (or stops itself) at a chosen step of the engine.

`python -m tests.support.crashing 'Store.settle:after:1' LOG run …` runs `relay run …` and dies before or after the n-th
call of that step, having written to LOG when it was `killed`. `poison:TYPE` dies whenever an event of that type is
about to be sent; `stop:Store.…:before:1` writes that it was `stopped` and sends itself SIGSTOP instead. `…:inside:3` is
where the step waits for the database for the third time: something was sent, of the answer nothing or a part was read.
The steps are what the engine's code has, and `Housekeeping.ROUND` for each of its rounds; nobody lists them. Where
RELAY_TEST_NAMESPACE names a network namespace, it runs in there.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import psycopg

from relay.config.options import Config
from relay.engine import fan_out
from relay.engine.attempts import Attempts
from relay.engine.settler import Settler
from relay.http.sender import HttpSender
from relay.process import housekeeping
from relay.process.housekeeping_rounds import Round, rounds_of
from relay.store.fan_out import TakenBatch
from relay.store.store import Store
from tests.support.incidents import connected_ports, note
from tests.support.namespace import enter

# Plain functions. What `HttpSender.send` returns is waited for within the step; without a trap there, a request over a
# kept connection has no task.
CALLS: list[tuple[type, str]] = [(HttpSender, "send"), (Attempts, "begin"), (Settler, "settle")]


def steps() -> dict[str, tuple[type, str]]:
    """Every public coroutine of the engine's store, and the calls by which attempts are made."""
    found = {
        f"{owner.__name__}.{attribute}": (owner, attribute)
        for owner in [Store, TakenBatch, HttpSender]
        for attribute, value in vars(owner).items()
        if not attribute.startswith("_") and _is_step(value)
    }
    return found | {f"{owner.__name__}.{attribute}": (owner, attribute) for owner, attribute in CALLS}


ROUND = "Housekeeping."


def rounds() -> list[str]:
    """Every round of housekeeping, as a step."""
    return [ROUND + name for name in (*(one.name for one in rounds_of(Config())), housekeeping.SEALING)]


def _is_step(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(inspect.unwrap(value))  # type: ignore[arg-type]


class Trap:
    """Counts the calls of a step, and pulls the trigger at the wanted one."""

    def __init__(self, when: str, number: int, log: Path, how: signal.Signals) -> None:
        self._when, self._left, self._log, self._how = when, number, log, how

    def passed(self, when: str) -> None:
        """Tell that a call begins (`before`) or has ended (`after`)."""
        if when == self._when:
            self._left -= 1
            if not self._left:
                self.pull()

    def pull(self) -> None:
        """Write down the time and end (or stop) this process."""
        process = os.getpid()
        if self._how == signal.SIGSTOP:
            note(self._log, "stopped", process=process, ports=connected_ports(process))
        else:
            note(self._log, "killed", process=process)
        os.kill(process, self._how)


_INSIDE: ContextVar[Trap | None] = ContextVar("_INSIDE", default=None)


@contextmanager
def _inside(trap: Trap) -> Generator[None]:
    """Count how often the block waits for the database."""
    before = _INSIDE.set(trap)
    try:
        yield
    finally:
        _INSIDE.reset(before)


def _watch_waits() -> None:
    """Let psycopg tell of each time that it waits for the server, to the trap of the step that is under way."""
    original: Any = psycopg.AsyncConnection.wait

    async def wait(self: Any, waits: Any, *args: Any, **kwargs: Any) -> Any:
        trap = _INSIDE.get()
        return await original(self, waits if trap is None else _counted(waits, trap), *args, **kwargs)

    psycopg.AsyncConnection.wait = wait  # type: ignore[method-assign, assignment]


def _counted(waits: Generator[Any, Any, Any], trap: Trap) -> Generator[Any, Any, Any]:
    """Do as `waits` does, and tell of each wait before it begins."""
    try:
        asked = next(waits)
        while True:
            trap.passed("inside")
            ready = yield asked
            asked = waits.send(ready)
    except StopIteration as ended:
        return ended.value


def spring(step: str, trap: Trap) -> None:
    """Wrap the step's function where it is defined."""
    _watch_waits()
    if step.startswith(ROUND):
        _spring_round(step.removeprefix(ROUND), trap)
        return
    if step in ("Store.find_filters", "TakenBatch.resolve_wide"):
        fan_out.WIDE_FROM = 1  # two matches are very many
    owner, attribute = steps()[step]
    original: Any = getattr(owner, attribute)
    wrap = _around if inspect.iscoroutinefunction(original) or owner is HttpSender else _around_block
    wrap = _around_call if owner in (Attempts, Settler) else wrap
    setattr(owner, attribute, functools.wraps(original)(wrap(original, trap)))


def _spring_round(name: str, trap: Trap) -> None:
    do_round = housekeeping.do_round

    async def doing(connection: Any, round_: Round, sign: Any) -> Any:
        return await (_around(do_round, trap) if round_.name == name else do_round)(connection, round_, sign)

    housekeeping.do_round = doing  # type: ignore[assignment]
    if name == housekeeping.SEALING:
        housekeeping.seal = _around(housekeeping.seal, trap)


def _around(original: Callable[..., Awaitable[Any]], trap: Trap) -> Callable[..., Awaitable[Any]]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        trap.passed("before")
        with _inside(trap):
            result = await original(*args, **kwargs)
        trap.passed("after")
        return result

    return wrapped


def _around_call(original: Callable[..., Any], trap: Trap) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        trap.passed("before")
        result = original(*args, **kwargs)
        trap.passed("after")
        return result

    return wrapped


def _around_block(original: Callable[..., AbstractAsyncContextManager[Any]], trap: Trap) -> Callable[..., Any]:
    @asynccontextmanager
    async def wrapped(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        trap.passed("before")
        with _inside(trap):
            async with original(*args, **kwargs) as value:
                yield value
        trap.passed("after")

    return wrapped


def poison(event_type: str, trap: Trap) -> None:
    """Die whenever an event of this type is about to be sent."""
    original = HttpSender.send
    mark = b'{"type":"%b"' % event_type.encode()

    async def send(self: HttpSender, endpoint: Any, headers: bytes, body: bytes, timeout_seconds: float) -> Any:
        if body.startswith(mark):
            trap.pull()
        return await original(self, endpoint, headers, body, timeout_seconds)

    HttpSender.send = send  # type: ignore[method-assign]


def main() -> None:
    """Set the trap, then be the relay."""
    if name := os.environ.pop("RELAY_TEST_NAMESPACE", ""):
        enter(name)
    point, log = sys.argv[1], Path(sys.argv[2])
    words = point.split(":")
    how = signal.SIGSTOP if words[0] == "stop" else signal.SIGKILL
    if words[0] == "poison":
        poison(words[1], Trap("", 0, log, how))
    else:
        step, when, number = words[-3:]
        spring(step, Trap(when, int(number), log, how))
    del sys.argv[1:3]
    from relay.__main__ import main as relay

    relay()


if __name__ == "__main__":
    main()
