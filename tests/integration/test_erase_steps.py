"""The steps of an erasure: what comes meanwhile stays, a locked row holds up no other, all that is done is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import outbox
from outbox import subscriptions
from outbox.ids import parse_id
from relay.operations.erase.erasure import request_erasure, run_erasure
from relay.operations.erase.request import EraseRequest
from tests.support import seeding

pytestmark = pytest.mark.field("F23")
KEY = EraseRequest(kind="key", value="k")


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        yield connection


def execute(connection: sa.Connection, statement: str, **values: Any) -> Any:
    with connection.begin():
        result = connection.execute(sa.text(statement), values)
        return result.scalars().all() if result.returns_rows else []


def ask(connection: sa.Connection, request: EraseRequest, *, cancel_undelivered: bool = False) -> str:
    with connection.begin():
        return request_erasure(connection, None, request, cancel_undelivered=cancel_undelivered).id


def step(connection: sa.Connection, batch: int | None = 100) -> bool:
    (more,) = execute(connection, "select outbox.erase_next(:batch)", batch=batch)
    return bool(more)


def test_what_is_set_up_again_after_the_tenant_was_closed_stays(connection: sa.Connection) -> None:
    """Its deliveries were deleted too, although nobody had asked for that, and no attempt told of them."""
    with connection.begin():
        outbox.record(connection, "a.b", {})  # of nobody: numbers are given from here on
        removed = subscriptions.add(connection, "https://example.com/old", ["*"], tenant="acme").id
    asked = ask(connection, EraseRequest(kind="tenant", value="acme"))
    assert step(connection)  # close
    with connection.begin():
        again = subscriptions.add(connection, "https://example.com/new", ["*"], tenant="acme").id
        (kept,) = seeding.resolve(connection, seeding.record(connection, tenant="acme"), again)
        (gone,) = seeding.resolve(connection, seeding.record(connection, tenant="acme"), removed)
    done = run_erasure(connection, None, asked, batch_rows=1)
    assert (done.state, done.counts["subscriptions deleted"]) == ("done", 1)
    assert done.counts["deliveries and pending cancelled"] == 1
    assert execute(connection, "select id from outbox.subscriptions") == [parse_id("sub", again)]
    assert execute(connection, "select id from outbox.deliveries") == [parse_id("dlv", kept)]
    cancelled = "select delivery_id from outbox.attempts where verdict = 'cancelled'"
    assert execute(connection, cancelled) == [parse_id("dlv", gone)]
