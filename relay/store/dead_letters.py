"""Dead letters: written when a delivery is given up. A person purges them, or puts them back: outbox/control/store."""

from __future__ import annotations

from enum import Enum, auto

from relay.model.outcome import OutcomeKind

__all__ = ["EVENTS_TO_BURY", "Copied", "burial"]


class Copied(Enum):
    """What a dead letter copies of its event, the most first; less where the server finds its own data damaged."""

    ALL = auto()
    ALL_BUT_THE_PAYLOAD = auto()
    NOTHING = auto()


_BURIAL = """
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, key, payload,
                                 recorded_at, attempts, reason, error, metadata)
select b.id, b.event_seq, coalesce(e.id, b.id), b.subscription_id, coalesce(e.tenant, ''), coalesce(e.type, 'unknown'),
       e.key, {payload}, coalesce(e.recorded_at, clock_timestamp()), b.attempts, b.reason, b.error, {metadata}
from {source} b
left join lateral (select id, tenant, type, key, payload, recorded_at, metadata from {events}
                   where seq = b.event_seq and {where} limit 1) e on true"""
# Selecting a payload without using it does not read it.
_PAYLOAD = f"case when b.reason <> '{OutcomeKind.PAYLOAD_UNREADABLE}' then coalesce(e.payload, 'null') end"

# With the numbers known when it is planned, it opens only the leaves that hold one of them.
EVENTS_TO_BURY = """
events_to_bury as materialized (
    select seq, id, tenant, type, key, payload, recorded_at, metadata from outbox.events where seq = any(%b)),"""


def burial(source: str, events: str = "outbox.events", copied: Copied = Copied.ALL) -> str:
    """leased or suspect → dead letter: return the SQL that inserts the deliveries which the CTE `source` deleted.

    `events` is where their events are read: the table, each of whose leaves is then planned and locked, or
    "events_to_bury", the CTE of EVENTS_TO_BURY before it. An event whose row is gone leaves the payload 'null', JSON's;
    one that cannot be read leaves none.
    """
    payload, metadata = (_PAYLOAD, "e.metadata") if copied is Copied.ALL else ("null", "null")
    where = "false" if copied is Copied.NOTHING else "true"
    return _BURIAL.format(source=source, events=events, payload=payload, metadata=metadata, where=where)
