"""Log what comes in bursts: a few lines at once, the rest counted and told when the window of ten seconds ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_LINES", "WINDOW_SECONDS", "LogBursts"]

WINDOW_SECONDS = 10.0
MOST_LINES = 20
"""Of single things in a window."""


class LogBursts:
    """Says which of many things get a line of their own: MOST_LINES of them in a window, which begins with the first.

    `tell_rest` logs what its owner counted meanwhile, and forgets it.
    """

    def __init__(self, tell_rest: Callable[[], None]) -> None:
        self._tell_rest = tell_rest
        self._shown = 0
        self._end: asyncio.TimerHandle | None = None

    def admits(self) -> bool:
        """Tell whether the next thing gets a line; otherwise its owner counts it. Call inside a running loop."""
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self.end)
        self._shown += 1
        return self._shown <= MOST_LINES

    def end(self) -> None:
        """End the window, tell what was counted, and begin anew; also at the end of the process."""
        if self._end is not None:
            self._end.cancel()
        self._shown, self._end = 0, None
        self._tell_rest()
