"""Compiled filters by their hash. A hash means one text for ever, so nothing here is ever stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from outbox.subscriptions.filters import Filter, RefusedFilter, stored_filter
from relay.store.postgres_errors import is_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outbox.subscriptions.filters import Answer, FilteredEvent
    from relay.store.store import Store

__all__ = ["CompiledFilters"]

COUNT_MAX = 20_000
TEXT_MAX = 4 * 1024 * 1024  # bytes of text in all; compiled it is some fifteen times as much
READ_AT_ONCE = 1000  # texts
_UNREADABLE = RefusedFilter("", "its text cannot be read")


class _Folded(Filter):
    """A filter that is compiled each time it is asked: a quarter of a compiled one's size, for those that are many."""

    __slots__ = ()

    def __init__(self, text: str, paths: dict[tuple[str, ...], tuple[str, ...]]) -> None:
        self.text = text
        self.equality = stored_filter(text).equality
        if self.equality is not None:
            path, value = self.equality
            self.equality = (paths.setdefault(path, path), value)

    def answer(self, event: FilteredEvent) -> Answer:
        """Ask it about an event."""
        return stored_filter(self.text).answer(event)


class CompiledFilters:
    """The filters that were used last, as many as fit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[bytes, Filter] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    async def find(self, wanted: Mapping[bytes, bytes], known: Mapping[bytes, Filter]) -> dict[bytes, Filter]:
        """Return the filters of these hashes, each with the id of a subscription that has it.

        Those that are not `known`, and not known here, are read. One that its subscription has no longer is left out:
        whoever has it as well is asked for it by the next take. One that the server cannot read gives up on this event,
        and is read again for the next. More than COUNT_MAX are folded.
        """
        found = {name: known[name] for name in wanted if name in known and known[name] is not _UNREADABLE}
        found |= {name: self._use(name) for name in wanted if name not in found and name in self._known}
        names = {subscription_id: name for name, subscription_id in wanted.items() if name not in found}
        missing, unreadable = list(names), set[bytes]()
        paths: dict[tuple[str, ...], tuple[str, ...]] = {}
        for at in range(0, len(missing), READ_AT_ONCE):
            for name, text in (await self._read(missing[at : at + READ_AT_ONCE], unreadable)).items():
                found[name] = _Folded(text, paths) if len(wanted) > COUNT_MAX else self._put(name, stored_filter(text))
        found |= {names[subscription_id]: _UNREADABLE for subscription_id in unreadable}
        return {name: found[name] for name in wanted if name in found}

    async def _read(self, ids: Sequence[bytes], unreadable: set[bytes]) -> dict[bytes, str]:
        """Read the filters of these subscriptions; note those whose filter the server cannot read."""
        try:
            return await self._store.read_filters(ids)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
        if len(ids) == 1:
            unreadable.update(ids)
            return {}
        half = len(ids) // 2
        return await self._read(ids[:half], unreadable) | await self._read(ids[half:], unreadable)

    def _use(self, name: bytes) -> Filter:
        used = self._known[name] = self._known.pop(name)
        return used

    def _put(self, name: bytes, new: Filter) -> Filter:
        self._known[name] = new
        self._bytes += len(new.text)
        while len(self._known) > COUNT_MAX or (self._bytes > TEXT_MAX and len(self._known) > 1):
            self._bytes -= len(self._known.pop(next(iter(self._known))).text)
        return new
