"""Secrets as they lie in the database: how many in clear, sealed to which key, and sealing them again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.ids import SubscriptionId
from outbox.sealing import newest_key
from relay.config.option import ConfigError
from relay.operations.connection import begin
from relay.secrets.resealing import BATCH_ROWS, READ, REPLACE, plan

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from outbox.sealing import SealingKey
    from relay.secrets.keyring import Keyring

__all__ = ["Rekeyed", "SecretsAtRest", "UnopenedSecret", "rekey", "require_keys", "secrets_at_rest"]

_PASSES = 3
PAUSE_SECONDS = 0.5  # for whoever holds a row to let go of it

_AT_REST = text("""
select count(*) as count,
       count(*) filter (where sealed_to is null) as in_clear,
       count(*) filter (where sealed_to <> (select id from outbox.sealing_keys
                                            order by created_at desc, id desc limit 1)) as sealed_to_older_keys,
       (select id from outbox.sealing_keys order by created_at desc, id desc limit 1) as sealing_key
from outbox.secrets
""")

# What is not even a key's id was written by hand: it holds up its own subscription, not the start of a relay.
_NEEDED = text("""
select distinct x.sealed_to from outbox.secrets x join outbox.subscriptions s on s.id = x.subscription_id
where x.sealed_to ~ '^[0-9a-f]{16}$' and (x.expires_at is null or x.expires_at > clock_timestamp())
  and s.removed_at is null
order by x.sealed_to
""")

# After every other one, also where a clock was set back or a row was written by hand: the newest is used.
_REGISTER = text("""
insert into outbox.sealing_keys (id, key, created_at)
select :id, :key, greatest(clock_timestamp(), max(created_at) + interval '1 microsecond') from outbox.sealing_keys
on conflict (id) do update set created_at = excluded.created_at
""")

_COUNT_SEALED_TO = text("select count(*) from outbox.secrets where sealed_to = :id")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsAtRest:
    """How many secrets there are, in clear and sealed to another key than the newest, and that one's id."""

    count: int
    in_clear: int
    sealed_to_older_keys: int
    sealing_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnopenedSecret:
    """A secret that no key of the ring opens: whose, of which kind, and why."""

    subscription_id: SubscriptionId
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed:
    """What `rekey` did: rows that were sealed out of the clear, sealed anew, sealed to the key before, and left.

    `busy` rows were held or changed by somebody else at each try.
    """

    key_id: str
    sealed: int
    resealed: int
    already: int
    busy: int
    unopened: tuple[UnopenedSecret, ...]

    @property
    def complete(self) -> bool:
        """Whether every secret is sealed to the key now."""
        return not self.busy and not self.unopened


@dataclass(slots=True)
class _Progress:
    """What the passes of `rekey` have done so far; `busy` and `unopened` are of the last pass."""

    sealed: int = 0
    resealed: int = 0
    busy: int = 0
    unopened: list[UnopenedSecret] = field(default_factory=list)


def secrets_at_rest(connection: Connection, tenant: str | None) -> SecretsAtRest:
    """Return how many secrets lie in clear, and how many are sealed to which key. For the operator only."""
    operator_only(tenant, "secrets")
    return SecretsAtRest(**connection.execute(_AT_REST).mappings().one())


def require_keys(connection: Connection, keyring: Keyring) -> None:
    """Raise ConfigError unless the ring holds the newest sealing key and every key that a live secret is sealed to."""
    newest = newest_key(connection)
    needed = [*connection.execute(_NEEDED).scalars(), *([newest.id] if newest else [])]
    missing = ", ".join(key_id for key_id in dict.fromkeys(needed) if key_id not in keyring)
    if not missing:
        return
    held = f"holds {', '.join(keyring.ids)}" if keyring.ids else "not set"
    raise ConfigError(
        f"secret_key: {held}, but secrets are sealed to {missing}; add that private key to RELAY_SECRET_KEY or the "
        "file that RELAY_SECRET_KEY_FILE names (rsk_…, the newest first)"
    )


def rekey(connection: Connection, tenant: str | None, keyring: Keyring, actor: str | None = None) -> Rekeyed:
    """Make the ring's newest key the one that secrets are sealed to, and seal every row to it.

    In short transactions of its own, so it may be ended at any point and repeated. A row that somebody changes
    meanwhile keeps what they wrote.

    Args:
        connection: without a transaction.
        tenant: None; it is for the operator only.
        keyring: what opens the rows; those it cannot open stay as they are and are returned.
        actor: who does it, for the audit.

    Raises:
        ConfigError: the ring is empty.
    """
    operator_only(tenant, "secrets")
    key = keyring.newest
    if key is None:
        raise ConfigError("secret_key: not set; give RELAY_SECRET_KEY or RELAY_SECRET_KEY_FILE, the newest key first")
    with begin(connection, actor):
        if newest_key(connection) != key:
            connection.execute(_REGISTER, {"id": key.id, "key": key.text})
        already = connection.execute(_COUNT_SEALED_TO, {"id": key.id}).scalar_one()
    done = _Progress()
    for remaining in reversed(range(_PASSES)):
        _pass(connection, keyring, key, done, actor)
        if not done.busy or not remaining:
            break
        time.sleep(PAUSE_SECONDS)
    return Rekeyed(
        key_id=key.id,
        sealed=done.sealed,
        resealed=done.resealed,
        already=already,
        busy=done.busy,
        unopened=tuple(done.unopened),
    )


def _pass(connection: Connection, keyring: Keyring, key: SealingKey, done: _Progress, actor: str | None) -> None:
    """Go through every row that is not sealed to the key, a batch a transaction."""
    done.busy, done.unopened, after = 0, [], UUID(int=0)
    while True:
        with begin(connection, actor):
            bounds = {"after": after, "key": key.id, "batch": BATCH_ROWS}
            rows = connection.exec_driver_sql(READ, bounds).all()
            if not rows:
                return
            planned = plan(rows, keyring, key)
            replaced = set(connection.exec_driver_sql(REPLACE, planned.parameters).scalars())
        after = rows[-1].id
        in_clear = {row.id for row in rows if row.sealed_to is None}
        done.sealed += len(replaced & in_clear)
        done.resealed += len(replaced - in_clear)
        done.busy += len(planned.ids) - len(replaced)
        done.unopened += [
            UnopenedSecret(subscription_id=SubscriptionId.of(subscription_id), kind=kind, reason=reason)
            for subscription_id, kind, reason in planned.unopened
        ]
