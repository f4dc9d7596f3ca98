"""Erasure: a canary in every column that can hold one, erased, and looked for in every column of every table."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import outbox
from outbox import subscriptions
from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from outbox.errors import NotFoundError
from outbox.ids import SubscriptionId, parse_id
from relay.cli import cli
from relay.operations import tokens
from relay.operations.bulk import operations as bulk
from relay.operations.bulk.request import BulkRequest
from relay.operations.erase.erasure import (
    Erasure,
    cancel_erasure,
    list_erasures,
    receipt_of,
    request_erasure,
    resume_erasure,
    run_erasure,
    show_erasure,
)
from relay.operations.erase.request import EraseError, EraseRequest, plan_erasure
from tests.support import seeding

pytestmark = pytest.mark.field("F23")

CANARY = "canary_7f3a"  # a word that may stand in a type, too
HOUR = timedelta(hours=1)
SUBJECT = EraseRequest(kind="subject", path="customer.id", value="42")

# Columns of text that hold nothing of a tenant, and why. A column that is neither here nor has a canary below fails the
# test: whoever adds one decides what an erasure does with it, and shows it here.
HOLDS_NOTHING = {
    **dict.fromkeys(
        ("audit.action", "attempts.verdict", "attempts.outcome", "dead_letters.reason", "subscriptions.scheme",
         "subscriptions.format", "subscriptions.order_policy", "subscriptions.rate_limit", "tenant_limits.rate_limit",
         "secrets.kind", "secrets.sealed_to", "bulk_operations.kind", "bulk_operations.state", "bulk_operations.phase",
         "erasures.kind", "erasures.state", "erasures.phase", "attempts.address", "tokens.rights", "rollups.scope",
         "portal_links.rights", "rollups.last_outcome", "uncounted.verdicts", "uncounted.outcomes", "inbox.outcome"),
        "a word of ours, or an address",
    ),
    **dict.fromkeys(
        ("settings.name", "turns.name", "rounds.name", "rounds.error", "rights.role", "rights.object",
         "rights.privilege", "schema_migrations.name", "schema_migrations.checksum", "sealing_keys.id",
         "sealing_keys.key", "home.place", "uncounted_leaves.leaf",
         "relays.host", "relays.version", "relays.key_ids", "sending.reason", "sending.actor"),
        "about the installation",
    ),
    **dict.fromkeys(
        ("audit.actor", "audit.role", "tokens.created_by", "portal_links.created_by", "bulk_operations.requested_by",
         "erasures.requested_by", "erasures.role"),
        "who worked here, which the audit is for",
    ),
    **dict.fromkeys(("erasures.salt", "erasures.digest"), "cannot be turned back"),
    **dict.fromkeys(
        ("catalogues.name", "event_types.catalogue", "event_types.type", "event_types.description",
         "event_types.schema", "event_types.example", "event_types.deprecated"),
        "declared in the application's code, for all tenants",
    ),
    "rollups.type": "the name of a type is the application's, of all tenants together",
    **dict.fromkeys(("tokens.hash", "api_requests.key_hash", "api_requests.request_hash"), "a hash; the row goes"),
    **dict.fromkeys(("portal_links.hash", "portal_links.session_hash"), "a hash; the row goes"),
    **dict.fromkeys(("idempotency_keys.content", "idempotency_requests.content"), "a hash; the row goes"),
    **dict.fromkeys(("erasures.path", "erasures.counts"), "where to look, and how much it was"),
    **dict.fromkeys(("bulk_operations.plan", "bulk_operations.last_error", "erasures.last_error"), "ids and numbers"),
    "subscriptions.disabled_reason": "goes with the row",
}  # fmt: skip

_COLUMNS = """
select c.relname || '.' || a.attname from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and a.atttypid = any ('{text,text[],json,jsonb,bytea,xml,varchar,name}'::regtype[])
"""
_TABLES = """
select c.oid::regclass::text from pg_class c
where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'm') order by 1
"""


@pytest.fixture
def connection(engine: sa.Engine) -> Any:
    """Every statement a transaction of its own, unless one is begun."""
    with engine.connect() as connection:
        yield connection


def execute(connection: sa.Connection, statement: str, **values: Any) -> Any:
    with connection.begin():
        result = connection.execute(sa.text(statement), values)
        return result.all() if result.returns_rows else []


def where_is(connection: sa.Connection, canary: str) -> set[str]:
    """The columns of all tables, leaves too, in which the text stands: as it is, or as bytes."""
    found = set()
    bytes_ = canary.encode().hex()
    for (table,) in execute(connection, _TABLES):
        columns = execute(
            connection, "select attname from pg_attribute where attrelid = cast(:t as regclass) and attnum > 0"
            " and not attisdropped", t=table,
        )  # fmt: skip
        for (column,) in columns:
            if execute(
                connection, f"select 1 from {table} where position(:a in \"{column}\"::text) > 0"
                f" or position(:b in \"{column}\"::text) > 0 limit 1", a=canary, b=bytes_,
            ):  # fmt: skip
                found.add(f"{table.removeprefix('outbox.')}.{column}")
    return found


def fill(connection: sa.Connection, *, tenant: str, key: str | None, payload: str) -> tuple[str, str]:
    """One delivered event, one that died, one that was pruned; an echo in every answer. Returns subscription, event."""
    with connection.begin():
        name = subscriptions.add(connection, "https://example.com/hook", ["*"], tenant=tenant).id
        type_ = f"{tenant}.created"
        events = [seeding.record(connection, payload, type=type_, key=key, tenant=tenant) for _ in range(3)]
        made = [seeding.resolve(connection, event, name)[0] for event in events]
        for delivery, verdict in zip(made, ("delivered", "dead", "dead"), strict=True):
            seeding.attempt(connection, delivery, verdict, error=f"no {CANARY}")
        connection.execute(
            sa.text("update outbox.attempts set url = :t, headers = :t, excerpt = convert_to(:t, 'UTF8')"),
            {"t": f"https://example.com/{CANARY}"},
        )
        connection.execute(
            sa.text("update outbox.dead_letters set metadata = jsonb_build_object('by', cast(:t as text))"),
            {"t": CANARY},
        )
        seeding.prune_event(connection, events[2])
    return name, events[0]


def fill_tenant(connection: sa.Connection) -> str:
    """A canary in everything that a tenant has, or that is about one. Returns its subscription."""
    name, _ = fill(connection, tenant=CANARY, key=CANARY, payload=f'{{"n": "{CANARY}"}}')
    with connection.begin():
        outbox.record(
            connection, "order.created", {"n": CANARY}, tenant=CANARY, idempotency_key=CANARY,
            trace={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": f"a={CANARY}"},
            metadata={CANARY: CANARY},
        )  # fmt: skip
    with connection.begin():
        subscriptions.limit_tenant(connection, CANARY, rate_limit="5/s")
        subscriptions.update(
            connection, name, tenant=CANARY, metadata={"m": CANARY}, headers={"x-canary": CANARY},
            url=f"https://example.com/{CANARY}", types=["*", CANARY],
            filter={"payload": {"n": CANARY}}, transformation=f"{{text: '{CANARY}'}}",
        )  # fmt: skip
        subscriptions.update(connection, name, tenant=CANARY, name=CANARY, description=CANARY)
        connection.execute(sa.text("update outbox.subscriptions set managed_by = :c"), {"c": CANARY})
        connection.execute(
            sa.text(
                "update outbox.subscriptions set format_settings = jsonb_build_object('text', cast(:c as text)),"
                " metadata = metadata || '{\"n\": 1}' where id = :id"
            ),
            {"c": CANARY, "id": parse_id("sub", name)},
        )
        connection.execute(
            sa.text("insert into outbox.secrets (subscription_id, secret, hint, fingerprint) values (:id, :c, :c, :c)"),
            {"c": CANARY, "id": parse_id("sub", name)},
        )
        connection.execute(
            sa.text("insert into outbox.tenant_retention (tenant, events_days) values (:c, 7)"), {"c": CANARY}
        )
        outbox.portal_url(connection, CANARY, "https://hooks.example.com/portal", person=CANARY)
        made = tokens.create(connection, CANARY, name=CANARY, rights=["read"], whose=CANARY)
        connection.execute(
            sa.text(
                "insert into outbox.api_requests (token_id, key_hash, request_hash, answer)"
                " values (:id, sha256('a'), sha256('b'), convert_to(:c, 'UTF8'))"
            ),
            {"id": made.token.id, "c": CANARY},
        )
        insert_answers_and_counts(connection, name)
        insert_received(connection)
        bulk.add_bulk(connection, None, BulkRequest(kind="redrive", tenant=CANARY))
        started = bulk.add_bulk(connection, CANARY, BulkRequest(kind="backfill", subscription=name))
        bulk.start_bulk(connection, CANARY, started.id)
        request_erasure(connection, CANARY, EraseRequest(kind="key", value=CANARY), cancel_undelivered=True)
        blocked = request_erasure(connection, None, EraseRequest(kind="key", value="x", within=CANARY))
        cancel_erasure(connection, None, blocked.id)
    return name


def insert_answers_and_counts(connection: sa.Connection, name: str) -> None:
    """What relays write about a subscription: a test message's answer, and statistics."""
    connection.execute(
        sa.text(
            "insert into outbox.test_requests (subscription_id, type, payload, answered_at, answer)"
            " select :id, c || '.test', to_json(c), now(), to_json(c) from (values (cast(:c as text))) as of(c)"
        ),
        {"id": parse_id("sub", name), "c": CANARY},
    )
    connection.execute(
        sa.text(
            "insert into outbox.rollups (seconds, start, scope, subscription_id, tenant, type, delivered, failed,"
            " dead, cancelled, milliseconds, buckets, counts)"
            " values (60, now(), 'tenant', :id, :c, '', 1, 0, 0, 0, 1, '{}', '{}')"
        ),
        {"id": parse_id("sub", name), "c": CANARY},
    )


