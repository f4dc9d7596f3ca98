"""Decide how a fan_out that is behind shares its take between tenants and priorities; when it is not, it takes all.

Where events have neither a tenant nor a priority there is nothing to share, and a take is of the oldest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from relay.store.pending_shares import Shares

if TYPE_CHECKING:
    from relay.store.fan_out import TakenBatch

__all__ = ["TakeShares"]

GROUPED_FOR_SECONDS = 3600.0  # so long after the last event with a tenant or priority there may be more of them
BLANK_AGAIN_SECONDS = 5.0  # events without tenant whose transaction committed late are looked for after this time


class TakeShares:
    """One engine's shares. `grouped`: whether events lately had a tenant or a priority."""

    def __init__(self) -> None:
        self._behind = False
        self._grouped_until = 0.0
        self._after_tenant = ""
        self._blank_after = -1
        self._blank_anew_at = 0.0

    @property
    def grouped(self) -> bool:
        """Whether events lately had a tenant or a priority: then nobody's may wait long for the others'."""
        return time.monotonic() < self._grouped_until

    def note_groups(self) -> None:
        """Note that some pending event has a tenant or a priority."""
        self._grouped_until = time.monotonic() + GROUPED_FOR_SECONDS

    def choose(self, limit: int) -> Shares | None:
        """Return how to share a take of `limit` events; None: take the oldest, since that is all or all are alike."""
        if not self._behind or limit < 2 or not self.grouped:
            return None
        now = time.monotonic()
        if now >= self._blank_anew_at:
            self._blank_after, self._blank_anew_at = -1, now + BLANK_AGAIN_SECONDS
        return Shares(limit // 2, self._after_tenant, limit // 8, self._blank_after)

    def note(self, batch: TakenBatch, limit: int, up_to: int, shares: Shares | None) -> None:
        """Learn from a take of at most `limit` events up to this number."""
        self._behind = len(batch.taken) == limit or (shares is not None and bool(batch.taken))
        if any(taken.tenant or taken.priority for taken in batch.taken):
            self.note_groups()
        if shares is None:
            return
        self._after_tenant = batch.last_tenant or ""
        blank = [taken.seq for taken in batch.taken if not (taken.tenant or taken.priority)]
        self._blank_after = max(blank) if blank else up_to
