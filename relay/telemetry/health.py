"""Answers to /live, /ready and /metrics: plain functions to bytes, for the listener of `relay run` and for any server.

They may wait for the database: call them in a thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.telemetry.gauges import Reading

__all__ = ["Answer", "Health"]

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, the type of its content, and its body."""

    status: int
    content_type: str
    body: bytes


class Health:
    """The three answers of one process, or of the parent of several.

    Args:
        read: returns the last reading of the database; it may read it anew.
        render: returns the metrics as text; None where there are none (501).
        is_alive: tells whether this process, or any of its children, works.
        max_due_seconds: ready only while nothing has been due for longer; 0: whatever is due.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        render: Callable[[], bytes] | None,
        *,
        is_alive: Callable[[], bool] = lambda: True,
        max_due_seconds: float = 0,
    ) -> None:
        self._read = read
        self._render = render
        self._is_alive = is_alive
        self._max_due_seconds = max_due_seconds

    def answer(self, path: str) -> Answer:
        """Return the answer to GET of this path, 404 for others."""
        answers = {"/live": self.live, "/ready": self.ready, "/metrics": self.metrics}
        if path not in answers:
            return _document(404, {"error": "there are /live, /ready and /metrics"})
        return answers[path]()

    def live(self) -> Answer:
        """Return 200 as long as this process works; it asks nobody."""
        alive = self._is_alive()
        return _document(200 if alive else 503, {"live": alive})

    def ready(self) -> Answer:
        """Return 200 if the database answers, its schema is known, and nothing has been due for too long; else 503."""
        reading = self._read()
        if reading.gauges is None:
            return _document(503, {"ready": False, "reason": reading.error})
        age = reading.gauges.oldest_due_seconds
        if self._max_due_seconds and age > self._max_due_seconds:
            reason = f"due for {age:.0f} s, more than ready_max_due_seconds ({self._max_due_seconds:g})"
            return _document(503, {"ready": False, "reason": reason, "oldest_due_seconds": round(age, 3)})
        return _document(200, {"ready": True, "oldest_due_seconds": round(age, 3)})

    def metrics(self) -> Answer:
        """Return all metrics in Prometheus' text format."""
        if self._render is None:
            return _document(501, {"error": "metrics need prometheus-client: install outbox-relay[metrics]"})
        return Answer(200, CONTENT_TYPE, self._render())


def _document(status: int, value: dict[str, object]) -> Answer:
    return Answer(status, _JSON, json.dumps(value).encode() + b"\n")
