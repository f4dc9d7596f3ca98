"""Say where the due rows of each subscription begin, to skip the dead index entries of a held snapshot in claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.store.claims import FIRST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.store.claims import Mark
    from relay.store.rows import Leased

__all__ = ["DueMarks"]

SLOW_SECONDS = 0.025  # a claim without marks is slow from here on: it reads 100,000 dead entries, or the link is slow
FULL_LOOK_SHARE = 10  # slow claims without marks may take a tenth of the time
LONGEST_SECONDS = 30.0  # of a mark: a claim may also have been slow because the network stood still


class DueMarks:
    """The first row that the last claim brought of each subscription, where a claim without this mark was slow.

    What became due below a mark, as an urgent event does, is found by a claim without it: the next one, where such
    claims are quick, and otherwise after FULL_LOOK_SHARE times as long as the last one took, LONGEST_SECONDS at most.
    """

    def __init__(self) -> None:
        self._marks: dict[bytes, tuple[Mark, float]] = {}  # and the time at which it is forgotten
        self._last_end = 0.0

    def __len__(self) -> int:
        return len(self._marks)

    def of(self, subscription_ids: Sequence[bytes], now: float) -> list[Mark]:
        """Return where a claim looks for the rows of each of these subscriptions."""
        if now >= self._last_end:
            self._marks.clear()
            return [FIRST] * len(subscription_ids)
        known = (self._marks.get(subscription_id, (FIRST, now)) for subscription_id in subscription_ids)
        return [mark if now < end else FIRST for mark, end in known]

    def forget(self, subscription_id: bytes) -> None:
        """Look at everything of this one the next time: something is due there that may lie below its mark."""
        self._marks.pop(subscription_id, None)

    def clear(self) -> None:
        """Look at everything the next time: another database has come, and its rows may be due earlier."""
        self._marks.clear()

    def note_claim(self, rows: Sequence[Leased], marks: Mapping[bytes, Mark], began: float, ended: float) -> None:
        """Note what a claim with these marks brought, and how long it took."""
        is_slow = ended - began > SLOW_SECONDS
        if not is_slow and not self._marks:
            return
        for row in reversed(rows):  # the first of each subscription is noted last
            former = self._marks.get(row.subscription_id)
            if row.due is None:
                continue
            if marks[row.subscription_id] is FIRST and is_slow:
                end = ended + min(FULL_LOOK_SHARE * (ended - began), LONGEST_SECONDS)
            elif marks[row.subscription_id] is not FIRST and former is not None:
                end = former[1]
            else:
                continue
            self._marks[row.subscription_id] = ((row.due, row.id), end)
            self._last_end = max(self._last_end, end)
