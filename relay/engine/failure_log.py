"""Log which endpoints fail, and when they answer again: few lines for each, and few for thousands at once.

What was said of an endpoint is kept on the Endpoint, so that it leaves memory with it. A line has the host of the URL
and nothing else of it: credentials, paths and queries are secrets at many receivers.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from outbox.ids import text_id
from relay.engine.failures import Failures, Line
from relay.engine.log_bursts import LogBursts
from relay.model.outcome import OutcomeKind
from relay.model.verdict import Disable, Hold, VerdictKind

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint
    from relay.model.delivery import Delivery
    from relay.model.outcome import Outcome
    from relay.model.subscription import SubscriptionVersion
    from relay.model.verdict import Verdict

__all__ = ["FailureLog", "host_of"]

log = logging.getLogger("relay.engine")

# These say nothing about the endpoint: this relay could not send, was told to stop, or has no body to send.
NOT_OF_THE_ENDPOINT = frozenset({
    OutcomeKind.LOCAL, OutcomeKind.KEY_UNAVAILABLE, OutcomeKind.ABORTED, OutcomeKind.INTERNAL, OutcomeKind.EVENT_GONE,
    OutcomeKind.STOOD_STILL, OutcomeKind.PAYLOAD_UNREADABLE, OutcomeKind.UNFORMATTED, OutcomeKind.TRANSFORMATION_FAILED,
})  # fmt: skip
ERROR_MAX = 300  # characters


class FailureLog:
    """The lines of one engine: the single ones that LogBursts admits, then one for each thing that the rest met."""

    def __init__(self) -> None:
        self._bursts = LogBursts(self._tell_counted)
        self._counted: dict[Line, dict[bytes, str]] = {}  # by subscription, the class of its failure

    def note(
        self,
        endpoint: Endpoint,
        subscription: SubscriptionVersion,
        delivery: Delivery,
        outcome: Outcome,
        verdict: Verdict,
    ) -> None:
        """Note a failure, or a success of an endpoint that failed. `subscription`: as it was at the attempt.

        An endpoint that is disabled for its answer has a line of its own, when the database has done it.
        """
        if outcome.kind in NOT_OF_THE_ENDPOINT or isinstance(verdict.endpoint, Disable):
            return
        if outcome.kind == OutcomeKind.DELIVERED and not endpoint.failing:
            return
        line, failures = _learn(endpoint, outcome.kind, subscription.url)
        if line is None:
            return
        if self._bursts.admits():
            log.warning("%s", _text(line, failures, subscription, delivery, outcome, verdict))
        else:
            self._counted.setdefault(line, {})[subscription.id] = str(failures.kind)

    def tell(self) -> None:
        """Tell what was counted, and begin anew; also at the end of the process."""
        self._bursts.end()

    def _tell_counted(self) -> None:
        counted, self._counted = self._counted, {}
        for line in Line:
            if found := counted.get(line):
                kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(found.values()).most_common())
                log.warning("and %s other endpoints %s: %s; relay status", f"{len(found):,}", line, kinds)


def _learn(endpoint: Endpoint, kind: OutcomeKind, url: str) -> tuple[Line | None, Failures]:
    """Note what happened on the endpoint; return the line that is due and what there is to say."""
    now = time.monotonic()
    failures = endpoint.failures
    if failures is None:
        failures = endpoint.failures = Failures(kind, url, now)
    if kind == OutcomeKind.DELIVERED:
        line = failures.recover(now)
        endpoint.failing = line is None
        return line, failures
    if endpoint.failing:
        return failures.go_on(kind, url, now), failures
    endpoint.failing = True
    return failures.begin(kind, url, now), failures


def _text(
    line: Line,
    failures: Failures,
    subscription: SubscriptionVersion,
    delivery: Delivery,
    outcome: Outcome,
    verdict: Verdict,
) -> str:
    who = f"{text_id('sub', UUID(bytes=subscription.id))} at {host_of(subscription.url)}"
    past = f"{failures.failed:,} failed attempts in {_duration(time.monotonic() - failures.since)}"
    if line == Line.RECOVERED:
        return f"{who}: answers again, after {past}"
    so_far = "" if line == Line.FAILED else f"; {past}"
    if failures.delivered:
        so_far += f", {failures.delivered:,} delivered"
    often = "; it comes and goes: few lines more in 10 min" if failures.comes_and_goes else ""
    word = {Line.FAILED: "fails", Line.CHANGED: "now fails in another way", Line.STILL: "still fails"}[line]
    number = f"attempt {delivery.attempts} of {len(subscription.schedule_seconds) + 1}"
    reason = f"{outcome.kind}: {_error(outcome, subscription.url)}"
    return f"{who}: {word}: {reason} ({number}); {_next(verdict)}{so_far}{often}"


def _error(outcome: Outcome, url: str) -> str:
    """Return why it failed, in one line and without the URL."""
    if outcome.status is not None:
        return f"status {outcome.status}" + (f", {outcome.reading.reason}" if outcome.reading else "")
    text = " ".join((outcome.error or "no more is known").replace(url, host_of(url)).split())
    target = url.partition("://")[2].partition("/")[2]
    if target:
        text = text.replace(f"/{target}", "/…")
    return text if len(text) <= ERROR_MAX else f"{text[:ERROR_MAX]}…"


def _next(verdict: Verdict) -> str:
    """Say when this delivery is tried next."""
    if verdict.kind == VerdictKind.DEAD:
        return "no more tries of this delivery"
    hold = verdict.endpoint.seconds if isinstance(verdict.endpoint, Hold) else 0.0
    return f"next try in {_duration(max(verdict.wait_seconds, hold))}"


def host_of(url: str) -> str:
    """Return host and port of a URL, and never its credentials, path or query; "?" when it is none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "?"
    except ValueError:
        return "?"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
