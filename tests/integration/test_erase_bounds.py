"""How far an erasure reaches: not to another tenant, not past a poison payload, not before its last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import outbox
from outbox import subscriptions
from outbox.ids import parse_id
from relay.operations import tokens
from relay.operations.erase.erasure import request_erasure, resume_erasure, run_erasure, show_erasure
from relay.operations.erase.request import EraseError, EraseRequest
from tests.support import seeding

pytestmark = pytest.mark.field("F23")


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        yield connection


def execute(connection: sa.Connection, statement: str, **values: Any) -> Any:
    with connection.begin():
        result = connection.execute(sa.text(statement), values)
        return result.all() if result.returns_rows else []


def erase(connection: sa.Connection, request: EraseRequest, tenant: str | None = None, **options: Any) -> Any:
    with connection.begin():
        asked = request_erasure(connection, tenant, request, **options)
    return run_erasure(connection, tenant, asked.id, batch_rows=2)


def others(connection: sa.Connection) -> dict[str, Any]:
    """What tenant b has that holds short texts, and what is the operator's."""
    return {
        "audit": execute(connection, "select * from outbox.audit where tenant = 'b' order by id"),
        "attempts": execute(connection, "select * from outbox.attempts where url like '%b.example%' order by at"),
        "tests": execute(connection, "select * from outbox.test_requests order by id"),
        "requests": execute(connection, "select * from outbox.api_requests order by token_id"),
        "rollups": execute(connection, "select * from outbox.rollups where scope = 'all'"),
    }


@pytest.fixture
def of_b(connection: sa.Connection) -> dict[str, Any]:
    """A subscription, an attempt of a pruned event, a test message and a kept answer of tenant b."""
    with connection.begin():
        name = subscriptions.add(connection, "https://b.example/hook", ["*"], tenant="b").id
        subscriptions.update(connection, name, tenant="b", description="of b")
        event = seeding.record(connection, '{"url": "b"}', type="b.url", key="k", tenant="b")
        (delivery,) = seeding.resolve(connection, event, name)
        seeding.attempt(connection, delivery, "delivered", error="b url 1")
        connection.execute(sa.text("update outbox.attempts set url = 'https://b.example/1', headers = 'b'"))
        seeding.prune_event(connection, event)
        token = tokens.create(connection, "b", name="b", rights=["read"], whose="b").token.id
        connection.execute(
            sa.text("insert into outbox.api_requests (token_id, key_hash, request_hash, answer)"
                    " values (:id, sha256('a'), sha256('b'), convert_to('b url 1', 'UTF8'))"), {"id": token},
        )  # fmt: skip
        connection.execute(
            sa.text(
                "insert into outbox.test_requests (subscription_id, type, payload) values (:id, 'a.b', '\"b url 1\"')"
            ),
            {"id": parse_id("sub", name)},
        )
        connection.execute(
            sa.text(
                "insert into outbox.rollups (seconds, start, scope, subscription_id, tenant, type, delivered,"
                " failed, dead, cancelled, milliseconds, buckets, counts)"
                " values (60, now(), 'all', :id, '', '', 1, 0, 0, 0, 1, '{}', '{}')"
            ),
            {"id": parse_id("sub", name)},
        )
    return others(connection)


@pytest.mark.parametrize("value", ["b", "url", "1", "of b", "description"])
@pytest.mark.parametrize("tenant", ["a", None])
def test_a_tenants_erasure_touches_nothing_of_another(
    connection: sa.Connection, of_b: dict[str, Any], value: str, tenant: str | None
) -> None:
    """Asked for by the tenant, or by the operator within it; also where others have the value, or a name like it."""
    for request in (
        EraseRequest(kind="key", value=value, within="a"),
        EraseRequest(kind="subject", path="url", value=value, within="a"),
    ):
        assert erase(connection, request, tenant).state == "done"
    assert others(connection) == of_b


def test_another_tenants_erasure_leaves_it_too(connection: sa.Connection, of_b: dict[str, Any]) -> None:
    assert erase(connection, EraseRequest(kind="tenant", value="1")).state == "done"
    assert others(connection) == of_b
    with pytest.raises(EraseError, match=r"^value: must not be empty; what has no tenant is erased by key or subject$"):
        EraseRequest(kind="tenant", value="")


POISON = [
    r'{"b": "\ud800", "who": "x"}', r'{"b": "\udc00\ud800\ud800", "who": "x"}', r'{"b": "\u0000\u0000", "who": "x"}',
    r'{"b": "\\\ud83d\ude00\ud83d", "who": "x"}', '{"b": ' + "[" * 800 + "1" + "]" * 800 + ', "who": "x"}',
    '{"b": 1, "who": ' + "[" * 800 + '"x"' + "]" * 800 + "}",
]  # fmt: skip


