"""What the log said of an endpoint's failures, and whether another line is due. Pure: the time is passed in.

A line is due at the first failure, at each change, at the recovery, and for one that keeps failing once in ten
minutes. An endpoint that comes and goes with each attempt has LINES_EACH lines in ten minutes; then it counts as
failing until they are over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.model.outcome import OutcomeKind

__all__ = ["LINES_EACH", "PERIOD_SECONDS", "Failures", "Line"]

PERIOD_SECONDS = 600.0
LINES_EACH = 6


class Line(StrEnum):
    """What a line says of an endpoint; as in "and 12 other endpoints …"."""

    FAILED = "failed"
    CHANGED = "now fail in another way"
    STILL = "still fail"
    RECOVERED = "answer again"


@dataclass(slots=True)
class Failures:
    """The failures of one endpoint since the log said that it fails. Times are monotonic."""

    kind: OutcomeKind
    url: str
    since: float
    failed: int = 0
    delivered: int = 0  # meanwhile: more than none only when it comes and goes
    said_at: float = 0.0
    period_ends: float = 0.0
    lines: int = 0  # in this period

    def begin(self, kind: OutcomeKind, url: str, now: float) -> Line | None:
        """Note the first failure of an endpoint that was well."""
        self.kind, self.url, self.since, self.failed, self.delivered = kind, url, now, 1, 0
        return self._due(Line.FAILED, now)

    def go_on(self, kind: OutcomeKind, url: str, now: float) -> Line | None:
        """Note another failure; return the line that is due, if any."""
        changed = (kind, url) != (self.kind, self.url)
        self.kind, self.url, self.failed = kind, url, self.failed + 1
        if now >= self.said_at + PERIOD_SECONDS:
            return self._due(Line.STILL, now)
        return self._due(Line.CHANGED, now) if changed else None

    def recover(self, now: float) -> Line | None:
        """Note a success. None: too many lines told of it, so that it counts as failing still."""
        self.delivered += 1
        return self._due(Line.RECOVERED, now, LINES_EACH - 1)

    @property
    def comes_and_goes(self) -> bool:
        """Whether its recovery is told only when the period is over."""
        return self.lines >= LINES_EACH - 1

    def _due(self, line: Line, now: float, most: int = LINES_EACH) -> Line | None:
        if now >= self.period_ends:
            self.period_ends, self.lines = now + PERIOD_SECONDS, 0
        if self.lines >= most:
            return None
        self.lines, self.said_at = self.lines + 1, now
        return line
