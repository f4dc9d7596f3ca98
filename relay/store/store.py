"""The data plane's one door to the database: the verbs that the engine asks of it, in the order of a delivery's life.

Each stands in a module of its own with its statement; the module's name says what it is about.
"""

from __future__ import annotations

from relay.store import claims, lease, pending, polling, settlement, subscriptions, suspects
from relay.store.database import Database

__all__ = ["Store"]


class Store(Database):
    """What the engine asks of its database. Ids are 16 raw bytes, and available_at 8."""

    poll = polling.poll
    sweep = polling.sweep
    changed = subscriptions.changed_subscriptions
    subscriptions = subscriptions.read_subscriptions
    fan_out = pending.fan_out
    first_pending = pending.first_pending
    unresolvable = pending.unresolvable
    claim = claims.claim
    claim_suspect = suspects.claim_suspect
    settle = settlement.settle
    release = lease.release
    drained = polling.drained
    close = Database.close
