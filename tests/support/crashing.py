"""A relay that ends itself with SIGKILL (or stops itself) at a chosen step of the engine.

`python -m tests.support.crashing 'Store.settle:after:1' LOG run …` runs `relay run …` and dies before or after the n-th
call of that step, having written to LOG when it was `killed`. `poison:TYPE` dies whenever an event of that type is
about to be sent; `stop:Store.…:before:1` writes that it was `stopped` and sends itself SIGSTOP instead. The steps are
what the engine's code has; nobody lists them. Where RELAY_TEST_NAMESPACE names a network namespace, it runs in there.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from relay.engine import fan_out
from relay.engine.sending import Sending
from relay.http.sender import HttpSender
from relay.store.fan_out import TakenBatch
from relay.store.store import Store
from tests.support.incidents import connected_ports, note


def steps() -> dict[str, tuple[type, str]]:
    """Every public coroutine of the engine's store and of the sender, and the attempt itself."""
    found = {
        f"{owner.__name__}.{attribute}": (owner, attribute)
        for owner in [Store, TakenBatch, HttpSender]
        for attribute, value in vars(owner).items()
        if not attribute.startswith("_") and _is_step(value)
    }
    return found | {"Sending.attempt": (Sending, "attempt")}


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


def spring(step: str, trap: Trap) -> None:
    """Wrap the step's function where it is defined."""
    if step in ("TakenBatch.is_plain", "TakenBatch.resolve_wide"):
        fan_out.WIDE_FROM = 1  # two matches are very many
    owner, attribute = steps()[step]
    original: Any = getattr(owner, attribute)
    wrap = _around if inspect.iscoroutinefunction(original) else _around_block
    setattr(owner, attribute, functools.wraps(original)(wrap(original, trap)))


def _around(original: Callable[..., Awaitable[Any]], trap: Trap) -> Callable[..., Awaitable[Any]]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        trap.passed("before")
        result = await original(*args, **kwargs)
        trap.passed("after")
        return result

    return wrapped


def _around_block(original: Callable[..., AbstractAsyncContextManager[Any]], trap: Trap) -> Callable[..., Any]:
    @asynccontextmanager
    async def wrapped(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        trap.passed("before")
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


def enter_namespace(path: Path) -> None:
    """Move this process to a network namespace; os.setns comes with Python 3.12."""
    descriptor = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    os.close(descriptor)


def main() -> None:
    """Set the trap, then be the relay."""
    if name := os.environ.pop("RELAY_TEST_NAMESPACE", ""):
        enter_namespace(Path("/var/run/netns", name))
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
