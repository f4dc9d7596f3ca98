"""Filters in fan_out: which of an event's matching subscriptions get it, by what is in it.

A payload crosses the wire only while no lock is held: a relay that stops reading would otherwise keep fan_out's turn
from all others. So the answers come before the take, or between two takes:

    look ahead (pending events of kinds that had filters lately) → ask their filters → take → keep what matches

The take is one snapshot, and it alone says which filter, by hash, a subscription has. A hash means one text for ever,
and an event's payload never changes, so no answer can be stale. Where the take shows a filter that was not asked yet
(a new subscription, an event that came in between) it is rolled back, asked, and taken again.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

import psycopg

from outbox.subscriptions.filters import FilterSet
from relay.engine.asking import Asking
from relay.engine.compiled_filters import CompiledFilters
from relay.engine.filter_answers import Passing, Split
from relay.store.arrays import Uuids
from relay.store.bodies import Bodies
from relay.store.filters import Answers, Look, PassedOver
from relay.store.postgres_errors import is_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from relay.engine.filter_answers import Kind
    from relay.engine.pace import Pace
    from relay.message.evaluator_process.evaluator import Evaluator
    from relay.model.event import EventParts
    from relay.store.fan_out import TakenBatch
    from relay.store.filters import Ahead
    from relay.store.pending_shares import Shares
    from relay.store.rows import Taken
    from relay.store.store import Store

__all__ = ["Filtering"]

log = logging.getLogger("relay.engine")

ASKED_MAX = 50_000  # filters asked for one take, where they have to be tried one by one
PASS_OVER_FROM = 256  # filters of one kind: telling them all would take longer than naming those that do not match
KINDS_MAX = 10_000
QUIET_BATCHES = 16  # without a filter, until looking ahead ends
SAID_EVERY_SECONDS = 10.0

Some = TypeVar("Some", "Ahead", "Taken")


class Filtering:
    """One engine's filters and what they said of events that are pending still."""

    def __init__(self, store: Store, pace: Pace, evaluator: Evaluator) -> None:
        self._store = store
        self.asking = Asking(evaluator)
        self._pace = pace
        self._compiled = CompiledFilters(store)
        self._sets: dict[Kind, FilterSet] = {}
        self._answers: dict[int, Answers] = {}
        self._wanted: list[Taken] = []
        self._others: list[int] = []
        self._last_tenant: str | None = None
        self._splits: dict[Kind, Split] = {}
        self._quiet = 0
        self._said_at = -SAID_EVERY_SECONDS
        self._gave_up = 0
        self._passing: Passing | None = None
        self._many: set[Kind] = set()  # of which a take brought only a part
        self._unasked: Taken | None = None
        self.bodies: dict[int, EventParts] = {}
        """Events that were read for filters: those of them that are born leased need not be read again."""

    async def look_ahead(
        self, after: int, limit: int, up_to: int, shares: Shares | None, chosen: Look | None = None
    ) -> Look | None:
        """Ask the filters about the events that the take would find; return which it is to take, None: as it would.

        `chosen`: those that it would find, where this is known. Nothing is asked, and nothing read, while no batch has
        a filter.
        """
        self._passing = None
        if not self._sets:
            return chosen
        try:
            if chosen is None:
                ahead, last_tenant = await self._store.find_ahead(after, limit, up_to, shares)
            else:
                ahead, last_tenant = await self._store.read_ahead(chosen.seqs), chosen.last_tenant
        except psycopg.Error as error:
            if is_refusal(error):  # the take stumbles over the same row, and isolates it
                return chosen
            raise
        there = {event.seq for event in ahead}
        self._forget(seq for seq in [*self._answers, *self.bodies] if seq not in there)
        covered = self._within_budget(ahead)
        await self._ask([event for event in covered if event.seq not in self._answers])
        self._passing = self._passing_over(covered)
        passing = self._passing and self._passing.over
        return Look([event.seq for event in covered], last_tenant, len(covered) < len(ahead), passing)

    def _passing_over(self, covered: Sequence[Ahead]) -> Passing | None:
        """Return what may be passed over: of one kind, the one with the most filters, where these are many."""
        kinds = {(str(event.tenant), str(event.type)) for event in covered if self._asks(event)}
        kind = max(kinds, key=lambda one: len(self._sets[one].names), default=None)
        if kind is None:
            return None
        names = self._sets[kind].names
        if len(names) < PASS_OVER_FROM and kind not in self._many:
            return None
        told = [self._answers[event.seq] for event in covered if (event.tenant, event.type) == kind]
        if any(answers.names is not names for answers in told):
            return None
        kept = {name for answers in told for name in (*answers.matched, *answers.gave_up)}
        return Passing(kind, names, PassedOver(*kind, Uuids([name for name in names if name not in kept])))

    def apply(self, batch: TakenBatch) -> bool:
        """Keep of each event's matches those that get it; False where a filter was not asked yet: call `ask_wanted`."""
        passed = {self._passing.kind} if self._passing else set()
        kinds = batch.filtered | passed
        if not kinds:
            self._note_quiet()
            return True
        self._quiet = 0
        self._splits = {kind: Split(batch.matches.get(kind, ())) for kind in kinds}
        for kind in kinds - passed:
            if kind in self._sets and len(self._sets[kind].names) > 2 * len(self._splits[kind].filtered) + 8:
                del self._sets[kind]  # most of them are gone; it is made anew from what is there
        self._wanted = [taken for taken in batch.taken if not self._is_answered(taken)]
        if self._wanted:
            unknown = {taken.seq for taken in self._wanted}
            self._others = [taken.seq for taken in batch.taken if taken.seq not in unknown]
            self._last_tenant = batch.last_tenant
            return False
        for taken in batch.taken:
            kept = self._splits.get((taken.tenant, taken.type))
            if kept is not None:
                answers = self._answers[taken.seq]
                batch.keep(taken.seq, kept.plain + kept.of(answers.matched))
                batch.gave_up += [(taken.seq, match.subscription_id) for match in kept.of(answers.gave_up)]
        self._say_gave_up(len(batch.gave_up))
        return True

    def answers_to(self, batch: TakenBatch) -> Answers | None:
        """Return what was said of the one event of a batch that is wide; None where it is to be asked: `ask_wanted`."""
        (taken,) = batch.taken
        told = self._answers.get(taken.seq, Answers())
        brought = {match.filter_hash for match in batch.matches_of(taken)} - {None}
        if brought <= told.names:
            return told
        self.want(batch)
        return None

    def want(self, batch: TakenBatch) -> None:
        """Note that a filter of this batch, of which the take brought only a part, was not asked yet."""
        (self._unasked,) = batch.taken
        self._last_tenant = batch.last_tenant

    def end_wide(self, batch: TakenBatch, gave_up: int) -> None:
        """Forget the event of a batch that was resolved by the server."""
        self._quiet = 0
        self._forget(taken.seq for taken in batch.taken)
        self._say_gave_up(gave_up)

    async def ask_wanted(self) -> Look:
        """Ask what was not known, while nothing is locked; return which events to take now."""
        if self._unasked is not None:
            return await self._ask_every(self._unasked)
        passed = {self._passing.kind} if self._passing else set()
        self._passing = None  # the next take tells all
        for kind in {(taken.tenant, taken.type) for taken in self._wanted} - passed:
            split = self._splits[kind]
            first = {name: matches[0].subscription_id for name, matches in split.filtered.items()}
            await self._know(kind, first)
        covered = self._within_budget(self._wanted, again=True)
        await self._ask(covered)
        left = self._wanted[len(covered) :]
        # An event behind the first that is left out may be of its key, and must not overtake it.
        others = [seq for seq in self._others if not left or seq < left[0].seq]
        return Look(sorted([*others, *(taken.seq for taken in covered)]), self._last_tenant, bool(left))

    async def _ask_every(self, taken: Taken) -> Look:
        """Ask all filters on this kind of event, since the take did not bring them."""
        self._unasked = None
        kind = (taken.tenant, taken.type)
        if len(self._many) >= KINDS_MAX:
            self._many.clear()  # each that is still wide comes here again
        self._many.add(kind)
        await self._know(kind, await self._store.find_filters(*kind))
        await self._ask([taken])
        return Look([taken.seq], self._last_tenant, more=True)

    async def _know(self, kind: Kind, names: Mapping[bytes, bytes]) -> None:
        """Compile the filters on a kind of event, by their names; each with a subscription that has it."""
        old = self._sets.pop(kind, None)
        self._sets[kind] = FilterSet(await self._compiled.find(names, old.filters if old else {}))
        if len(self._sets) > KINDS_MAX:
            del self._sets[next(iter(self._sets))]

    def end(self, batch: TakenBatch, bodies: Bodies) -> Bodies:
        """Forget the events of a batch that was resolved; return all that were read of them, here and behind it."""
        if not self.bodies:
            return bodies
        events = {taken.seq: self.bodies[taken.seq] for taken in batch.taken if taken.seq in self.bodies}
        self._forget(taken.seq for taken in batch.taken)
        return Bodies(events | bodies.events, bodies.unreadable)

    def forget(self) -> None:
        """Forget all but what is known by its hash: the numbers may be those of another server's events."""
        self._sets, self._answers, self.bodies, self._splits = {}, {}, {}, {}
        self._passing, self._wanted, self._unasked = None, [], None
        self._many.clear()

    def _note_quiet(self) -> None:
        self._quiet += 1
        if self._sets and self._quiet >= QUIET_BATCHES:
            self.forget()

    def _forget(self, seqs: Iterable[int]) -> None:
        for seq in list(seqs):
            self._answers.pop(seq, None)
            self.bodies.pop(seq, None)

    def _is_answered(self, taken: Taken) -> bool:
        split = self._splits.get((taken.tenant, taken.type))
        if split is None:
            return True
        answers = self._answers.get(taken.seq)
        if answers is None or not split.is_covered(answers.names):
            return False
        passing = self._passing
        return passing is None or passing.kind != (taken.tenant, taken.type) or passing.names is answers.names

    def _within_budget(self, events: Sequence[Some], *, again: bool = False) -> Sequence[Some]:
        """Return the events up to the first that would be too much to read or to ask at once; one at least."""
        bytes_left, asked = self._pace.bytes, 0
        for place, event in enumerate(events):
            if self._asks(event) and (again or event.seq not in self._answers):
                bytes_left -= event.size or 0
                asked += self._sets[str(event.tenant), str(event.type)].cost
                if place and (bytes_left < 0 or asked > ASKED_MAX):
                    return events[:place]
        return events

    def _asks(self, event: Ahead | Taken) -> bool:
        return event.tenant is not None and event.type is not None and (event.tenant, event.type) in self._sets

    async def _ask(self, events: Sequence[Ahead | Taken]) -> None:
        """Read the payloads of these, and ask the filters of each one's kind."""
        events = [event for event in events if self._asks(event)]
        if not events:
            return
        unread = [event.seq for event in events if event.seq not in self.bodies]
        began = time.monotonic()
        bodies = await self._store.read_bodies(unread)
        self._pace.note_answer(sum(event.size for event in bodies.events.values()), time.monotonic() - began)
        self.bodies |= bodies.events
        for event in events:
            filters = self._sets[str(event.tenant), str(event.type)]
            if event.seq in bodies.unreadable:
                # It becomes a dead letter for each of them, without a payload: nothing that was not asked for is sent.
                self._answers[event.seq] = Answers(filters.names, list(filters.names))
            elif (parts := self.bodies.get(event.seq)) is None:
                self._answers[event.seq] = Answers(filters.names, ())
            else:
                self._answers[event.seq] = await self.asking.ask(parts, filters)

    def _say_gave_up(self, count: int) -> None:
        """Log how many pairs came to no result, a line in ten seconds."""
        self._gave_up += count
        now = time.monotonic()
        if self._gave_up and now >= self._said_at + SAID_EVERY_SECONDS:
            log.warning(
                "%d times a filter came to no result, and its subscription did not get the event;"
                " relay explain evt_… says why, relay replay evt_… --to sub_… sends it",
                self._gave_up,
            )
            self._gave_up, self._said_at = 0, now