def insert_received(connection: sa.Connection) -> None:
    """What the application of the tenant received."""
    texts = ("tenant", "source", "message_id", "scheme", "method", "path", "headers", "reason", "entity", "error")
    columns, values = ", ".join(texts), ", ".join("c" for _ in texts)
    connection.execute(
        sa.text(
            f"insert into outbox.inbox (outcome, size, body, {columns})"
            f" select 'failed', 9, convert_to(c, 'UTF8'), {values} from (values (cast(:c as text))) as of(c)"
        ),
        {"c": CANARY},
    )
    connection.execute(sa.text("insert into outbox.inbox_ids values (:c, :c, :c)"), {"c": CANARY})


def erase(connection: sa.Connection, request: EraseRequest, tenant: str | None = None, **options: Any) -> Erasure:
    with connection.begin():
        asked = request_erasure(connection, tenant, request, **options)
    return run_erasure(connection, tenant, asked.id, batch_rows=2)


def test_nothing_of_a_tenant_is_left_in_any_column_of_any_table(connection: sa.Connection) -> None:
    fill_tenant(connection)
    with connection.begin():
        asked = request_erasure(connection, None, EraseRequest(kind="tenant", value=CANARY), cancel_undelivered=True)
    before = where_is(connection, CANARY)
    columns = {name for (name,) in execute(connection, _COLUMNS)}
    assert columns - before - set(HOLDS_NOTHING) == set(), "put a canary there, or say why there can be none"
    assert set(HOLDS_NOTHING) - columns == set(), "these are not there any more"
    done = run_erasure(connection, None, asked.id, batch_rows=2)
    assert done.state == "done"
    assert where_is(connection, CANARY) == set()
    assert execute(connection, "select distinct state from outbox.erasures order by 1") == [("cancelled",), ("done",)]
    assert done.counts["events deleted"] == 3
    assert done.counts["subscriptions deleted"] == 1
    assert execute(connection, "select count(*) from outbox.secrets") == [(0,)]


