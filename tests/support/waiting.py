"""Waiting for something to become true, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

_POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], Any], *, timeout_seconds: float = 20, message: str = "") -> Any:
    """Poll `condition` until it returns something true, and return that; fail after `timeout_seconds`."""
    give_up = time.monotonic() + timeout_seconds
    while not (answer := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(message or f"not so within {timeout_seconds} s: {_name(condition)}")
        time.sleep(_POLL_SECONDS)
    return answer


async def await_until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any],
    *,
    timeout_seconds: float = 20,
    message: str = "",
) -> Any:
    """Like `wait_until` on an event loop; `condition` is a plain or an async function."""
    give_up = time.monotonic() + timeout_seconds
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > give_up:
            raise AssertionError(message or f"not so within {timeout_seconds} s: {_name(condition)}")
        await asyncio.sleep(_POLL_SECONDS)


def _name(condition: Callable[..., Any]) -> str:
    return getattr(condition, "__qualname__", repr(condition))
