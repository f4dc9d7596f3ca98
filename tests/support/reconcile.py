"""What became of every event, computed only from logs and the final state of the database.

Logs: the application's (written after COMMIT or ROLLBACK returned), the receiver's (written before and after each
answer), the incidents' (kills of relays, outages of the database). The relays' own words count for nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Pair = tuple[str, str]  # path of the subscription, id of the event
AT_A_STOP = "in flight or unsettled at the stop of its relay"


@dataclass
class Receipt:
    """One request as the receiver saw it; a time that never came is None."""

    path: str
    event_id: str
    body: str
    at: float
    connection: int
    port: int  # the sender's
    answered_at: float | None = None
    status: int | None = None
    closed_at: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Stop:
    """When a relay was stopped (SIGSTOP), and the ports of the connections that it had."""

    at: float
    ports: frozenset[int]


@dataclass
class Incidents:
    """When relays were killed or stopped, and from when to when the database was away.

    `settle_seconds` is what an answer may take to be settled on a busy machine; `kernel_seconds` how long after a kill
    or a stop the receiver may still read what the kernel held, and after a kill learn that the connection is closed.
    """

    kills: list[float] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    settle_seconds: float = 0.5
    kernel_seconds: float = 0.5

    @classmethod
    def of(cls, log: Iterable[Mapping[str, Any]], **seconds: float) -> Incidents:
        """Read a log of `killed`, `stopped`, `database away` and `database back`."""
        found, away = cls(**seconds), 0.0
        for entry in log:
            if entry["what"] == "killed":
                found.kills.append(entry["at"])
            elif entry["what"] == "stopped":
                found.stops.append(Stop(entry["at"], frozenset(entry["ports"])))
            elif entry["what"] == "database away":
                away = entry["at"]
            else:
                found.outages.append((away, entry["at"]))
        return found

    def explain(self, receipt: Receipt, timeout_seconds: float) -> str | None:
        """Say why a request may have been repeated, or None."""
        if receipt.answered_at is not None and not receipt.accepted:
            return "answered with a failure"
        if receipt.answered_at is None or receipt.answered_at - receipt.at > timeout_seconds:
            return "not answered in time"
        if self.kill_behind(receipt) is not None:
            return "in flight or unsettled at the kill of its relay"
        if self._stopped_before_settlement(receipt, receipt.answered_at):
            return AT_A_STOP
        return None

    def kill_behind(self, receipt: Receipt) -> float | None:
        """When the relay that sent it was killed, if that excuses a repeat: a kill closes all of its connections."""
        if receipt.closed_at is None or receipt.answered_at is None:
            return None
        began, settled_by = receipt.at - self.kernel_seconds, self._settled_by(receipt.answered_at)
        near = [kill for kill in self.kills if abs(receipt.closed_at - kill) <= self.kernel_seconds]
        return next((kill for kill in near if began <= kill <= settled_by), None)

    def _stopped_before_settlement(self, receipt: Receipt, answered_at: float) -> bool:
        """Tell whether the relay that sent it was stopped after it sent and before it could settle the answer."""
        began, settled_by = receipt.at - self.kernel_seconds, self._settled_by(answered_at)
        return any(receipt.port in stop.ports and began <= stop.at <= settled_by for stop in self.stops)

    def _settled_by(self, answered_at: float) -> float:
        settled_by = answered_at + self.settle_seconds
        for away, back in sorted(self.outages):
            if answered_at <= back and settled_by >= away:
                settled_by = max(settled_by, back + self.settle_seconds)
        return settled_by


@dataclass
class Reconciliation:
    """The verdict. All but `duplicates`, `dead` and `cancelled` must be empty for `clean`."""

    pairs: int
    lost: list[Pair]
    unexpected: list[Pair]
    refused: int
    different_bodies: list[Pair]
    unexplained: list[Pair]
    duplicates: Counter[str]
    dead: int
    cancelled: int  # by hand, and not delivered all the same
    longest_unsettled_seconds: float  # from an answer to the kill that excuses the repeat

    @property
    def clean(self) -> bool:
        return not (self.lost or self.unexpected or self.refused or self.different_bodies or self.unexplained)

    def table(self) -> str:
        """The verdict as lines of text."""
        lines = {
            "event × subscription": self.pairs,
            "lost": len(self.lost),
            "unexpected": len(self.unexpected),
            "signatures refused": self.refused,
            "bodies that differ": len(self.different_bodies),
            "dead letters": self.dead,
            "cancelled": self.cancelled,
            "duplicates": sum(self.duplicates.values()),
            **{f"  {reason}": count for reason, count in sorted(self.duplicates.items())},
            "duplicates unexplained": len(self.unexplained),
            "ms from answer to kill, at most": round(1000 * self.longest_unsettled_seconds),
        }
        return "\n".join(f"{name:48}{count:>10,}" for name, count in lines.items())


def receipts_of(log: Iterable[Mapping[str, Any]]) -> tuple[list[Receipt], int]:
    """Return the verified requests in order, a batch as itself, and how many did not verify."""
    found: dict[int, Receipt] = {}
    closed: dict[int, float] = {}
    refused = 0
    for entry in log:
        if entry["what"] == "received":
            facts = (entry[name] for name in ("path", "id", "body", "at", "connection", "port"))
            found[entry["request"]] = Receipt(*facts)
        elif entry["what"] == "closed":
            closed[entry["connection"]] = entry["at"]
        elif entry["what"] == "answered":
            found[entry["request"]].answered_at = entry["at"]
            found[entry["request"]].status = entry["status"]
        refused += entry["what"] == "refused"
    for receipt in found.values():
        receipt.closed_at = closed.get(receipt.connection)
    return list(found.values()), refused


def members_of(receipts: Iterable[Receipt], log: Iterable[Mapping[str, Any]]) -> list[Receipt]:
    """Return these receipts with each of a batch's events in place of the batch."""
    members = {entry["body"]: entry["events"] for entry in log if entry["what"] == "members"}
    return [
        replace(one, event_id=event_id, body=body)
        for one in receipts
        for event_id, body in members.get(one.body, [(one.event_id, one.body)])
    ]


