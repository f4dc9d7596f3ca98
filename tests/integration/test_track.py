"""The track of one event: recorded, resolved, each attempt, what is next, and everything that keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

import outbox
from outbox import subscriptions
from outbox.control.track import track_event
from outbox.ids import DeliveryId
from relay.cli import cli
from tests.support import seeding
from tests.support.kept import DELIVERY, KEPT, SOON, World


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)


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
