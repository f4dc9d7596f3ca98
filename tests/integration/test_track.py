"""The track of one event: recorded, resolved, each attempt, what is next, and everything that keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

import outbox
from outbox import subscriptions
from outbox.control.track import EventTrack, track_event
from outbox.ids import DeliveryId, parse_id
from relay.cli import cli
from tests.support import seeding

SOON = datetime.now(UTC) + timedelta(hours=2)


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)


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
    "slowed": ([LIMIT.format("2.5")], ["slowed", "turn"], False),
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


@pytest.mark.parametrize("case", KEPT)
def test_everything_that_keeps_a_delivery_is_told(world: World, case: str) -> None:
    statements, reasons, has_end = KEPT[case]
    for statement in statements:
        world.run(statement)
    waits = world.waits()
    assert list(waits) == reasons
    assert all(wait.detail for wait in waits.values())
    assert (SOON in [wait.until for wait in waits.values()]) == has_end


def test_what_is_parked_is_told_with_the_one_before_it(world: World) -> None:
    connection = world.connection
    world.run(DELIVERY.format("lane = 7, due_at = 'infinity'"))
    (first,) = seeding.resolve(connection, seeding.record(connection, tenant="acme", key="k"), world.subscription)
    connection.execute(text("update outbox.deliveries set lane = 7 where id = :id"), {"id": DeliveryId.of(first)})
    assert world.waits()["behind"].detail == f"{first} with the same key goes first"
    assert world.track().deliveries[0].next_at is None


def test_how_many_were_due_before_it_is_counted_up_to_a_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("""insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
                 select outbox.uuid7(), 999999, :sub, now() - interval '1 hour' from generate_series(1, 1500)""")
    assert world.waits()["turn"].detail == "it is due, and more than 1000 of its subscription were due before it"


def test_only_the_operator_reads_why_all_sending_is_paused(world: World) -> None:
    world.run("update outbox.sending set paused_at = now(), reason = 'the bank called'")
    assert "the bank called" not in world.waits("acme")["sending_paused"].detail
    assert world.waits(None)["sending_paused"].detail.endswith("(the bank called)")


def test_an_event_that_nobody_resolved_says_whether_a_relay_runs(world: World) -> None:
    name = seeding.record(world.connection, tenant="acme")
    found = track_event(world.connection, "acme", name)
    assert (found.state, found.pending and found.pending.reason, found.deliveries) == ("pending", "pending", ())
    world.run("delete from outbox.relays")
    found = track_event(world.connection, "acme", name)
    assert found.pending is not None
    assert found.pending.detail == "no relay runs: relay run"


def test_the_whole_way_is_told(world: World, engine: Engine) -> None:
    """Delivered to one, dead for another after a retry, waiting for a third; a fourth never matched."""
    connection = world.connection
    lost, waiting = (seeding.subscribe(connection, tenant="acme") for _ in range(2))
    never = subscriptions.add(connection, "https://example.com/other", ["user.*"], tenant="acme").id
    with engine.begin() as own:
        traced = outbox.record(
            own, "order.created", {"n": 1}, key="k", tenant="acme", idempotency_key="once",
            trace={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        )  # fmt: skip
    done, dead, left = seeding.resolve(connection, traced.id, world.subscription, lost, waiting)
    seeding.attempt(connection, done, "delivered")
    seeding.attempt(connection, dead, "retry", error="answered 500")
    seeding.attempt(connection, dead, "dead", error="answered 500 again")
    seeding.attempt(connection, left, "retry", error="answered 503")
    found = track_event(connection, "acme", traced.id)
    assert (found.type, found.key, found.state, found.idempotent) == ("order.created", "k", "dead", True)
    assert found.trace == {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    assert (found.payload_bytes, found.pending, found.resolution and found.resolution.matched) == (7, None, 3)
    told = {str(one.id): one for one in found.deliveries}
    assert {name: (one.state, len(one.attempts), one.reason) for name, one in told.items()} == {
        done: ("delivered", 1, None), dead: ("dead", 2, "http_5xx"), left: ("waiting", 1, None),
    }  # fmt: skip
    assert [attempt.error for attempt in told[dead].attempts] == ["answered 500", "answered 500 again"]
    assert [wait.reason for wait in told[left].waits] == ["retry"]
    assert told[left].next_at == told[left].waits[0].until
    assert told[done].waits == ()
    assert str(told[left].subscription_id) == waiting
    reasons = {str(one.id): one.reason for one in found.subscriptions}
    assert (reasons[waiting], reasons[never]) == ("matched", "type")
    only = track_event(connection, "acme", traced.id, subscription=lost)
    assert ([str(one.id) for one in only.deliveries], len(only.subscriptions)) == ([dead], 1)


def test_the_command_prints_the_track_and_the_same_as_json(world: World, database_url: str) -> None:
    seeding.attempt(world.connection, world.delivery, "retry", error="answered \x1b[31m503")
    environ = {"RELAY_DATABASE_URL": database_url}
    printed = CliRunner().invoke(cli, ("explain", world.event), env=environ, standalone_mode=False).stdout
    assert f"{world.delivery}  waiting  to {world.subscription}  https://example.com/hooks" in printed
    assert "500  12 ms  retry: answered \\x1b[31m503" in printed
    assert "waits  retry: backs off after attempt 1, until " in printed
    assert "it gets the event" in printed
    told = json.loads(CliRunner().invoke(cli, ("explain", world.event, "--json"), env=environ).stdout)
    assert told["deliveries"][0]["waits"][0]["reason"] == "retry"
    assert told["resolution"]["matched"] == 1
