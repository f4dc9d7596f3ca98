"""Seal stored secrets again, to the newest key, for `relay secrets rekey` and for housekeeping.

A row is replaced only if it has not changed since it was read. Locks are taken without waiting, in the order of a
rotation: first the subscription's. So a change by somebody else wins, and nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from outbox.sealing import NEWEST_KEY, SealingKey, seal
from outbox.secret import Secret
from relay.secrets.keyring import KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    import psycopg

    from relay.secrets.keyring import Keyring

__all__ = ["BATCH_ROWS", "READ", "REPLACE", "Plan", "SealedBatch", "plan", "seal_clear"]

BATCH_ROWS = 100

_COLUMNS = "select id, subscription_id, kind, secret, sealed_to from outbox.secrets"
READ = f"{_COLUMNS} where id > %(after)s and sealed_to is distinct from %(key)s order by id limit %(batch)s"
_READ_CLEAR = f"{_COLUMNS} where id > %(after)s and sealed_to is null order by id limit %(batch)s"

REPLACE = """
with free as materialized (
    select s.id, w.sealed from unnest(%(ids)s::uuid[], %(former)s::text[], %(sealed)s::text[]) w(id, former, sealed)
    join outbox.secrets s on s.id = w.id and s.secret = w.former
    join outbox.subscriptions p on p.id = s.subscription_id
    for no key update of p, s skip locked)
update outbox.secrets s set secret = f.sealed from free f where s.id = f.id returning s.id
"""


@dataclass(slots=True)
class Plan:
    """The rows to replace, with former and new text, and the unopened ones: (subscription, kind, reason)."""

    ids: list[UUID] = field(default_factory=list)
    former: list[str] = field(default_factory=list, repr=False)
    sealed: list[str] = field(default_factory=list)
    unopened: list[tuple[UUID, str, str]] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of REPLACE."""
        return {"ids": self.ids, "former": self.former, "sealed": self.sealed}


def plan(rows: Sequence[Any], keyring: Keyring, key: SealingKey) -> Plan:
    """Open each row of READ with the keyring and seal it to `key`. Does no I/O."""
    planned = Plan()
    for identity, subscription_id, kind, text, _ in rows:
        try:
            clear = keyring.open(Secret(text), subscription_id.bytes, kind)
        except KeyUnavailableError as error:
            planned.unopened.append((subscription_id, kind, str(error)))
            continue
        planned.ids.append(identity)
        planned.former.append(text)
        planned.sealed.append(seal(clear.reveal(), key, subscription_id.bytes, kind))
    return planned


class SealedBatch(NamedTuple):
    """How many secrets were sealed, and the id of the last one that was looked at; None where none was left."""

    sealed: int
    last: UUID | None


async def seal_clear(connection: psycopg.AsyncConnection[Any], keyring: Keyring, after: UUID) -> SealedBatch | None:
    """Seal the next secrets in clear, those after this id, to the newest key, in the caller's transaction.

    Returns:
        None where this relay lacks the newest key's private half.
    """
    newest = await (await connection.execute(NEWEST_KEY)).fetchone()
    if newest is None or newest[0] not in keyring:
        return None
    cursor = await connection.execute(_READ_CLEAR, {"after": after, "batch": BATCH_ROWS})
    rows = await cursor.fetchall()
    planned = plan(rows, keyring, SealingKey.of(newest[1]))
    sealed = (await connection.execute(REPLACE, planned.parameters)).rowcount
    return SealedBatch(sealed, rows[-1][0] if rows else None)
