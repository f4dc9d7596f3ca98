"""A payload that the server cannot read any more (XX001): it is buried alone, and everything around it is delivered."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy.exc import InternalError

import outbox
from relay.local.embedded import EmbeddedServer
from tests.support.application import Application
from tests.support.processes import Process

DAMAGED = "order.damaged"
_TOAST = """
select pg_relation_filepath(c.reltoastrelid) from outbox.events e join pg_class c on c.oid = e.tableoid
where e.id = outbox.uuid_of(:id)"""


def record_apart(app: Application) -> str:
    """Record one event whose payload is kept outside of its row; return its id."""
    with app.engine.begin() as connection:
        event = outbox.record(connection, DAMAGED, {"random": secrets.token_hex(20_000)})
    app.committed[event.id] = DAMAGED
    return event.id


def damage(app: Application, server: EmbeddedServer, event_id: str) -> None:
    """Write zeros over the pages that hold the payload, as a disk may do, while the server is down."""
    app.rows("checkpoint")
    file = server.directory / "data" / app.one(_TOAST, id=event_id)
    server.stop()
    with file.open("r+b") as pages:
        pages.write(bytes(file.stat().st_size))
    server.start()
    with pytest.raises(InternalError, match="missing chunk"):
        app.one("select md5(payload) from outbox.events where id = outbox.uuid_of(:id)", id=event_id)


def run(app: Application, *arguments: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code and all that it printed."""
    output = app.stage.directory / "command.out"
    command = Process(["-m", "relay", *arguments], output, {"RELAY_DATABASE_URL": app.stage.database_url})
    app.stage.started.append(command)
    return command.wait(), command.text


def assert_buried_alone(app: Application, event_id: str, log: str) -> None:
    ((delivery_id, reason, payload),) = app.rows(
        "select outbox.text_id('dlv', delivery_id), reason, payload from outbox.dead_letters"
    )
    assert (reason, payload) == ("payload_unreadable", None)
    assert {entry["id"] for entry in app.receiver.received()} == set(app.committed) - {event_id}
    assert log.count("is a dead letter") == 1
    code, shown = run(app, "dead-letters", "show", delivery_id)
    assert code == 0, shown
    assert "payload_unreadable" in shown
    code, refused = run(app, "replay", delivery_id)
    assert code == 1, refused
    assert "Traceback" not in refused
    assert app.one("select count(*) from outbox.deliveries") == 0


@pytest.mark.slow
@pytest.mark.field("F65")
def test_a_damaged_event_that_is_pending_stops_no_other(killable_app: Application, killable: EmbeddedServer) -> None:
    app = killable_app
    app.subscribe()
    damaged = record_apart(app)
    damage(app, killable, damaged)
    app.record(20)
    relay = app.stage.drain()
    assert_buried_alone(app, damaged, relay.text)


@pytest.mark.slow
@pytest.mark.field("F65")
def test_a_damaged_event_that_is_due_stops_no_other(killable_app: Application, killable: EmbeddedServer) -> None:
    app = killable_app
    subscription = app.subscribe()
    app.rows("update outbox.subscriptions set paused_at = clock_timestamp()")
    damaged = record_apart(app)
    app.record(20)
    app.stage.drain()
    damage(app, killable, damaged)
    with app.engine.begin() as connection:
        outbox.subscriptions.resume(connection, subscription)
    relay = app.stage.drain()
    assert_buried_alone(app, damaged, relay.text)
