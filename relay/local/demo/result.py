"""The demo's result, judged from what the shop and the receiver wrote down, and when the relay was killed.

committed = received          every committed event arrived, and nothing that the shop did not record
rolled back = never received  no event of a rolled-back transaction ever arrived
signatures                    every request that came was signed with the subscription's secret
same bytes                    an event that came again had the same body
duplicates explained          whenever an event came again, its earlier request had failed: the receiver
                              itself answered with an error, cut the connection or was late; or the relay
                              was killed before it could note the answer
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Clause", "DemoResult", "Kill", "ReceiverLog", "Request", "ShopLog", "judge_run"]

SETTLE_WINDOW_SECONDS = 0.5
"""How long before its death the relay may have got an answer that it had not noted in the database yet."""

_LATE = 0.5  # of the timeout, since the relay's clock started first: before it connected and sent


@dataclass(frozen=True, slots=True)
class Kill:
    """When the relay was killed and when the next one was started, both time.monotonic()."""

    at: float
    next_start: float


@dataclass(slots=True)
class ShopLog:
    """What became of each event, by event id; and when, in Unix time."""

    committed: dict[str, float] = field(default_factory=dict)
    rolled_back: dict[str, float] = field(default_factory=dict)

    def read(self, line: str) -> None:
        """Take in one line of the shop's log: Unix time, event id, `committed` or `rolled back`."""
        at, event_id, outcome = line.rstrip("\n").split(" ", 2)
        {"committed": self.committed, "rolled back": self.rolled_back}[outcome][event_id] = float(at)


@dataclass(slots=True)
class Request:
    """One verified request. `at` is Unix time, the other times are time.monotonic()."""

    event_id: str
    body: str
    at: float
    received: float
    connected: float
    plan: str
    end: str = "open"
    ended: float | None = None
    status: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether it was answered with 2xx, in time or not."""
        return self.end == "answered" and 200 <= self.status < 300


@dataclass(slots=True)
class ReceiverLog:
    """What the receiver saw: verified requests by number, and reasons for which others were refused."""

    port: int = 0
    timeout_seconds: float = 0.0
    requests: dict[int, Request] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    open: set[int] = field(default_factory=set)

    def read(self, line: str) -> Request | None:
        """Take in one line of the log (JSON, see relay.local.demo.receiver); return the request it is about."""
        entry = json.loads(line)
        what = entry["what"]
        if what == "listening":
            self.port, self.timeout_seconds = entry["port"], entry["timeout_seconds"]
        elif what == "refused":
            self.refused.append(entry["reason"])
        elif what == "received":
            self.open.add(entry["request"])
            request = Request(
                event_id=entry["id"],
                body=entry["body"],
                at=entry["at"],
                received=entry["clock"],
                connected=entry["connected"],
                plan=entry["plan"],
            )
            self.requests[entry["request"]] = request
            return request
        else:
            request = self.requests[entry["request"]]
            request.end, request.ended, request.status = what, entry["clock"], entry.get("status", 0)
            self.open.discard(entry["request"])
            return request
        return None


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause: whether it held, the figures, and the ids (or reasons) that speak against it."""

    name: str
    ok: bool
    figures: str
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All clauses; `ok` only when each one held."""

    clauses: tuple[Clause, ...]

    @property
    def ok(self) -> bool:
        """Whether every clause held."""
        return all(clause.ok for clause in self.clauses)


def judge_run(shop_lines: Iterable[str], receiver_lines: Iterable[str], kills: Sequence[Kill]) -> DemoResult:
    """Judge a finished run by the lines of the shop's and of the receiver's log."""
    shop, receiver = ShopLog(), ReceiverLog()
    for line in shop_lines:
        shop.read(line)
    for line in receiver_lines:
        receiver.read(line)
    by_event: dict[str, list[Request]] = defaultdict(list)
    for request in receiver.requests.values():
        by_event[request.event_id].append(request)
    return DemoResult(
        (
            _committed(shop, by_event),
            _rolled_back(shop, by_event),
            _signatures(receiver),
            _same_bytes(by_event),
            _duplicates(by_event, kills, receiver.timeout_seconds),
        )
    )


def _committed(shop: ShopLog, by_event: dict[str, list[Request]]) -> Clause:
    missing = [f"{event_id} never arrived" for event_id in shop.committed.keys() - by_event]
    strange = [
        f"{event_id} is not the shop's"
        for event_id in by_event.keys() - shop.committed.keys() - shop.rolled_back.keys()
    ]
    arrived = len(shop.committed) - len(missing)
    against = (*missing, *strange)
    if not shop.committed:
        against = ("the shop committed nothing",)
    return Clause(
        "committed = received",
        not against,
        f"{len(shop.committed):,} committed, {arrived:,} received",
        against,
    )


def _rolled_back(shop: ShopLog, by_event: dict[str, list[Request]]) -> Clause:
    leaked = tuple(f"{event_id} arrived" for event_id in shop.rolled_back.keys() & by_event)
    figures = f"{len(shop.rolled_back):,} rolled back, {len(leaked):,} received"
    return Clause("rolled back = never received", not leaked, figures, leaked)


def _signatures(receiver: ReceiverLog) -> Clause:
    figures = f"{len(receiver.requests):,} requests verified, {len(receiver.refused):,} refused"
    return Clause("signatures", not receiver.refused, figures, tuple(receiver.refused))


def _same_bytes(by_event: dict[str, list[Request]]) -> Clause:
    changed = tuple(
        f"{event_id} came with different bodies"
        for event_id, requests in by_event.items()
        if len({request.body for request in requests}) > 1
    )
    again = sum(len(requests) > 1 for requests in by_event.values())
    return Clause("same bytes", not changed, f"{again:,} events came more than once", changed)


def _duplicates(by_event: dict[str, list[Request]], kills: Sequence[Kill], timeout_seconds: float) -> Clause:
    reasons: Counter[str] = Counter()
    against = []
    for event_id, requests in by_event.items():
        for earlier, later in pairwise(sorted(requests, key=lambda request: request.received)):
            reason = _why_again(earlier, later, kills, timeout_seconds)
            if reason is None:
                against.append(f"{event_id} came again after {earlier.end} {earlier.status or ''}".rstrip())
            else:
                reasons[reason] += 1
    figures = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "none"
    return Clause("duplicates explained", not against, figures, tuple(against))


def _why_again(earlier: Request, later: Request, kills: Sequence[Kill], timeout_seconds: float) -> str | None:
    """Return why the relay was right to send again, or None where it was not."""
    if earlier.end == "answered" and not earlier.succeeded:
        return f"answered {earlier.status}"
    if earlier.end == "cut":
        return "cut off"
    for kill in kills:
        if earlier.connected < kill.next_start and kill.at < later.received:
            if earlier.ended is None or earlier.ended >= kill.at:
                return "in flight at the kill"
            if earlier.ended >= kill.at - SETTLE_WINDOW_SECONDS:
                return f"answered in the {SETTLE_WINDOW_SECONDS} s before it"
    if earlier.ended is not None and earlier.ended - earlier.received >= _LATE * timeout_seconds:
        return "late"
    return None