@pytest.mark.parametrize(
    ("request_", "key", "payload"),
    [
        (EraseRequest(kind="key", value=CANARY), CANARY, '{"a": 1}'),
        (EraseRequest(kind="subject", path="customer.id", value=CANARY), None, f'{{"customer": {{"id": "{CANARY}"}}}}'),
    ],
)
def test_nothing_of_a_key_or_a_person_is_left(
    connection: sa.Connection, request_: EraseRequest, key: str | None, payload: str
) -> None:
    """Of the event that was pruned too: its dead letter, and the answers in which the value stands."""
    name, _ = fill(connection, tenant="acme", key=key, payload=payload)
    with connection.begin():
        other = seeding.record(connection, '{"customer": {"id": "another"}}', key="another", tenant="acme")
        (delivery,) = seeding.resolve(connection, other, name)
        seeding.attempt(connection, delivery, "delivered", error="kept")
        bulk.add_bulk(connection, None, BulkRequest(kind="redrive", type="a.b"))
        connection.execute(sa.text("select outbox.audit_operation('purged', '', 'acme', jsonb_build_object('filter',"
                                   " jsonb_build_object('key', cast(:c as text))))"), {"c": CANARY})  # fmt: skip
    assert where_is(connection, CANARY)
    done = erase(connection, request_)
    assert where_is(connection, CANARY) == set()
    assert (done.state, done.counts["events deleted"], done.counts["dead letters deleted"]) == ("done", 2, 2)
    assert execute(connection, "select error from outbox.attempts where error is not null") == [("kept",)]
    assert execute(connection, "select count(*) from outbox.events") == [(1,)]
    assert execute(connection, "select count(*) from outbox.attempts") == [(4,)], "the record of what was done stays"


