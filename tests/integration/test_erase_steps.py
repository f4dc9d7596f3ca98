"""The steps of an erasure: what comes meanwhile stays, a locked row holds up no other, all that is done is counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import outbox
from outbox import subscriptions
from outbox.ids import parse_id
from relay.operations.erase.erasure import request_erasure, run_erasure, show_erasure
from relay.operations.erase.request import EraseRequest, plan_erasure
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


CALLS = """
select format('outbox.%I(%s)', proname, array_to_string(array(
    select case when name = 'batch' then '{}' else 'null\\:\\:' || format_type(type, null) end
    from unnest(proargnames, cast(proargtypes as oid[])) a(name, type) where type is not null), ', '))
from pg_proc where pronamespace = 'outbox'::regnamespace and prosecdef and 'batch' = any (proargnames)
"""


@pytest.mark.parametrize("batch", ["0", "-1", "null"])
def test_a_step_of_no_rows_is_refused(connection: sa.Connection, batch: str) -> None:
    """It looked like the end of each phase: the erasure was done, with a receipt, and everything still there."""
    with connection.begin():
        outbox.record(connection, "a.b", {}, key="k")
    asked = ask(connection, KEY, cancel_undelivered=True)
    calls = execute(connection, CALLS)
    assert {"outbox.erase_next({}, null::uuid)", "outbox.prune_tenant({})"} < set(calls)
    for call in calls:
        with pytest.raises(sa.exc.DBAPIError, match=f"batch: {batch} is not at least 1"), connection.begin():
            connection.exec_driver_sql(f"select {call.format(batch)}")
    assert run_erasure(connection, None, asked).counts["events deleted"] == 1


def test_a_locked_row_holds_up_no_other_erasure(connection: sa.Connection, database_url: str) -> None:
    with connection.begin():
        for key in ("k", "free"):
            outbox.record(connection, "a.b", {}, key=key)
    locked = ask(connection, KEY, cancel_undelivered=True)
    free = ask(connection, EraseRequest(kind="key", value="free"), cancel_undelivered=True)
    with psycopg.connect(database_url) as holder:
        holder.execute("select from outbox.events where key = 'k' for update")
        while step(connection):
            pass
        execute(connection, "update outbox.erasures set waits_until = now() where waits_until is not null")
        while step(connection):
            pass
        with connection.begin():
            assert show_erasure(connection, None, free).state == "done"
            assert show_erasure(connection, None, locked).state == "running"
    execute(connection, "update outbox.erasures set waits_until = null")
    assert run_erasure(connection, None, locked).counts["events deleted"] == 1


def test_what_is_cancelled_while_another_is_being_sent_is_counted(connection: sa.Connection) -> None:
    with connection.begin():
        name = subscriptions.add(connection, "https://example.com/", ["*"]).id
        made = [seeding.resolve(connection, seeding.record(connection, "{}", key="k"), name)[0] for _ in range(4)]
        connection.execute(
            sa.text("update outbox.deliveries set lease = 7, attempts = 1, due_at = 'infinity' where id = :id"),
            {"id": parse_id("dlv", made[0])},
        )
    asked = ask(connection, KEY, cancel_undelivered=True)
    while step(connection):
        pass
    execute(connection, "delete from outbox.deliveries")  # its relay has delivered it
    execute(connection, "update outbox.erasures set waits_until = null")
    done = run_erasure(connection, None, asked)
    assert (done.counts["events deleted"], done.counts["deliveries and pending cancelled"]) == (4, 3)


# Eleven requests of one day, some at the same time, one of long ago and one that is dated ahead.
_RECEIVED = """
insert into outbox.inbox (id, at, tenant, source, entity, size, body, outcome)
select gen_random_uuid(), at, case n % 2 when 0 then 'acme' else 'globex' end, 'shop', 'k' || n % 3, octet_length(body),
       body, 'accepted'
from (select n, case when n = 1 then timestamptz '1969-01-01Z' when n = 2 then now() + interval '1 hour'
                     else now() - (n / 4) * interval '1 minute' end as at,
             convert_to(format('{"who": "p%s"}', n % 4), 'UTF8') as body from generate_series(1, 11) n) given
"""
_ABOUT = {
    "tenant": (EraseRequest(kind="tenant", value="acme"), "tenant = 'acme'"),
    "key": (EraseRequest(kind="key", value="k1"), "entity = 'k1'"),
    "key of a tenant": (EraseRequest(kind="key", value="k1", within="acme"), "entity = 'k1' and tenant = 'acme'"),
    "subject": (EraseRequest(kind="subject", value="p3", path="who"), "convert_from(body, 'UTF8') like '%p3%'"),
    "nobody": (EraseRequest(kind="subject", value="p9", path="who"), "false"),
}


@pytest.mark.parametrize("about", _ABOUT)
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_what_was_received_is_looked_through_in_steps(connection: sa.Connection, about: str, batch: int) -> None:
    request, condition = _ABOUT[about]
    with connection.begin():
        connection.execute(sa.text(_RECEIVED))
        meant = connection.execute(sa.text(f"select count(*) from outbox.inbox where {condition}")).scalar_one()
        planned = plan_erasure(connection, None, request).received_requests
        asked = request_erasure(connection, None, request)
    done = run_erasure(connection, None, asked.id, batch_rows=batch)
    with connection.begin():
        left = connection.execute(sa.text("select count(*) from outbox.inbox")).scalar_one()
        still = connection.execute(sa.text(f"select count(*) from outbox.inbox where {condition}")).scalar_one()
    assert (planned, done.counts.get("received requests deleted", 0), left, still) == (meant, meant, 11 - meant, 0)


def test_no_step_looks_at_more_received_requests_than_its_batch(connection: sa.Connection) -> None:
    asked = sa.text(
        "select reached, cardinality(ids) from outbox.received_of(jsonb_populate_record(null::outbox.erasures,"
        """ '{"kind": "subject", "value": "p3", "path": ["who"]}'), cast(:after as timestamptz), 3)"""
    )
    with connection.begin():
        connection.execute(sa.text(_RECEIVED.replace("n / 4", "n")))
        after, found = "-infinity", []
        while (row := connection.execute(asked, {"after": after}).one()).reached is not None:
            found.append(row.cardinality or 0)
            after = row.reached
    assert (len(found), sum(found)) == (4, 3)
