"""`relay reconcile`: nothing is missing, whatever became of a delivery, and what somebody took away is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

from outbox import subscriptions
from outbox.control import by_hand, dead_letters
from outbox.control.replay.replay import candidates_by_id, replay
from outbox.ids import EventId, parse_id
from outbox.testing import WebhookReceiver, drain
from relay.cli import cli
from relay.operations.erase.erasure import request_erasure, run_erasure
from relay.operations.erase.request import EraseRequest
from relay.operations.prune import prune
from relay.operations.reconciliation import IncompleteEvent, Reconciled, reconcile
from relay.operations.status import unresolved_events
from tests.support import seeding

HOUR = timedelta(hours=1)
DAYS = {"events_days": 30, "attempts_days": 90, "resolutions_days": 90}


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def missing(connection: Connection) -> list[tuple[str, int, int, int, int]]:
    found = reconcile(connection, None, HOUR)
    assert found.missing == sum(event.missing for event in found.events)
    return [(str(e.id), e.matched, e.accounted, e.removed, e.missing) for e in found.events]


def resolved(connection: Connection, *subscription_ids: str, **event: Any) -> tuple[str, list[str]]:
    event_id = seeding.record(connection, **event)
    return event_id, seeding.resolve(connection, event_id, *subscription_ids)


def dead(connection: Connection, subscription_id: str) -> tuple[str, str]:
    event_id, (delivery_id,) = resolved(connection, subscription_id)
    seeding.attempt(connection, delivery_id, "dead")
    return event_id, delivery_id


def test_nothing_is_missing_whatever_became_of_a_delivery(connection: Connection) -> None:
    one, other = seeding.subscribe(connection), seeding.subscribe(connection, url="https://example.com/other")
    resolved(connection)
    resolved(connection, one, other)
    _, (delivered, retried) = resolved(connection, one, other)
    seeding.attempt(connection, delivered, "delivered")
    seeding.attempt(connection, retried, "retry")
    _, (waits,) = resolved(connection, one)
    seeding.attempt(connection, waits, "retry")
    by_hand.cancel(connection, None, [parse_id("dlv", waits)])
    dead(connection, one)
    event_id, letter = dead(connection, one)
    replay(connection, None, candidates_by_id(connection, None, letter))
    dead_letters.purge(connection, None, [parse_id("dlv", dead(connection, one)[1])])
    replay(connection, None, candidates_by_id(connection, None, event_id, other))
    seeding.record(connection)  # pending
    seeding.bury_unresolved(connection, seeding.record(connection))
    assert missing(connection) == []
    found = reconcile(connection, None, HOUR)
    assert (found.resolved, found.matched, found.incomplete, found.missing) == (7, 8, 0, 0)


def test_what_was_delivered_for_real_is_there(connection: Connection, database_url: str) -> None:
    with WebhookReceiver() as receiver:
        for path, settings in {"a": {}, "b": {"ordered": True}, "c": {"batch_events": 10}}.items():
            receiver.subscribe(connection, path=path, **settings)
        receiver.subscribe(connection, path="none", filter={"payload": {"n": 5}})
        for number in range(10):
            seeding.record(connection, f'{{"n":{number}}}', key="k")
        receiver.answers(500, 410, 500)
        drain(database_url)
    assert missing(connection) == []
    assert reconcile(connection, None, HOUR).matched == 31


def test_a_delivery_that_somebody_deleted_is_missing(connection: Connection, database_url: str) -> None:
    one, other = seeding.subscribe(connection), seeding.subscribe(connection, url="https://example.com/other")
    resolved(connection, one)
    event_id, (delivered, deleted) = resolved(connection, one, other, tenant="acme")
    retried, (gone,) = resolved(connection, one)
    seeding.attempt(connection, delivered, "delivered")
    seeding.attempt(connection, gone, "retry")
    environment = {"RELAY_DATABASE_URL": database_url}
    ran = CliRunner().invoke(cli, ["reconcile"], env=environment, standalone_mode=False)
    assert (ran.return_value, ran.exception) == (0, None)
    assert ran.stdout.startswith("nothing is missing: 3 events resolved since ")
    statement = text("delete from outbox.deliveries where id = any(:ids)")
    connection.execute(statement, {"ids": [parse_id("dlv", deleted), parse_id("dlv", gone)]})
    assert missing(connection) == [(event_id, 2, 1, 0, 1), (retried, 1, 0, 0, 1)]
    ran = CliRunner().invoke(cli, ["reconcile", "--limit", "1"], env=environment, standalone_mode=False)
    assert (ran.return_value, ran.exception) == (1, None)
    heading, _, row = ran.stdout.splitlines()
    assert heading.startswith("2 deliveries of 2 events are missing: 3 events resolved since ")
    cells = row.split("\t")
    assert (cells[:3], cells[4:]) == ([event_id, "order.created", "acme"], ["2", "1", "0"])
    ran = CliRunner().invoke(cli, ["reconcile", "--json", "--since", "2h"], env=environment, standalone_mode=False)
    found = json.loads(ran.stdout)
    assert (found["incomplete"], [event["id"] for event in found["events"]]) == (2, [event_id, retried])


def test_what_went_with_its_subscription_is_not_missing(connection: Connection) -> None:
    kept, gone = (seeding.subscribe(connection, url=f"https://example.com/{path}") for path in "ab")
    other = subscriptions.add(connection, "https://example.com/c", ["invoice.*"]).id
    _, (delivered, deleted) = resolved(connection, gone, kept)
    event_id, ids = resolved(connection, gone, kept)
    seeding.attempt(connection, delivered, "delivered")
    for name in (gone, other):
        subscriptions.remove(connection, name)
        connection.execute(
            text("delete from outbox.deliveries where subscription_id = outbox.uuid_of(:id)"), {"id": name}
        )
    assert missing(connection) == []
    # It had left its attempt, and the other one matches no such event: neither excuses what is taken away now.
    statement = text("delete from outbox.deliveries where id = any(:ids)")
    connection.execute(statement, {"ids": [parse_id("dlv", name) for name in (deleted, ids[1])]})
    lacking = missing(connection)
    assert [row[1:] for row in lacking] == [(2, 1, 0, 1), (2, 0, 1, 1)]
    assert lacking[1][0] == event_id
    for table in ("secrets", "subscriptions"):
        column = "subscription_id" if table == "secrets" else "id"
        connection.execute(text(f"delete from outbox.{table} where {column} = outbox.uuid_of(:id)"), {"id": gone})
    assert missing(connection) == lacking


def test_a_subscription_of_later_hides_nothing(connection: Connection) -> None:
    one = seeding.subscribe(connection)
    event_id, (delivery_id,) = resolved(connection, one)
    connection.execute(text("delete from outbox.deliveries where id = :id"), {"id": parse_id("dlv", delivery_id)})
    later = seeding.subscribe(connection, url="https://example.com/later")
    assert len(replay(connection, None, candidates_by_id(connection, None, event_id, later))) == 1
    assert missing(connection) == [(event_id, 1, 0, 0, 1)]


def test_what_is_erased_or_pruned_is_not_missing(connection: Connection, engine: Engine) -> None:
    one = subscriptions.add(connection, "https://example.com/acme", ["*"], tenant="acme").id
    for number in range(3):
        _, (delivery_id,) = resolved(connection, one, tenant="acme", key="k", data=f'{{"n":{number}}}')
        if number:
            seeding.attempt(connection, delivery_id, "delivered")
    for request in (EraseRequest(kind="key", value="k"), EraseRequest(kind="tenant", value="acme")):
        with engine.begin() as asking:
            asked = request_erasure(asking, None, request, cancel_undelivered=True)
        with engine.connect() as erasing:
            assert run_erasure(erasing, None, asked.id).state == "done"
        assert missing(connection) == []
    _, (delivery_id,) = resolved(connection, seeding.subscribe(connection))
    seeding.attempt(connection, delivery_id, "delivered")
    for table, column in {"events": "recorded_at", "attempts": "at", "resolutions": "at"}.items():
        connection.execute(text(f"update outbox.{table} set {column} = {column} - interval '40 days'"))
    with engine.connect() as pruning:
        assert prune(pruning, None, **DAYS).events == 1
    found = reconcile(connection, None, timedelta(days=50))
    assert (found.resolved, found.missing) == (4, 0)


def test_it_is_bounded_by_when_events_were_resolved(connection: Connection) -> None:
    event_id, (delivery_id,) = resolved(connection, seeding.subscribe(connection))
    connection.execute(text("delete from outbox.deliveries where id = :id"), {"id": parse_id("dlv", delivery_id)})
    found = reconcile(connection, None, HOUR)
    assert isinstance(found, Reconciled)
    (event,) = found.events
    assert event == IncompleteEvent(
        id=EventId.of(event_id), tenant="", type="order.created", resolved_at=event.resolved_at, matched=1, accounted=0,
        removed=0, missing=1,
    )  # fmt: skip
    assert reconcile(connection, None, event.resolved_at + timedelta(microseconds=1)).resolved == 0
    statement = text("select count(*) from outbox.reconciliation(:since, :until)")
    for until, count in {event.resolved_at: 0, event.resolved_at + timedelta(seconds=1): 1}.items():
        asked = {"since": event.resolved_at, "until": until}
        assert connection.execute(statement, asked).scalar_one() == count


def test_it_needs_no_more_than_a_readers_rights(connection: Connection) -> None:
    connection.execute(text("set role outbox_reader"))
    assert reconcile(connection, None, HOUR).resolved == 0
    connection.execute(text("reset role"))


def test_events_that_were_never_resolved_are_found_however_many_came_later(
    connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As logical replication or a restore without triggers leaves them; the printed SQL sends all that are named."""
    monkeypatch.setattr(unresolved_events, "NEWEST", 10)
    one = seeding.subscribe(connection)
    for _ in range(25):
        resolved(connection, one)
    long_ago = seeding.record(connection)
    connection.execute(text("update outbox.events set recorded_at = now() - interval '2 hours' where id = :id"), {
        "id": parse_id("evt", long_ago)})  # fmt: skip
    lost = [long_ago, *(seeding.record(connection) for _ in range(4))]
    connection.execute(text("delete from outbox.pending"))
    connection.execute(text("select setval('outbox.events_seq', 5000000)"))  # numbers were left out
    for _ in range(25):
        resolved(connection, one)
    environment = {"RELAY_DATABASE_URL": database_url}
    ran = CliRunner().invoke(cli, ["reconcile", "--limit", "3"], env=environment, standalone_mode=False)
    assert (ran.return_value, ran.exception) == (1, None)
    told, *named = ran.stdout.splitlines()
    assert told.startswith("4 of ")
    assert named == lost[1:4]
    connection.execute(text(ran.stderr.partition("outbox_operator: ")[2]))
    assert reconcile(connection, None, HOUR).unresolved.events == (EventId.of(lost[4]),)
