"""Seal stored secrets again, to the newest key, for `relay secrets rekey` and for housekeeping.

A row is replaced only if it has not changed since it was read. Locks are taken without waiting, in the order of a
rotation: first the subscription's. So a change by somebody else wins, and nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outbox.sealing import seal
from outbox.secret import Secret
from relay.secrets.keyring import KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from outbox.sealing import SealingKey
    from relay.secrets.keyring import Keyring

__all__ = ["BATCH_ROWS", "READ", "READ_CLEAR", "REPLACE", "Plan", "plan"]

BATCH_ROWS = 100

_COLUMNS = "select id, subscription_id, kind, secret, sealed_to from outbox.secrets"
READ = f"{_COLUMNS} where id > %(after)s and sealed_to is distinct from %(key)s order by id limit %(batch)s"
READ_CLEAR = f"{_COLUMNS} where id > %(after)s and sealed_to is null order by id limit %(batch)s"

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
