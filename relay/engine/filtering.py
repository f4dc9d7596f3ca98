"""Filters in fan_out: which of an event's matching subscriptions get it, by what is in it.

A payload crosses the wire only while no lock is held: a relay that stops reading would otherwise keep fan_out's turn
from all others. So the answers come before the take, or between two takes:

    look ahead (pending events of kinds that had filters lately) → ask their filters → take → keep what matches

The take is one snapshot, and it alone says which filter, by hash, a subscription has. A hash means one text for ever,
and an event's payload never changes, so no answer can be stale. Where the take shows a filter that was not asked yet
(a new subscription, an event that came in between) it is rolled back, asked, and taken again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import psycopg

from outbox.subscriptions.filters import Answer, FilteredEvent, FilterSet
from relay.engine.compiled_filters import CompiledFilters
from relay.store.arrays import Uuids
from relay.store.bodies import Bodies
from relay.store.filters import Look, PassedOver
from relay.store.meaning import is_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from relay.engine.pace import Pace
    from relay.model.event import EventParts
    from relay.store.fan_out import TakenBatch
    from relay.store.filters import Ahead
    from relay.store.pending_shares import Shares
    from relay.store.rows import Match, Taken
    from relay.store.store import Store

__all__ = ["Answers", "Filtering"]

log = logging.getLogger("relay.engine")

ASKED_MAX = 50_000  # filters asked for one take, where they have to be tried one by one
PASS_OVER_FROM = 256  # filters of one kind: telling them all would take longer than naming those that do not match
KINDS_MAX = 10_000
QUIET_BATCHES = 16  # without a filter, until looking ahead ends
HOLD_SECONDS = 0.005  # the loop is let go after so long
IN_A_THREAD_FROM = 32 * 1024  # bytes of a payload: one filter may take ten milliseconds then
SAID_EVERY_SECONDS = 10.0

Kind = tuple[str, str]  # tenant and type
Some = TypeVar("Some", "Ahead", "Taken")


class Answers(NamedTuple):
    """What the filters named so said of one event; those in neither tuple did not match."""

    names: frozenset[bytes]
    matched: Sequence[bytes]
    gave_up: Sequence[bytes] = ()


class _Passing(NamedTuple):
    """What a take passes over; `names` are all filters that the events of this kind were asked by."""

    kind: Kind
    names: frozenset[bytes]
    over: PassedOver


class _Split:
    """The matches of one kind of event in a take: those without a filter, and the others by its hash."""

    def __init__(self, matches: Sequence[Match]) -> None:
        self.plain = [match for match in matches if match.filter_hash is None]
        self.filtered: dict[bytes, list[Match]] = {}
        for match in matches:
            if match.filter_hash is not None:
                self.filtered.setdefault(match.filter_hash, []).append(match)
        self._covering: frozenset[bytes] | None = None

    def is_covered(self, names: frozenset[bytes]) -> bool:
        """Tell whether all these filters are among those. Events in turn were asked by the very same set."""
        if names is self._covering:
            return True
        covered = self.filtered.keys() <= names
        if covered:
            self._covering = names
        return covered

    def of(self, hashes: Iterable[bytes]) -> list[Match]:
        """Return the matches that have these filters."""
        return [match for one in hashes for match in self.filtered.get(one, ())]


class Filtering:
    """One engine's filters and what they said of events that are pending still."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace
        self._compiled = CompiledFilters(store)
        self._sets: dict[Kind, FilterSet] = {}
        self._answers: dict[int, Answers] = {}
        self._wanted: list[Taken] = []
        self._others: list[int] = []
        self._last_tenant: str | None = None
        self._splits: dict[Kind, _Split] = {}
        self._quiet = 0
        self._let_go_at = 0.0
        self._said_at = -SAID_EVERY_SECONDS
        self._gave_up = 0
        self._passing: _Passing | None = None
        self.bodies: dict[int, EventParts] = {}
        """Events that were read for filters: those of them that are born leased need not be read again."""

    async def look_ahead(self, after: int, limit: int, up_to: int, shares: Shares | None) -> Look | None:
        """Ask the filters about the events that the take would find; return which it is to take, None: as it would.

        Nothing is asked, and nothing read, while no batch has a filter.
        """
        self._passing = None
        if not self._sets:
            return None
        try:
            ahead, last_tenant = await self._store.find_ahead(after, limit, up_to, shares)
        except psycopg.Error as error:
            if is_refusal(error):  # the take stumbles over the same row, and isolates it
                return None
            raise
        there = {event.seq for event in ahead}
        self._forget(seq for seq in [*self._answers, *self.bodies] if seq not in there)
        covered = self._within_budget(ahead)
        await self._ask([event for event in covered if event.seq not in self._answers])
        self._passing = self._passing_over(covered)
        passing = self._passing and self._passing.over
        return Look([event.seq for event in covered], last_tenant, len(covered) < len(ahead), passing)

    def _passing_over(self, covered: Sequence[Ahead]) -> _Passing | None:
        """Return what may be passed over: of one kind, the one with the most filters, where these are many."""
        kinds = {(str(event.tenant), str(event.type)) for event in covered if self._asks(event)}
        kind = max(kinds, key=lambda one: len(self._sets[one].names), default=None)
        if kind is None or len(names := self._sets[kind].names) < PASS_OVER_FROM:
            return None
        told = [self._answers[event.seq] for event in covered if (event.tenant, event.type) == kind]
        if any(answers.names is not names for answers in told):
            return None
        kept = {name for answers in told for name in (*answers.matched, *answers.gave_up)}
        return _Passing(kind, names, PassedOver(*kind, Uuids([name for name in names if name not in kept])))

    def apply(self, batch: TakenBatch) -> bool:
        """Keep of each event's matches those that get it; False where a filter was not asked yet: call `ask_wanted`."""
        passed = {self._passing.kind} if self._passing else set()
        kinds = batch.filtered | passed
        if not kinds:
            self._note_quiet()
            return True
        self._quiet = 0
        self._splits = {kind: _Split(batch.matches.get(kind, ())) for kind in kinds}
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

    async def ask_wanted(self) -> Look:
        """Ask what `apply` did not know, while nothing is locked; return which events to take now."""
        passed = {self._passing.kind} if self._passing else set()
        self._passing = None  # the next take tells all
        for kind in {(taken.tenant, taken.type) for taken in self._wanted} - passed:
            split = self._splits[kind]
            first = {name: matches[0].subscription_id for name, matches in split.filtered.items()}
            self._sets.pop(kind, None)
            self._sets[kind] = FilterSet(await self._compiled.find(first))
            if len(self._sets) > KINDS_MAX:
                del self._sets[next(iter(self._sets))]
        covered = self._within_budget(self._wanted, again=True)
        await self._ask(covered)
        seqs = sorted([*self._others, *(taken.seq for taken in covered)])
        return Look(seqs, self._last_tenant, len(covered) < len(self._wanted))

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
        self._passing, self._wanted = None, []

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
        self._let_go_at = time.monotonic() + HOLD_SECONDS
        for event in events:
            filters = self._sets[str(event.tenant), str(event.type)]
            if event.seq in bodies.unreadable:
                # It becomes a dead letter for each of them, without a payload: nothing that was not asked for is sent.
                self._answers[event.seq] = Answers(filters.names, list(filters.names))
            elif (parts := self.bodies.get(event.seq)) is None:
                self._answers[event.seq] = Answers(filters.names, ())
            else:
                self._answers[event.seq] = await self.ask(parts, filters)

    async def ask(self, parts: EventParts, filters: FilterSet) -> Answers:
        """Ask these filters about one event; let the loop go meanwhile."""
        event = FilteredEvent(parts.type.decode(), parts.payload, key=parts.key)
        if len(parts.payload) >= IN_A_THREAD_FROM:
            return await asyncio.to_thread(lambda: _answered(filters, _answer_all(filters, event)))
        found = []
        for place, answer in enumerate(_answer_all(filters, event)):
            found.append(answer)
            if not place % 64 and time.monotonic() > self._let_go_at:
                await asyncio.sleep(0)
                self._let_go_at = time.monotonic() + HOLD_SECONDS
        return _answered(filters, found)

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


def _answer_all(filters: FilterSet, event: FilteredEvent) -> Iterator[tuple[bytes, Answer]]:
    return ((name, one.answer(event)) for name, one in filters.candidates(event))


def _answered(filters: FilterSet, found: Iterable[tuple[bytes, Answer]]) -> Answers:
    told = [(name, answer) for name, answer in found if answer is not Answer.NO_MATCH]
    matched = [name for name, answer in told if answer is Answer.MATCH]
    return Answers(filters.names, matched, [name for name, answer in told if answer.gave_up])