def test_what_is_undelivered_is_refused_with_its_count_and_cancelled_only_when_asked(connection: sa.Connection) -> None:
    with connection.begin():
        name = seeding.subscribe(connection)
        seeding.record(connection, '{"customer": {"id": 42}}')
        due = seeding.resolve(connection, seeding.record(connection, '{"customer": {"id": 42}}'), name)[0]
        kept = seeding.resolve(connection, seeding.record(connection, '{"customer": {"id": 43}}'), name)[0]
    with connection.begin(), pytest.raises(EraseError, match="undelivered: 2 deliveries or pending events are"):
        request_erasure(connection, None, SUBJECT)
    assert execute(connection, "select count(*) from outbox.erasures") == [(0,)]
    done = erase(connection, SUBJECT, cancel_undelivered=True)
    assert done.counts["deliveries and pending cancelled"] == 2
    assert execute(connection, "select outbox.text_id('dlv', id) from outbox.deliveries") == [(kept,)]
    cancelled = execute(connection, "select outbox.text_id('dlv', delivery_id), verdict from outbox.attempts")
    assert cancelled == [(due, "cancelled")]
    assert execute(connection, "select count(*) from outbox.pending") == [(0,)]


def test_what_becomes_undelivered_meanwhile_blocks_it(connection: sa.Connection) -> None:
    with connection.begin():
        event = seeding.record(connection, '{"customer": {"id": 42}}')
        name = seeding.subscribe(connection)
        seeding.attempt(connection, seeding.resolve(connection, event, name)[0], "delivered")
        asked = request_erasure(connection, None, SUBJECT)
        seeding.resolve(connection, event, name)  # somebody replays it
    blocked = run_erasure(connection, None, asked.id)
    assert (blocked.state, blocked.last_error) == (
        "blocked", "1 deliveries or pending events are undelivered; let them be cancelled, or wait and resume",
    )  # fmt: skip
    with connection.begin():
        resume_erasure(connection, None, asked.id, cancel_undelivered=True)
    assert run_erasure(connection, None, asked.id).state == "done"
    assert execute(connection, "select count(*) from outbox.events") == [(0,)]


def test_what_is_on_its_way_is_waited_for(connection: sa.Connection) -> None:
    """Its answer would come to be kept after the erasure."""
    with connection.begin():
        event = seeding.record(connection, '{"customer": {"id": 42}}')
        seeding.resolve(connection, event, seeding.subscribe(connection))
        asked = request_erasure(connection, None, SUBJECT, cancel_undelivered=True)
    execute(connection, "update outbox.deliveries set lease = 1, attempts = 1, due_at = now() + interval '1 minute'")
    for _ in range(20):
        execute(connection, "select outbox.erase_next(10)")
    assert execute(connection, "select count(*) from outbox.events") == [(1,)]
    execute(connection, "update outbox.deliveries set due_at = now()")
    execute(connection, "update outbox.erasures set waits_until = now()")
    assert run_erasure(connection, None, asked.id).state == "done"
    assert execute(connection, "select count(*) from outbox.events") == [(0,)]


