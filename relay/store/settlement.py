"""From leased to gone, waiting or dead letter: the result of an attempt."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import psycopg

from relay.model.outcome import OutcomeKind
from relay.model.verdict import VerdictKind
from relay.store.arrays import Bigints, Byteas, Floats, Integers, Smallints, Texts, Uuids
from relay.store.bodies import is_unreadable
from relay.store.consequences import delivered_among, steps_after
from relay.store.database import IMPATIENT, PRUNE_WHEN_PLANNED
from relay.store.dead_letters import EVENTS_TO_BURY, Copied, burial
from relay.store.rows import Settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.model.settlement import Kept, Settlement
    from relay.store.database import Database

__all__ = ["SETTLE", "settle", "storable"]

# A success needs no lease: a 2xx that a relay saw must not end as "dead". A failure counts only with the lease that the
# row has, or a relay whose lease is over would overwrite the result of a newer one.
_AGAIN = """
again as (
    update outbox.deliveries d set lease = null, crashes = 0,
           attempts = d.attempts - (r.outcome in ('slowed', 'stood_still'))::integer,
           due_at = clock_timestamp() + make_interval(secs => r.wait_seconds)
    from r where d.id = r.id and d.lease = r.lease and r.verdict = 1 returning d.id),"""
"""leased → waiting, for a retry. An attempt that is not charged is given back; its row in `attempts` says so."""
_BURY = f"""{EVENTS_TO_BURY}
lost as (
    delete from outbox.deliveries d using r where d.id = r.id and d.lease = r.lease and r.verdict = 2
    returning d.id, d.event_seq, d.subscription_id, d.attempts, r.outcome as reason, r.error),
buried as ({{burial}}),"""
"""leased → dead letter."""
_SETTLE = """
with r as materialized (
    select * from unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b)
        as r(id, lease, verdict, wait_seconds, event_seq, subscription_id, number, outcome, status, milliseconds,
             error, url, address, headers, excerpt)),
won as (
    delete from outbox.deliveries where id = any(array(select id from r where verdict = 0)) returning id),{failures}
logged as (
    insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status,
                                 milliseconds, error, url, address, headers, excerpt)
    select id, event_seq, subscription_id, number, (array['delivered', 'retry', 'dead'])[verdict + 1], outcome, status,
           milliseconds, error, url, address, headers, excerpt
    from r)
select id, 'missed' from (select id from r where verdict = 0 except select id from won) m{buried}
"""
"""leased → gone, for a success; and one attempt row for each result."""
# By the gravest verdict of a batch. Planning a burial, which reads events, takes as long as settling fifty successes;
# so only a batch that buries something pays for it.
SETTLE = _SETTLE.format(failures="", buried="")
_BURYING = _SETTLE.replace("{failures}", _AGAIN + _BURY).replace("{buried}", " union all select id, 'buried' from lost")
_SETTLE_UP_TO = {
    VerdictKind.DELIVERED: SETTLE,
    VerdictKind.RETRY: _SETTLE.format(failures=_AGAIN, buried=""),
    VerdictKind.DEAD: _BURYING.format(burial=burial("lost", "events_to_bury")),
}
# For one burial alone, where the server finds the event's data damaged and cannot copy it.
_SETTLE_DAMAGED = [
    _BURYING.format(burial=burial("lost", "events_to_bury", copied))
    for copied in (Copied.ALL_BUT_THE_PAYLOAD, Copied.NOTHING)
]


# It may prune partitions, because it names its events by constants: nothing is left to prune while it runs
# (relay/store/database.py says why that matters).
_BEFORE_BURIAL: list[tuple[str, Sequence[object]]] = [(PRUNE_WHEN_PLANNED, ())]


_BY_ID = attrgetter("delivery.id")
_KINDS = {kind: kind.encode() for kind in OutcomeKind}


async def settle(database: Database, batch: Sequence[Settlement]) -> Settled:
    """leased → gone, waiting or dead letter, and one attempt row each; a delivery stands in `batch` once.

    What follows from it is written in the same transaction: consequences.py lists it.

    Raises psycopg.errors.LockNotAvailable when somebody holds a row of it for longer than a moment: nothing is settled.
    """
    rows = sorted(batch, key=_BY_ID)
    gravest = max(row.verdict.kind for row in rows)
    steps = steps_after(rows)
    told, *answers = await _write(database, rows, gravest, [(step.statement, step.columns) for step in steps])
    changed = {step.changes: frozenset(row[0] for row in ids) for step, ids in zip(steps, answers, strict=True)}
    missed, buried = (frozenset(identity for identity, what in told if what == kind) for kind in ("missed", "buried"))
    delivered = frozenset(delivered_among(rows))
    return Settled(delivered - missed, buried, **changed)


async def _write(
    database: Database, rows: Sequence[Settlement], gravest: VerdictKind, steps: Sequence[tuple[str, Sequence[object]]]
) -> list[list[Any]]:
    """Settle these rows and take the steps in one transaction; return what each statement told, the settling first."""
    buries, columns = gravest == VerdictKind.DEAD, _columns(rows)
    if buries:
        columns = (*columns, Bigints(sorted({row.delivery.event_seq for row in rows if row.verdict.kind == gravest})))
    alone = len(rows) == 1 and buries
    for statement in (_SETTLE_UP_TO[gravest], *(_SETTLE_DAMAGED if alone else ())):
        try:
            told = await database.transaction(
                *_BEFORE_BURIAL[:buries], (statement, columns), *steps, settings=IMPATIENT
            )
            return told[buries:]
        except psycopg.Error as error:
            if not is_unreadable(error) or not alone:
                raise
            refused = error
    raise refused


def _columns(rows: Sequence[Settlement]) -> tuple[object, ...]:
    deliveries, answers = [row.delivery for row in rows], [row.kept for row in rows]
    return (
        Uuids([delivery.id for delivery in deliveries]),
        Bigints([delivery.lease for delivery in deliveries]),
        Smallints([row.verdict.kind for row in rows]),
        Floats([row.verdict.wait_seconds for row in rows]),
        Bigints([delivery.event_seq for delivery in deliveries]),
        Uuids([delivery.subscription_id for delivery in deliveries]),
        Smallints([delivery.attempts for delivery in deliveries]),
        Texts([_KINDS[row.outcome] for row in rows]),
        Smallints([row.status for row in rows]),
        Integers([row.milliseconds for row in rows]),
        *(_details(answers) if any(answers) else (Texts(answers),) * 4 + (Byteas(answers),)),
    )


def _details(answers: Sequence[Kept | None]) -> tuple[object, ...]:
    """Return the columns of what is kept of answers."""
    return (
        Texts([storable(kept.error) if kept else None for kept in answers]),
        Texts([storable(kept.url) if kept else None for kept in answers]),
        Texts([storable(kept.address) if kept else None for kept in answers]),
        Texts([storable(kept.headers) if kept else None for kept in answers]),
        Byteas([kept.excerpt if kept else None for kept in answers]),
    )


def storable(value: str | None) -> bytes | None:
    """Return a text as PostgreSQL takes it, in UTF-8: a NUL and half a surrogate pair are replaced."""
    return None if value is None else value.replace("\x00", "\ufffd").encode("utf-8", "replace")
