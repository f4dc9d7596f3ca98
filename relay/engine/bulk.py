"""Bulk operations, in the engine: a part of each second, put back what an operation wants, at its rate."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from outbox.ids import text_id
from outbox.subscriptions.filters import Answer, stored_filter
from relay.store.bulk import BACKLOG, BACKLOG_SECONDS, LEASE_SECONDS
from relay.store.bulk_pages import BATCH, LOOKED_AT
from relay.store.postgres_errors import Meaning, meaning_of, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from relay.engine.lanes import Looker
    from relay.store.bulk_pages import Found, Page, Work
    from relay.store.store import Store

__all__ = ["BulkOperations"]

log = logging.getLogger("relay.engine")

SHARE = 0.1  # of the time of the loop that looks for work
SECONDS_EACH = 0.1  # at once, and the batch that is under way then
IDLE_SECONDS = 2.0  # between two looks when no operation runs
ERROR_SECONDS = 10.0
FAILURES = 5  # in a row, and the operation is given up
FILTERED_BYTES = 8 * 1024 * 1024  # of payloads that a filter reads at once


class BulkOperations:
    """One engine's part in carrying out bulk operations."""

    def __init__(self, store: Store, looker: Looker, tell_due: Callable[[Iterable[bytes]], None]) -> None:
        """Begin without an operation; `tell_due` is told which subscriptions have something due."""
        self._store = store
        self._looker = looker
        self._tell_due = tell_due
        self._holder = uuid.uuid4()
        self._lease_seconds = LEASE_SECONDS
        self._look = BATCH
        self._next = 0.0
        self._worked_at = -IDLE_SECONDS

    async def run(self) -> None:
        """Work for a tenth of a second on what runs, then leave the loop to the others nine times as long."""
        now = time.monotonic()
        if now < self._next:
            return
        while (work := await self._store.claim_bulk(self._holder, self._lease_seconds)) is not None:
            began = self._worked_at = time.monotonic()
            await self._go_on(work)
            # A batch that took longer than its lease would be lost to another relay, and that one's to us.
            self._lease_seconds = max(LEASE_SECONDS, 4 * (time.monotonic() - began))
            if work.room < BATCH or time.monotonic() >= now + SECONDS_EACH:
                break
        ended = time.monotonic()
        idle = ended >= self._worked_at + IDLE_SECONDS
        self._next = ended + (IDLE_SECONDS if idle else (ended - now) * (1 / SHARE - 1))

    async def finds_nothing(self) -> bool:
        """Tell whether no operation is left that waits for nothing but its rate."""
        if not await self._store.is_bulk_running():
            return True
        self.look_soon()
        return False

    def look_soon(self) -> None:
        """Look at the next run, whether or not an operation ran a moment ago."""
        self._next = 0.0

    async def _go_on(self, work: Work) -> None:
        if work.is_removed:
            await self._fail(work, "subscription: is removed; nothing can be put back to it")
        elif work.is_behind:
            reason = f"waits: {BACKLOG:,} deliveries or more of its subscription are outstanding"
            await self._store.put_off_bulk(self._holder, work, reason, seconds=BACKLOG_SECONDS, failed=False)
        else:
            await self._try(work)

    async def _try(self, work: Work) -> None:
        """Put a batch back. What the server refuses is tried again later, and given up after some times."""
        try:
            await self._put_back(work)
        except psycopg.Error as error:
            meaning = meaning_of(error)
            if meaning not in (Meaning.BUSY, Meaning.REFUSED):
                raise
            failed = meaning is Meaning.REFUSED
            count = await self._store.put_off_bulk(
                self._holder, work, one_line(error), seconds=ERROR_SECONDS if failed else 1.0, failed=failed
            )
            if count >= FAILURES:
                await self._fail(work, one_line(error))

    async def _fail(self, work: Work, error: str) -> None:
        await self._store.end_bulk(self._holder, work, error=error)
        log.warning("%s: failed: %s", _name(work), error)

    async def _put_back(self, work: Work) -> None:
        page = await self._store.read_bulk(work, self._look)
        # Where few rows are wanted, more are looked at.
        self._look = BATCH if len(page.to_put_back) > self._look // 4 else min(2 * self._look, LOOKED_AT)
        if work.filter is not None and page.to_put_back:
            page = await self._filter(work, work.filter, page)
        following = page.left.next_phase() if page.ended else page.left
        if following is None and not page.to_put_back:
            await self._store.end_bulk(self._holder, work, passed_over=page.passed_over)
            log.info("%s: done", _name(work))
            return
        left = following or page.left
        moved = await self._store.put_back_bulk(self._holder, work, page.to_put_back, page.passed_over, left)
        self._tell_due(moved.due)
        self._looker.add(moved.lanes)
        await self._looker.look()

    async def _filter(self, work: Work, filter_text: str, page: Page) -> Page:
        """Return what of a page matches the filter, of as many as are read at once."""
        asked = list(_within(page.to_put_back, FILTERED_BYTES))
        events = {one.seq: one for one in await self._store.read_bulk_payloads([one.event_seq for one in asked])}
        filter_ = stored_filter(filter_text)
        matching = tuple(
            one
            for one in asked
            if (event := events.get(one.event_seq)) is not None and filter_.answer(event.filtered()) is Answer.MATCH
        )
        if len(asked) == len(page.to_put_back):
            return replace(page, to_put_back=matching)
        return replace(page, to_put_back=matching, left=work.after(asked[-1]), ended=False)


def _within(found: Sequence[Found], budget: int) -> Iterable[Found]:
    """Return the first, and those behind it that fit into so many bytes together with it."""
    total = 0
    for place, one in enumerate(found):
        total += one.event_bytes
        if place and total > budget:
            return
        yield one


def _name(work: Work) -> str:
    return "bulk operation" if work.id is None else text_id("bulk", work.id)
