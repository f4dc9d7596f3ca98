"""Was the order of each key kept? Computed from the writers' logs and the receiver's log, line after line.

A writer draws a number for each event from its key's row, which it holds until it has committed: so the numbers of a
key, from 1 on and without a gap, are the order of its commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Order:
    """What a receiver acknowledged, by key. `broken` must be empty, and so must `missing` in the end."""

    numbers: Mapping[str, tuple[str, int]]  # event id: key and number
    acknowledged: dict[str, int] = field(default_factory=dict)  # key: the last number, in order
    broken: list[str] = field(default_factory=list)
    repeats: int = 0

    @classmethod
    def of(cls, written: Iterable[Mapping[str, Any]], committed: Iterable[str], log: Iterable[Mapping[str, Any]],
           path: str) -> Order:  # fmt: skip
        """Read the lines of the writers' logs and of the receiver's, in which those of one path count."""
        numbers = {event: (key, number) for entry in written for event, (key, number) in entry["numbers"].items()}
        found = cls({event: numbers[event] for event in committed if event in numbers})
        requests: dict[int, str] = {}
        for entry in log:
            if entry["what"] == "received" and entry["path"] == path:
                requests[entry["request"]] = entry["id"]
                found.note_request(entry["id"])
            elif entry["what"] == "answered" and entry["request"] in requests and 200 <= entry["status"] < 300:
                found.note_acknowledged(requests[entry["request"]])
        return found

    def note_request(self, event: str) -> None:
        """An event came: what precedes it in its key was acknowledged before."""
        if event not in self.numbers:
            return
        key, number = self.numbers[event]
        if number > self.acknowledged.get(key, 0) + 1:
            self.broken.append(f"{key}: {number} came, but only {self.acknowledged.get(key, 0)} were acknowledged")

    def note_acknowledged(self, event: str) -> None:
        """The receiver answered 2xx: the first time, this is the next number of its key."""
        if event not in self.numbers:
            return
        key, number = self.numbers[event]
        last = self.acknowledged.get(key, 0)
        if number <= last:
            self.repeats += 1
        elif number == last + 1:
            self.acknowledged[key] = number
        else:
            self.broken.append(f"{key}: {number} acknowledged after {last}")

    @property
    def missing(self) -> int:
        """How many events were not acknowledged in their turn."""
        return len(self.numbers) - sum(self.acknowledged.values())