@pytest.mark.parametrize(
    ("path", "value", "payload", "found"),
    [
        ("id", "42", '{"id": 42}', True),
        ("id", "42", '{"id": "42"}', True),
        ("id", "42", '{"id": 42.0}', True),
        ("id", "42", '{"id": 421}', False),
        ("id", "x", '{"id": ["y", "x"]}', True),
        ("id", "42", '{"a": {"id": 42}}', False),
        ("a.id", "42", '{"a": [{"id": 1}, {"id": 42}]}', True),
        ("a.1.id", "42", '{"a": [{"id": 42}, {"id": 1}]}', False),
        ("a.0.id", "42", '{"a": [{"id": 42}]}', True),
        ("a", "null", '{"a": null}', False),
        ("a", "true", '{"a": true}', True),
        ("a", "é", '{"a": "\\u00e9"}', True),
        ("a", "x", '{"b": "\\u0000", "a": "x"}', True),
        ("a", "x", '{"b": "\\\\u0000", "a": "x"}', True),
        ("a", "x", '{"a": "\\u0000"}', False),
        ("a", "42", "[]", False),
        ("a", "42", "7", False),
    ],
)
def test_where_a_value_stands(connection: sa.Connection, path: str, value: str, payload: str, found: bool) -> None:
    with connection.begin():
        seeding.record(connection, payload)
        planned = plan_erasure(connection, None, EraseRequest(kind="subject", path=path, value=value))
    assert planned.events == found


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"kind": "person", "value": "x"}, "kind: 'person' is none of tenant, key, subject"),
        ({"kind": "key", "value": ""}, "value: must not be empty"),
        ({"kind": "key", "value": "a\0b"}, "value: must be text, without NUL"),
        ({"kind": "key", "value": "x" * 5000}, "value: must have at most 4096 bytes"),
        ({"kind": "key", "value": "x", "path": "a"}, "path: names where"),
        ({"kind": "subject", "value": "x"}, "path: names where"),
        ({"kind": "subject", "value": "x", "path": "a..b"}, "path: 'a..b' has an empty step"),
        ({"kind": "tenant", "value": "*"}, "tenant: name one tenant"),
        ({"kind": "tenant", "value": "a", "within": "b"}, "tenant: name one tenant"),
    ],
)
def test_what_names_nothing_is_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(EraseError, match=why):
        EraseRequest(**asked)


def test_a_tenant_erases_keys_and_persons_of_its_own_only(connection: sa.Connection) -> None:
    with connection.begin():
        for tenant in ("acme", "globex"):
            seeding.record(connection, '{"customer": {"id": 42}}', tenant=tenant)
        with pytest.raises(NotFoundError, match="for the operator only"):
            request_erasure(connection, "acme", EraseRequest(kind="tenant", value="acme"))
        with pytest.raises(EraseError, match="within: only your own tenant"):
            plan_erasure(connection, "acme", EraseRequest(kind="key", value="x", within="globex"))
    done = erase(connection, SUBJECT, "acme", cancel_undelivered=True)
    assert execute(connection, "select tenant from outbox.events") == [("globex",)]
    with connection.begin():
        assert [one.id for one in list_erasures(connection, "acme")] == [done.id]
        assert not list(list_erasures(connection, "globex"))
        with pytest.raises(NotFoundError):
            show_erasure(connection, "globex", done.id)


def test_a_receipt_says_what_was_done_and_not_about_whom(connection: sa.Connection) -> None:
    with connection.begin():
        outbox.act_as(connection, "alice")
        asked = request_erasure(connection, None, EraseRequest(kind="key", value=CANARY))
        with pytest.raises(EraseError, match="is running; a receipt is for what is done"):
            receipt_of(asked)
    receipt = receipt_of(run_erasure(connection, None, asked.id))
    assert CANARY not in repr(receipt)
    assert receipt.asked_by == "alice"
    assert any("examples of declared event types" in one for one in receipt.not_reached)
    assert receipt.value_sha256 == hashlib.sha256(f"{receipt.value_salt}:{CANARY}".encode()).hexdigest()
    with connection.begin():
        noted = {entry.action: entry for entry in list_audit(connection, None, Filters(), subject=str(asked.id))}
    assert set(noted) == {"erasure started", "erased"}
    assert (noted["erasure started"].actor, noted["erasure started"].details["kind"]) == ("alice", "key")


