"""The group roles that migrate makes: each can do its work as a plain login role, and nothing beyond it."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.errors import InsufficientPrivilege
from sqlalchemy.engine import make_url

import outbox
from outbox.errors import SchemaError
from outbox.schema import runner as schema
from relay.cli.output import fields_of
from relay.config.options import Config
from relay.operations.denied_rights import RightsError
from relay.operations.prune import Pruned, prune
from relay.operations.secrets import rekey, secrets_at_rest
from relay.operations.status.status import status
from relay.process.housekeeping import Housekeeping
from relay.process.startup import check_database
from relay.secrets.keyring import Keyring, new_private_key
from tests.support import databases

TABLES = "select relname from pg_class where relnamespace = 'outbox'::regnamespace and relkind in ('r', 'p')"


def refused(url: str, statement: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute(statement)
        except InsufficientPrivilege:
            return True
    return False


@contextmanager
def receiver() -> Iterator[str]:
    """Yield the URL of a server on this machine that answers every POST with 204."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_an_application_records_with_outbox_app_alone(login: Callable[..., str], engine: sa.Engine) -> None:
    url = login("outbox_app")
    with databases.engine_on(url) as own, own.begin() as connection:
        recorded = outbox.record(connection, "order.created", {"id": 7})
        by_sql = connection.scalar(sa.text("select outbox.record('order.created', '{}')"))
        schema.require_current(connection)
    with engine.connect() as connection:
        ids = connection.scalars(sa.text("select outbox.text_id('evt', id) from outbox.events")).all()
        assert set(ids) == {recorded.id, by_sql}
        assert connection.scalar(sa.text("select count(*) from outbox.pending")) == 2


def test_an_application_sees_and_changes_nothing_else(login: Callable[..., str], engine: sa.Engine) -> None:
    url = login("outbox_app")
    with engine.connect() as connection:
        tables = set(connection.scalars(sa.text(TABLES)))
    for table in tables - {"schema_migrations", "events"}:
        assert refused(url, f"select * from outbox.{table}"), table
        assert refused(url, f"insert into outbox.{table} default values"), table
    assert refused(url, "select payload from outbox.events")
    assert refused(url, "update outbox.events set payload = '1'")
    assert refused(url, "delete from outbox.events")
    assert refused(url, "insert into outbox.events_1 (type, payload) values ('a', '1')")
    assert refused(url, "insert into outbox.events_default (type, payload) values ('a', '1')")
    assert refused(url, "select outbox.retire_event_leaf(clock_timestamp())")
    assert refused(url, "select outbox.make_event_leaf(1000)")


def test_a_stranger_gets_nothing(login: Callable[..., str]) -> None:
    url = login()
    for statement in ("select outbox.uuid7()", "select outbox.record('a', '1')", "select * from outbox.events"):
        assert refused(url, statement)


@pytest.mark.parametrize("role", ["outbox_app", "outbox_reader", "outbox_operator"])
def test_a_relay_says_which_role_it_lacks(login: Callable[..., str], role: str) -> None:
    """A wrong role is no outage: it ends at once, with the mend."""
    with pytest.raises(RightsError, match=r"may not .* on outbox\.\w+.*; grant outbox_relay to "):
        check_database(Config(database_url=login(role)))


def test_a_relay_from_which_rows_are_hidden_does_not_start(login: Callable[..., str], engine: sa.Engine) -> None:
    """It would find nothing to do, and say nothing."""
    url = login("outbox_relay")
    with engine.begin() as connection:
        connection.execute(sa.text("alter table outbox.pending enable row level security"))
    hidden = r'rows of table "pending" from outbox_test_.*alter table outbox.pending disable'
    with pytest.raises(RightsError, match=hidden):
        check_database(Config(database_url=url))
    with engine.begin() as connection:
        connection.execute(sa.text("create policy relays on outbox.pending to outbox_relay using (true)"))
    check_database(Config(database_url=url))


