"""Types under `relay.` are the relay's own: applications cannot record them, and `*` does not ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

import outbox
from tests.support.databases import plain

pytestmark = pytest.mark.field("F24")

RULE = "type_is_not_reserved"
INSERT = "insert into outbox.events (type, payload) values (%s, '1')"


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        yield connection


def test_record_refuses_one_before_any_sql(engine: Engine) -> None:
    with engine.begin() as connection:
        with pytest.raises(outbox.RecordError, match=r"^type: 'relay\.subscription\.disabled' begins with relay\., "):
            outbox.record(connection, "relay.subscription.disabled", {})
        outbox.record(connection, "relay", {})
        outbox.record(connection, "relayed.order", {})
        outbox.record(connection, "order.relay.x", {})


@pytest.mark.parametrize("role", ["postgres", "outbox_app"])
@pytest.mark.parametrize(
    "statement", [INSERT, "select outbox.record(%s, '1')", "select outbox.record(%s, '1', idempotency_key => 'once')"]
)
def test_sql_refuses_one_from_whoever_draws_its_number(
    database: psycopg.Connection[Any], role: str, statement: str
) -> None:
    if role != "postgres":
        database.execute(f"set role {role}")
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        database.execute(statement, ("relay.subscription.disabled",))
    assert refused.value.diag.constraint_name == RULE
    assert "begin it with another word" in str(refused.value.diag.message_hint)
    database.execute(statement, ("relay",))


def copy_in(database: psycopg.Connection[Any], *rows: tuple[str, str]) -> None:
    with database.cursor().copy("copy outbox.events (type, payload) from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def test_one_of_many_rows_is_enough(database: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=RULE):
        database.execute(
            "insert into outbox.events (type, payload) select t, '1' from unnest(array['a.b', 'relay.x', 'a.b']) t"
        )
    with pytest.raises(psycopg.errors.CheckViolation, match=RULE):
        copy_in(database, ("a.b", "1"), ("relay.x", "1"))
    assert database.execute("select count(*) from outbox.events").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into outbox.events (type, payload) values ('relay.x', '1')",
        "perform outbox.record('relay.x', '1')",
        "perform outbox.record('relay.x', '1', idempotency_key => 'once')",
        "perform outbox.record_once('relay.x', '1', null, '', now(), 0::smallint, null, 'once')",
    ],
)
def test_a_trigger_of_an_application_may_not_either(database: psycopg.Connection[Any], statement: str) -> None:
    database.execute("create table mine (x integer); grant insert on mine to outbox_app")
    database.execute(
        f"create function tell() returns trigger language plpgsql as $$ begin {statement}; return null; end $$"
    )
    database.execute("create trigger tell after insert on mine for each row execute function tell()")
    database.execute("set role outbox_app")
    with pytest.raises(psycopg.errors.CheckViolation, match=RULE):
        database.execute("insert into mine values (1)")


def test_one_that_was_recorded_may_be_written_again_by_its_number(database: psycopg.Connection[Any]) -> None:
    """As a restore of the data alone does it, and a replay of an event that was pruned."""
    again = "insert into outbox.events (seq, type, payload) values (7, 'relay.x', '1')"
    database.execute("set role outbox_operator")
    database.execute(again)
    database.execute("update outbox.events set available_at = now() where seq = 7")
    database.execute("reset role")
    database.execute(INSERT, ("a.b",))
    database.execute(again.replace("(7", "(8"))
    database.execute("set role outbox_app")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.execute(again.replace("(7", "(9"))


@pytest.mark.parametrize(
    ("patterns", "matched"),
    [
        (["*"], False),
        (["relay.*"], True),
        (["*", "relay.*"], True),
        (["relay.subscription.*"], True),
        (["relay.subscription.disabled"], True),
        (["relay.breaker.*"], False),
    ],
)
def test_a_star_asks_for_the_applications_events_only(engine: Engine, patterns: list[str], *, matched: bool) -> None:
    with engine.begin() as connection:
        made = outbox.subscribe(connection, "https://example.com/", patterns)
        found = outbox.subscriptions.list(connection, type="relay.subscription.disabled")
        assert [one.id for one in found] == ([made.id] if matched else [])
        assert len(outbox.subscriptions.list(connection, type="order.placed")) == ("*" in patterns)
        other = outbox.subscribe(connection, "https://example.com/", ["order.*"])
        outbox.subscriptions.disable(connection, other.id, reason="moved")
        (event,) = outbox.events.list(connection, type="relay.*").items
        told = outbox.events.explain(connection, event.id)
        assert told.subscriptions is not None
        assert {str(one.id): one.matches for one in told.subscriptions.items} == {made.id: matched, other.id: False}


def test_disabling_and_resuming_by_hand_is_told_in_the_same_transaction(engine: Engine) -> None:
    what = "type, key, tenant, payload::json ->> 'reason', payload::json ->> 'by'"
    with engine.begin() as connection:
        made = outbox.subscribe(connection, "https://example.com/secret?key=pass", ["*"], tenant="acme")
        outbox.subscriptions.disable(connection, made.id, reason="moved", tenant="acme")
        outbox.subscriptions.disable(connection, made.id, reason="again", tenant="acme")
        outbox.subscriptions.resume(connection, made.id, tenant="acme")
        outbox.subscriptions.pause(connection, made.id, tenant="acme")
        outbox.subscriptions.remove(connection, made.id, tenant="acme")
        assert connection.exec_driver_sql(f"select {what} from outbox.events order by seq").all() == [
            ("relay.subscription.disabled", made.id, "acme", "moved", None),
            ("relay.subscription.recovered", made.id, "acme", "moved", "person"),
        ]
        assert not connection.exec_driver_sql("select from outbox.events where payload ~ 'secret|pass'").all()


def test_what_is_of_every_tenant_is_told_to_the_operator(engine: Engine) -> None:
    with engine.begin() as connection:
        made = outbox.subscriptions.add_for_every_tenant(connection, "https://example.com/", ["*"])
        outbox.subscriptions.disable(connection, made.id, reason="moved", tenant=outbox.EVERY_TENANT)
        assert connection.exec_driver_sql("select tenant from outbox.events").all() == [("",)]