def committed_events(log: Iterable[Mapping[str, Any]], business_rows: set[str]) -> set[str]:
    """Return the ids of committed events; where COMMIT was cut off, the business row decides."""
    found: set[str] = set()
    for entry in log:
        ids = {event_id for event_id, _ in entry["events"]}
        if entry["what"] == "committed":
            found |= ids
        elif entry["what"] == "unknown":
            found |= ids & business_rows
    return found


def _by_pair(receipts: Iterable[Receipt]) -> dict[Pair, list[Receipt]]:
    found: defaultdict[Pair, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        found[receipt.path, receipt.event_id].append(receipt)
    return found


def reconcile(
    wanted: set[Pair],
    receiver_log: Sequence[Mapping[str, Any]],
    incidents: Incidents,
    *,
    dead: frozenset[Pair] = frozenset(),
    cancelled: frozenset[Pair] = frozenset(),
    timeout_seconds: float = 15.0,
) -> Reconciliation:
    """Compare what had to arrive with what did.

    Args:
        wanted: every committed event × matching subscription.
        receiver_log: the receiver's.
        incidents: what may have caused repeats.
        dead: pairs that are dead letters in the database: neither lost nor delivered.
        cancelled: pairs that a person cancelled, by the database. One that was on the wire may have been delivered.
        timeout_seconds: of the subscriptions.
    """
    requests, refused = receipts_of(receiver_log)
    by_pair = _by_pair(members_of(requests, receiver_log))
    delivered = {pair for pair, came in by_pair.items() if any(receipt.accepted for receipt in came)}
    duplicates: Counter[str] = Counter()
    unexplained: list[Pair] = []
    longest = 0.0
    for pair, came in by_pair.items():
        for earlier in came[:-1]:
            reason = incidents.explain(earlier, timeout_seconds)
            if reason is None:
                unexplained.append(pair)
            duplicates[reason or "unexplained"] += 1
            if (kill := incidents.kill_behind(earlier)) is not None and earlier.answered_at is not None:
                longest = max(longest, kill - earlier.answered_at)
    return Reconciliation(
        pairs=len(wanted),
        lost=sorted(wanted - delivered - dead - cancelled),
        unexpected=sorted(set(by_pair) - wanted),
        refused=refused,
        different_bodies=sorted(
            {
                pair
                for came_as in (by_pair, _by_pair(requests))
                for pair, came in came_as.items()
                if len({r.body for r in came}) > 1
            }
        ),
        unexplained=unexplained,
        duplicates=duplicates,
        dead=len(dead),
        cancelled=len(cancelled - delivered),
        longest_unsettled_seconds=longest,
    )