def test_the_audit_keeps_who_and_when(connection: sa.Connection) -> None:
    fill_tenant(connection)
    before = execute(connection, "select id, at, actor, role, action from outbox.audit order by id")
    erase(connection, EraseRequest(kind="tenant", value=CANARY), cancel_undelivered=True)
    after = execute(connection, "select id, at, actor, role, action from outbox.audit order by id")
    assert after[: len(before)] == before
    with connection.begin(), pytest.raises(sa.exc.NotSupportedError, match="append-only"):
        connection.execute(sa.text("update outbox.audit set actor = 'x'"))
    with connection.begin():
        assert list(list_audit(connection, None, Filters(limit=1000)))


def test_an_erasure_that_is_cancelled_forgets_what_it_was_about(connection: sa.Connection) -> None:
    fill(connection, tenant="acme", key=None, payload="{}")
    with connection.begin():
        asked = request_erasure(connection, None, EraseRequest(kind="key", value="the-key"))
        cancel_erasure(connection, None, asked.id)
        with pytest.raises(EraseError, match="is cancelled, not running or blocked"):
            cancel_erasure(connection, None, asked.id)
    assert where_is(connection, "the-key") == set()
    assert execute(connection, "select outbox.erase_next()") == [(False,)]


class TestCommand:
    @pytest.fixture
    def run(self, database_url: str) -> Any:
        def run(*arguments: str) -> tuple[str, str]:
            environ = {"RELAY_DATABASE_URL": database_url}
            ended = CliRunner().invoke(cli, arguments, env=environ, standalone_mode=False)
            if ended.exception is not None:
                raise ended.exception
            return ended.stdout, ended.stderr

        return run

    def test_from_the_dry_run_to_the_receipt(self, run: Any, connection: sa.Connection) -> None:
        fill(connection, tenant="acme", key=CANARY, payload="{}")
        said, _ = run("erase", "key", CANARY, "--dry-run")
        assert said == "would erase 2 events, 2 dead letters, 0 subscriptions, 0 received requests; 0 undelivered\n"
        assert json.loads(run("erase", "subject", "a.b=7", "--dry-run", "--json")[0])["events"] == 0
        with pytest.raises(Exception, match=r"Erase for good: 2 events, .*\? Add --yes"):
            run("erase", "key", CANARY)
        receipt = json.loads(run("erase", "key", CANARY, "--yes")[0])
        assert receipt["counts"]["events deleted"] == 2
        assert json.loads(run("erase", "receipt", receipt["erasure"])[0]) == receipt
        assert receipt["erasure"] in run("erase", "list")[0]

    def test_a_subject_is_a_path_and_a_value(self, run: Any, connection: sa.Connection) -> None:
        with pytest.raises(Exception, match="PATH=VALUE"):
            run("erase", "subject", "customer.id", "--yes")
        with connection.begin():
            seeding.record(connection, '{"customer": {"id": 42}}', tenant="acme")
        with pytest.raises(EraseError, match="undelivered: 1 deliveries"):
            run("erase", "subject", "customer.id=42", "--yes")
        run("erase", "subject", "customer.id=42", "--tenant", "globex", "--yes")
        assert execute(connection, "select count(*) from outbox.events") == [(1,)]
        run("erase", "subject", "customer.id=42", "--tenant", "acme", "--cancel-undelivered", "--yes")
        assert execute(connection, "select count(*) from outbox.events") == [(0,)]

    def test_a_tenant(self, run: Any, connection: sa.Connection) -> None:
        name = fill_tenant(connection)
        run("erase", "tenant", CANARY, "--cancel-undelivered", "--yes")
        assert where_is(connection, CANARY) == set()
        with connection.begin(), pytest.raises(NotFoundError):
            subscriptions.get(connection, SubscriptionId.of(name), tenant=CANARY)
