"""An outstanding delivery and all that can keep it: the statements that make it so, and the reasons to be told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from outbox.control.track import EventTrack, track_event
from outbox.ids import parse_id
from tests.support import seeding

__all__ = ["DELIVERY", "KEPT", "SOON", "SUBSCRIPTION", "World"]

SOON = datetime.now(UTC) + timedelta(hours=2)


class World:
    """An event of acme with one delivery, due now, and a relay that runs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.subscription = seeding.subscribe(connection, tenant="acme")
        self.event = seeding.record(connection, '{"n": 1}', key="k", tenant="acme")
        (self.delivery,) = seeding.resolve(connection, self.event, self.subscription)
        seeding.sign_in(connection)

    def run(self, statement: str, **values: object) -> None:
        own = {"sub": parse_id("sub", self.subscription), "dlv": parse_id("dlv", self.delivery), "soon": SOON}
        self.connection.execute(text(statement), own | values)

    def track(self, tenant: str | None = "acme") -> EventTrack:
        return track_event(self.connection, tenant, self.event)

    def waits(self, tenant: str | None = "acme") -> dict[str, Any]:
        (delivery,) = self.track(tenant).deliveries
        return {wait.reason: wait for wait in delivery.waits}


SUBSCRIPTION = "update outbox.subscriptions set {} where id = :sub"
DELIVERY = "update outbox.deliveries set {} where id = :dlv"
LIMIT = "insert into outbox.limits (id, allowed_at, slowed_to) values (:sub, :soon, {})"
BREAKER = """
insert into outbox.health (subscription_id, opened_at, probe_at, pause_seconds) values (:sub, now(), :soon, 60)"""
KEPT: dict[str, tuple[list[str], list[str], bool]] = {
    "turn": ([], ["turn"], False),
    "removed": ([SUBSCRIPTION.format("removed_at = now()")], ["removed"], False),
    "sending": ([DELIVERY.format("lease = 7, attempts = 1, due_at = :soon")], ["sending"], True),
    "unreported": (
        [DELIVERY.format("lease = 7, attempts = 1, due_at = now() - interval '1 minute'")], ["unreported"], False,
    ),
    "sending paused": (["update outbox.sending set paused_at = now()"], ["sending_paused", "turn"], False),
    "disabled": (
        [SUBSCRIPTION.format("disabled_at = now(), disabled_reason = '410'")], ["disabled", "turn"], False,
    ),
    "paused and backing off": (
        [SUBSCRIPTION.format("paused_at = now()"), DELIVERY.format("attempts = 3, due_at = :soon")],
        ["paused", "retry"], True,
    ),
    "sorting": ([SUBSCRIPTION.format("sorting_since = now()")], ["sorting", "turn"], False),
    "breaker": (
        [BREAKER], ["breaker", "turn"], True,
    ),
    "retry": ([DELIVERY.format("attempts = 3, due_at = :soon")], ["retry"], True),
    "later": ([DELIVERY.format("due_at = :soon")], ["later"], True),
    "held": ([SUBSCRIPTION.format("held_until = :soon")], ["held", "turn"], True),
    "no relay": (["delete from outbox.relays"], ["no_relay", "turn"], False),
    "limit": (
        [SUBSCRIPTION.format("rate_limit = '5/s'"), LIMIT.format("null")], ["limit", "turn"], True,
    ),
    "slowed": ([LIMIT.format("0.5")], ["slowed", "turn"], False),
    "tenant's limit": (
        ["insert into outbox.tenant_limits (tenant, rate_limit) values ('acme', '9/min')",
         "insert into outbox.limits (id, allowed_at) select id, :soon from outbox.tenant_limits"],
        ["tenant_limit", "turn"], True,
    ),
    "in flight": (
        [SUBSCRIPTION.format("max_in_flight = 2"),
         "insert into outbox.in_flight (subscription_id, holder, slots, ends_at) values (:sub, :sub, 2, :soon)"],
        ["in_flight", "turn"], False,
    ),
    "batch": ([SUBSCRIPTION.format("batch_events = 10")], ["batch", "turn"], False),
}  # fmt: skip
