"""Compiled filters by their hash. A hash means one text for ever, so nothing here is ever stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from outbox.subscriptions.filters import RefusedFilter, stored_filter
from relay.store.meaning import is_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.subscriptions.filters import Filter
    from relay.store.store import Store

__all__ = ["CompiledFilters"]

COUNT_MAX = 20_000
UNREADABLE = "its text cannot be read"
TEXT_MAX = 4 * 1024 * 1024  # bytes of text in all; compiled it is some fifteen times as much


class CompiledFilters:
    """The filters that were used last, as many as fit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[bytes, Filter] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    async def find(self, wanted: Mapping[bytes, bytes]) -> dict[bytes, Filter]:
        """Return the filters of these hashes, each with the id of a subscription that has it.

        Those that are not known here are read. One that its subscription has no longer is left out; one that the server
        cannot read gives up on every event.
        """
        missing = [subscription_id for name, subscription_id in wanted.items() if name not in self._known]
        found = {name: self._use(name) for name in wanted if name in self._known}
        if missing:
            found |= await self._read(missing)
        return {name: found.get(name) or RefusedFilter("", UNREADABLE) for name in wanted}

    async def _read(self, ids: Sequence[bytes]) -> dict[bytes, Filter]:
        """Read and compile the filters of these subscriptions; leave out what the server cannot read."""
        try:
            texts = await self._store.read_filters(ids)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            half = len(ids) // 2
            return await self._read(ids[:half]) | await self._read(ids[half:]) if half else {}
        return {name: self._put(name, stored_filter(text)) for name, text in texts.items()}

    def _use(self, name: bytes) -> Filter:
        used = self._known[name] = self._known.pop(name)
        return used

    def _put(self, name: bytes, new: Filter) -> Filter:
        self._known[name] = new
        self._bytes += len(new.text)
        while len(self._known) > COUNT_MAX or (self._bytes > TEXT_MAX and len(self._known) > 1):
            self._bytes -= len(self._known.pop(next(iter(self._known))).text)
        return new