@pytest.mark.parametrize("payload", POISON)
def test_a_payload_that_is_hard_to_read_is_erased_like_any_other(connection: sa.Connection, payload: str) -> None:
    with connection.begin():
        for one in (payload, payload.replace('"x"', '"y"'), '{"who": "x"}'):
            connection.execute(
                sa.text("insert into outbox.events (type, tenant, payload) values ('a.b', 'a', :p)"), {"p": one}
            )
    done = erase(connection, EraseRequest(kind="subject", path="who", value="x"), cancel_undelivered=True)
    assert (done.state, done.counts["events deleted"]) == ("done", 2)
    assert [one for (one,) in execute(connection, "select payload from outbox.events")] == [
        payload.replace('"x"', '"y"')
    ]


def test_one_that_fails_is_put_aside_and_stands_before_no_other(connection: sa.Connection) -> None:
    with connection.begin():
        connection.execute(
            sa.text(
                "create function refuse() returns trigger language plpgsql as"
                " $$ begin raise 'secret %', old.key; end $$"
            )
        )
        connection.execute(sa.text(
            "create trigger refuse before delete on outbox.events for each row when (old.key = 'bad') execute function"
            " refuse()"))  # fmt: skip
        for key in ("bad", "good"):
            outbox.record(connection, "a.b", {}, key=key)
        first, second = (
            request_erasure(connection, None, EraseRequest(kind="key", value=key), cancel_undelivered=True).id
            for key in ("bad", "good")
        )
    for _ in range(40):
        execute(connection, "select outbox.erase_next(10)")
    assert show_erasure(connection, None, second).state == "done"
    failed = show_erasure(connection, None, first)
    assert (failed.state, failed.last_error) == ("blocked", "phase events failed with SQLSTATE P0001")
    connection.rollback()
    execute(connection, "drop trigger refuse on outbox.events")
    with connection.begin():
        resume_erasure(connection, None, first)
    assert run_erasure(connection, None, first).state == "done"


def test_what_dies_while_events_are_looked_at_is_erased_too(connection: sa.Connection) -> None:
    with connection.begin():
        name = subscriptions.add(connection, "https://example.com/", ["*"]).id
        event = seeding.record(connection, "{}", key="k")
        (delivery,) = seeding.resolve(connection, event, name)
        asked = request_erasure(connection, None, EraseRequest(kind="key", value="k"), cancel_undelivered=True)
    while show_erasure(connection, None, asked.id).phase != "events":
        connection.rollback()
        execute(connection, "select outbox.erase_next(10)")
    connection.rollback()
    with connection.begin():
        seeding.attempt(connection, delivery, "dead", error="no")
        seeding.prune_event(connection, event)
    assert run_erasure(connection, None, asked.id).state == "done"
    assert execute(connection, "select count(*) from outbox.dead_letters") == [(0,)]


def test_what_waits_is_cancelled_while_another_of_them_is_being_sent(connection: sa.Connection) -> None:
    """Else a failing endpoint could have something on the wire at each look, and nothing would ever be cancelled."""
    with connection.begin():
        name = subscriptions.add(connection, "https://example.com/", ["*"]).id
        made = [seeding.resolve(connection, seeding.record(connection, "{}", key="k"), name)[0] for _ in range(5)]
        connection.execute(
            sa.text(
                "update outbox.deliveries set lease = 7, attempts = 1, due_at = now() + interval '1 h' where id = :id"
            ),
            {"id": parse_id("dlv", made[0])},
        )
        request_erasure(connection, None, EraseRequest(kind="key", value="k"), cancel_undelivered=True)
    for _ in range(10):
        execute(connection, "select outbox.erase_next(100)")
    assert execute(connection, "select lease from outbox.deliveries") == [(7,)]


@pytest.mark.parametrize(("role", "why"), [("outbox_operator", "done_at_the_end"), ("outbox_relay", None)])
def test_only_its_last_step_ends_an_erasure(connection: sa.Connection, role: str, why: str | None) -> None:
    with connection.begin():
        outbox.record(connection, "a.b", {}, key="k")
        request_erasure(connection, None, EraseRequest(kind="key", value="k"), cancel_undelivered=True)
    connection.execute(sa.text(f"set role {role}"))
    with pytest.raises(sa.exc.DBAPIError) as refused:
        connection.execute(sa.text("update outbox.erasures set state = 'done'"))
    diagnosis = refused.value.orig.diag  # type: ignore[union-attr]
    assert (diagnosis.constraint_name, diagnosis.sqlstate) == (why, "23514" if why else "42501")