def test_a_relay_runs_with_outbox_relay_alone(login: Callable[..., str], engine: sa.Engine) -> None:
    """One delivery succeeds, one fails and is buried; leaves, retention and removed subscriptions are kept too."""
    with receiver() as url, engine.connect() as connection:
        with connection.begin():
            outbox.subscriptions.add(connection, url, ["order.*"])
            outbox.subscriptions.add(connection, "http://127.0.0.1:4/", ["order.*"], schedule_seconds=[])
            gone = outbox.subscriptions.add(connection, url, ["order.*"])
            outbox.subscriptions.remove(connection, gone.id)
            connection.execute(
                sa.text("update outbox.subscriptions set removed_at = '2020-01-01' where removed_at > '-infinity'")
            )
            connection.execute(sa.text("select setval('outbox.events_seq', 1500000)"))
            outbox.record(connection, "order.created", {})
        environment = {
            "PATH": os.environ["PATH"],
            "RELAY_DATABASE_URL": login("outbox_relay"),
            "RELAY_ALLOW_HTTP": "true",
            "RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        relay = subprocess.run(
            [sys.executable, "-m", "relay", "run", "--until-drained"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert relay.returncode == 0, relay.stderr
        assert "permission" not in relay.stderr
        verdicts = connection.scalars(sa.text("select verdict from outbox.attempts order by verdict")).all()
        assert verdicts == ["dead", "delivered"]
        assert connection.scalar(sa.text("select count(*) from outbox.dead_letters")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "insert into outbox.events (type, payload) values ('a', '1')",
        "update outbox.events set payload = '1'",
        "delete from outbox.events",
        "insert into outbox.subscriptions (url, types) values ('https://example.com', '{a}')",
        "update outbox.subscriptions set url = 'https://example.com'",
        "insert into outbox.secrets (subscription_id, secret) values (gen_random_uuid(), 'x')",
        "delete from outbox.attempts",
        "update outbox.attempts set verdict = 'delivered'",
        "delete from outbox.resolutions",
        "insert into outbox.attempts_default select * from outbox.attempts",
        "truncate outbox.events",
    ],
)
def test_a_relay_does_nothing_beyond_its_work(login: Callable[..., str], statement: str) -> None:
    assert refused(login("outbox_relay"), statement)


@pytest.mark.field("F56")
def test_an_application_that_records_and_manages_is_a_member_of_two(login: Callable[..., str]) -> None:
    with databases.engine_on(login("outbox_app", "outbox_operator")) as engine, engine.begin() as connection:
        made = outbox.subscribe(connection, "https://example.com/", ["order.*"])
        event = outbox.record(connection, "order.placed", {"id": 7})
        outbox.request_test(connection, made.id)
        assert outbox.portal_url(connection, "acme", "https://hooks.example.com/portal")
        assert [str(item.id) for item in outbox.events.list(connection)] == [event.id]


def test_an_operator_manages_subscriptions_and_prunes(login: Callable[..., str]) -> None:
    with databases.engine_on(login("outbox_operator")) as engine, engine.connect() as connection:
        with connection.begin():
            made = outbox.subscriptions.add(connection, "https://example.com/", ["order.*"])
            outbox.subscriptions.update(connection, made.id, url="https://example.com/2")
            outbox.subscriptions.rotate_secret(connection, made.id)
            outbox.subscriptions.remove(connection, made.id)
        pruned = prune(connection, None, events_days=30, attempts_days=90, resolutions_days=90)
        assert pruned == Pruned(events=0, attempts=0, resolutions=0)


def test_an_operator_seals_what_only_a_relay_opens(login: Callable[..., str], engine: sa.Engine) -> None:
    """With a sealing key in the schema: add, rotate and rekey as operator; a relay seals what SQL put in clear."""
    private, public = new_private_key()
    ring = Keyring([private])
    with databases.engine_on(login("outbox_operator")) as own, own.connect() as connection:
        for _ in range(2):  # the second time with the key registered
            assert rekey(connection, None, ring).complete
        with connection.begin():
            made = outbox.subscriptions.add(connection, "https://example.com/", ["order.*"])
            outbox.subscriptions.rotate_secret(connection, made.id)
            by_sql = "insert into outbox.secrets (subscription_id, kind, secret) select id, 'headers', '{}' from"
            connection.execute(sa.text(f"{by_sql} outbox.subscriptions"))
        with connection.begin():
            assert secrets_at_rest(connection, None).in_clear == 1

    async def keep_house() -> None:
        url = login("outbox_relay")
        config = Config(database_url=url, secret_key=(private,))
        check_database(config)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await Housekeeping(config).do_due(connection)

    asyncio.run(keep_house())
    with databases.engine_on(login("outbox_reader")) as own, own.connect() as connection:
        assert fields_of(secrets_at_rest(connection, None)) == {
            "count": 3, "in_clear": 0, "sealed_to_older_keys": 0, "sealing_key": public.id,
        }  # fmt: skip
        assert status(connection, None).secrets.count == 3


@pytest.mark.parametrize("role", ["outbox_app", "outbox_relay", "outbox_reader"])
def test_nobody_else_registers_a_sealing_key(login: Callable[..., str], role: str) -> None:
    url = login(role)
    _, public = new_private_key()
    assert refused(url, f"insert into outbox.sealing_keys (id, key) values ('{public.id}', '{public.text}')")
    assert refused(url, "update outbox.sealing_keys set created_at = now()")
    assert refused(url, "delete from outbox.sealing_keys")


@pytest.mark.parametrize("role", ["outbox_app", "outbox_operator", "outbox_relay", "outbox_reader"])
def test_nobody_writes_the_audit_by_hand(login: Callable[..., str], role: str) -> None:
    url = login(role)
    assert refused(
        url, "insert into outbox.audit (actor, role, action) values ('somebody else', 'postgres', 'removed')"
    )
    assert refused(url, "insert into outbox.audit (action) values ('replayed')")
    assert refused(url, "update outbox.audit set actor = ''")
    assert refused(url, "delete from outbox.audit")
    assert refused(url, "truncate outbox.audit")
    assert refused(url, "alter table outbox.audit disable trigger append_only")
    operation = "select outbox.audit_operation('replayed', '', '', '{}')"
    assert refused(url, operation) is (role != "outbox_operator")
    for function in ("note_subscription('{}', '{}')", "note_secret(null, null)", "note_resealed('{}')"):
        assert refused(url, f"select outbox.{function}"), function


def test_what_an_operator_changes_is_noted_with_the_login_role(login: Callable[..., str], engine: sa.Engine) -> None:
    """Neither a claimed actor nor SET ROLE hides it."""
    url = login("outbox_operator")
    with databases.engine_on(url) as own, own.begin() as connection:
        connection.execute(sa.text("set role outbox_operator"))
        outbox.act_as(connection, "postgres")
        made = outbox.subscriptions.add(connection, "https://example.com/", ["order.*"])
        outbox.subscriptions.rotate_secret(connection, made.id, overlap_seconds=0)
        connection.execute(sa.text("update outbox.secrets set secret = 'other'"))
        connection.execute(sa.text("select outbox.audit_operation('purged', '', '', '{}')"))
    with engine.connect() as connection:
        roles = connection.scalars(sa.text("select role from outbox.audit")).all()
        assert set(roles) == {make_url(url).username}
        assert len(roles) == 7


# Of tokens and links a reader sees all but the hash, of subscriptions and attempts all but the whole URL.
_SECRET = {"attempts", "secrets", "erasures", "tokens", "portal_links", "api_requests", "subscriptions"}


def test_a_reader_reads_all_but_secrets(login: Callable[..., str], engine: sa.Engine) -> None:
    url = login("outbox_reader")
    with engine.connect() as connection:
        leaves = set(connection.scalars(sa.text("select relname from pg_class where relispartition")))
        tables = set(connection.scalars(sa.text(TABLES))) - leaves
    assert {table for table in tables if refused(url, f"select * from outbox.{table}")} == _SECRET
    assert refused(url, "select value from outbox.erasures")
    assert not refused(url, "select kind, counts, digest from outbox.erasures")
    assert refused(url, "select url from outbox.subscriptions")
    assert not refused(url, "select name, shown_url, format from outbox.subscriptions")
    assert refused(url, "select secret from outbox.secrets")
    assert refused(url, "select * from outbox.secrets where secret like 'whsec_%'")
    assert not refused(url, "select kind, hint, sealed_to, expires_at from outbox.secrets")
    assert {table for table in tables if not refused(url, f"delete from outbox.{table}")} == set()


def test_public_may_execute_no_function(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        open_to_all = connection.scalars(
            sa.text(
                "select proname from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a"
                " where pronamespace = 'outbox'::regnamespace and a.grantee = 0"
            )
        ).all()
        assert open_to_all == []


def test_a_definer_function_heeds_no_search_path_of_its_caller(login: Callable[..., str], database_url: str) -> None:
    """A caller puts functions and operators of its own in front: the owner's rights never run them."""
    url = login("outbox_relay", "outbox_app")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create schema evil")
        connection.execute("grant all on schema evil to public")
        connection.execute("select setval('outbox.events_seq', 1500000)")
    with psycopg.connect(url, autocommit=True) as connection:
        caught = "language plpgsql as $$ begin raise 'caught as %', current_user; end $$"
        connection.execute(f"create function evil.clock_timestamp() returns timestamptz {caught}")
        connection.execute(f"create function evil.format(text, variadic text[]) returns text {caught}")
        connection.execute(f"create function evil.less(bigint, bigint) returns boolean {caught}")
        connection.execute("create operator evil.< (leftarg = bigint, rightarg = bigint, function = evil.less)")
        connection.execute("set search_path = evil, pg_catalog")
        connection.execute("select outbox.record('a', '1')")
        assert connection.execute("select outbox.make_event_leaf(20)").fetchone() != (None,)
        assert connection.execute("select outbox.retire_event_leaf('infinity')").fetchone() is not None
        assert connection.execute("select outbox.prune_events('infinity', 0, 10)").fetchone() is not None


def test_without_the_right_to_make_roles_migrate_says_so_and_goes_on(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"outbox_test_{secrets.token_hex(6)}"
    grants = schema.read_sql("grants.sql").replace("outbox_reader", f"{name}_reader")
    monkeypatch.setattr(schema, "ROLES", ("outbox_app", f"{name}_reader"))
    monkeypatch.setattr(
        schema, "read_sql", lambda file, read=schema.read_sql: grants if file == "grants.sql" else read(file)
    )
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"create role {name} login password '{name}'")
        connection.execute(f"grant create on database {make_url(empty_database_url).database} to {name}")
    url = make_url(empty_database_url).set(username=name, password=name).render_as_string(hide_password=False)
    try:
        with databases.engine_on(url) as engine, engine.connect() as connection:
            assert schema.migrate(connection) == schema.migrations()
            assert schema.missing_roles(connection) == [f"{name}_reader"]
        assert f"{name}_reader not made: the migrating user may not make roles" in caplog.text
    finally:
        with psycopg.connect(empty_database_url, autocommit=True) as connection:
            connection.execute(f"drop owned by {name} cascade")
            connection.execute(f"drop role {name}")


@pytest.mark.parametrize("groups", [(), ("outbox_app",), ("outbox_operator",), ("outbox_relay",), ("outbox_reader",)])
def test_migrate_says_who_may_when_the_schema_is_somebody_elses(
    login: Callable[..., str], database_url: str, groups: tuple[str, ...]
) -> None:
    owner = make_url(database_url).username
    words = rf"^migrate: permission denied for [^\n]*; run it as {owner}, the owner of the schema outbox$"
    with pytest.raises(SchemaError, match=words):
        databases.migrate(login(*groups))


def test_migrate_says_who_may_where_the_user_may_not_create_the_schema(
    login: Callable[..., str], empty_database_url: str
) -> None:
    url = make_url(login()).set(database=make_url(empty_database_url).database)
    words = rf"; run it as the owner of {url.database}, or grant create on database {url.database} to {url.username}$"
    with pytest.raises(SchemaError, match=words):
        databases.migrate(url.render_as_string(hide_password=False))


def test_the_owner_of_the_schema_migrates_without_a_right_on_the_database(
    login: Callable[..., str], empty_database_url: str
) -> None:
    url = make_url(login()).set(database=make_url(empty_database_url).database)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"create schema outbox authorization {url.username}")
    assert databases.migrate(url.render_as_string(hide_password=False)) == schema.migrations()
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("drop schema outbox cascade")
