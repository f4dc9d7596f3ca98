"""Which rows go together in a batch: pure, from what a claim has locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from relay.store.fan_out import new_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["BATCH_BYTES", "Candidate", "Group", "full_batches", "group"]

BATCH_BYTES = 512 * 1024
"""Of the payloads of a batch; one that is larger alone goes alone."""


class Candidate(NamedTuple):
    """A row that this claim has locked.

    weight: bytes of its payload. size: of its batch, when that was made. age: seconds since it became due.
    """

    id: bytes
    event_seq: int
    attempts: int
    weight: int
    batch: bytes | None
    size: int | None
    crashes: int
    age: float


class Group(NamedTuple):
    """A batch: its id, and its rows in the order of its body."""

    id: bytes
    rows: list[Candidate]

    @property
    def weight(self) -> int:
        """How many bytes the payloads have."""
        return sum(row.weight for row in self.rows)


def group(
    first: Sequence[Candidate],
    members: Mapping[bytes, Sequence[Candidate]],
    counts: Mapping[bytes, int],
    *,
    most: int,
    limit: int,
    byte_budget: int,
    wait_seconds: float,
) -> list[Group]:
    """Return the batches to lease, the oldest first.

    Args:
        first: what is due, the oldest first.
        members: what this claim has locked of the batches that stand in these.
        counts: how many rows each of those batches has.
        most: batches at most.
        limit: rows of a new batch.
        byte_budget: of all; the first batch may have more.
        wait_seconds: how long the oldest of a new batch waits until the batch is full.
    """
    found: list[Group] = []
    left = byte_budget
    for one in _in_order(first, members, counts, limit, wait_seconds):
        if len(found) == most or (found and one.weight > left):
            break
        left -= one.weight
        found.append(one)
    return found


def _in_order(
    first: Sequence[Candidate],
    members: Mapping[bytes, Sequence[Candidate]],
    counts: Mapping[bytes, int],
    limit: int,
    wait_seconds: float,
) -> Iterator[Group]:
    seen: set[bytes] = set()
    fresh = [row for row in first if row.batch is None]
    for row in first:
        if row.batch is None:
            if fresh and row is fresh[0]:
                count, full = _fill([one.weight for one in fresh[: limit + 1]], limit)
                taken, fresh = fresh[:count], fresh[count:]
                if full or taken[0].age >= wait_seconds:
                    yield _made(new_ids(1)[0], taken)
        elif row.batch not in seen:
            seen.add(row.batch)
            rows = members.get(row.batch, ())
            if rows and len(rows) == counts.get(row.batch):  # else another has some of them, and settles them
                yield _made(row.batch if len(rows) == rows[0].size else new_ids(1)[0], rows)


def full_batches(weights: Sequence[int], limit: int) -> Iterator[range]:
    """Return which rows, by their places, make full batches: the first ones the first, and so on; the last are left."""
    begin = 0
    while True:
        count, full = _fill(weights[begin : begin + limit + 1], limit)
        if not full:
            return
        yield range(begin, begin + count)
        begin += count


def _fill(weights: Sequence[int], limit: int) -> tuple[int, bool]:
    """Return how many of the first rows, of these bytes, fit into one batch, and whether it is full."""
    total = 0
    for count, weight in enumerate(weights):
        total += weight
        if count == limit or (count and total > BATCH_BYTES):
            return count, True
    return len(weights), len(weights) == limit


def _made(identity: bytes, rows: Sequence[Candidate]) -> Group:
    return Group(identity, sorted(rows, key=lambda row: (row.event_seq, row.id)))
