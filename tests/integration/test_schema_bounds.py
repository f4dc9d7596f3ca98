"""What the schema bounds, whoever writes: times, sizes, secrets, deletions; and old databases brought up to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from psycopg.errors import CheckViolation, FeatureNotSupported, ForeignKeyViolation

import outbox
from outbox import schema, subscriptions
from outbox.errors import PayloadTooLarge
from outbox.ids import SubscriptionId
from relay.cli import cli
from relay.config.database_url import RELAY_NAME
from relay.config.options import Config
from relay.process.housekeeping import Housekeeping
from tests.support.databases import engine_on, migrate, migrate_to

INTO_EVENTS = "insert into outbox.events (type, payload) values ('a', %s)"
INTO_DELIVERIES = (
    "insert into outbox.deliveries (id, event_seq, subscription_id, due_at) values (gen_random_uuid(), 1, %s, %s)"
)
ADD = "insert into outbox.subscriptions (url, types) values ('https://example.com', '{a}') returning id"
FAR_TIMES = ("infinity", "-infinity", "10000-01-01Z", "294276-01-01Z", "0001-01-01 BC", "4713-01-01 BC")
LAST_TIMES = ("0001-01-01Z", "9999-12-31 23:59:59.999999Z")


@pytest.fixture
def database(database_url: str):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def add(database: psycopg.Connection[Any]) -> Any:
    (identity,) = database.execute(ADD).fetchone() or ()
    return identity


def audit(database: psycopg.Connection[Any]) -> list[Any]:
    return database.execute("select action, subject, details from outbox.audit order by at, id").fetchall()


def write_statements() -> dict[str, Callable[[psycopg.Connection[Any], str], None]]:
    """By table and column: a write of a time by hand, into a new row or one that is there."""

    def change(table: str, column: str) -> Callable[[psycopg.Connection[Any], str], None]:
        def write(database: psycopg.Connection[Any], moment: str) -> None:
            if not database.execute("select from outbox.secrets").fetchall():
                into = "insert into outbox.secrets (subscription_id, secret) values (%s, 'x')"
                database.execute(into, (add(database),))
            reason = ", disabled_reason = 'x'" if column == "disabled_at" else ""
            database.execute(f"update outbox.{table} set {column} = '{moment}'{reason}")

        return write

    def insert(table: str, columns: str, values: str) -> Callable[[psycopg.Connection[Any], str], None]:
        def write(database: psycopg.Connection[Any], moment: str) -> None:
            given = values.replace("?", f"'{moment}'")
            database.execute(f"insert into outbox.{table} ({columns}) values ({given})")

        return write

    dead = "delivery_id, event_seq, event_id, tenant, type, payload, recorded_at, died_at, attempts, reason"
    attempt = "at, delivery_id, subscription_id, number, verdict, outcome, milliseconds"
    times = ("paused_at", "disabled_at", "removed_at", "held_until", "created_at")
    return {
        **{f"subscriptions.{name}": change("subscriptions", name) for name in times},
        **{f"secrets.{name}": change("secrets", name) for name in ("created_at", "expires_at")},
        "deliveries.due_at": insert("deliveries", "id, event_seq, subscription_id, due_at", f"{UUID}, 1, {UUID}, ?"),
        "dead_letters.died_at": insert("dead_letters", dead, f"{UUID}, 1, {UUID}, '', 'a', '1', now(), ?, 1, 'x'"),
        "dead_letters.recorded_at": insert("dead_letters", dead, f"{UUID}, 1, {UUID}, '', 'a', '1', ?, now(), 1, 'x'"),
        "attempts.at": insert("attempts", attempt, f"?, {UUID}, {UUID}, 1, 'retry', 'x', 1"),
        "resolutions.at": insert("resolutions", "at, first_seq, seqs, matches", "?, 1, '{1}', '{1}'"),
        "sealing_keys.created_at": insert(
            "sealing_keys", "key, id, created_at",
            "repeat('A', 43) || '=', left(encode(sha256(decode(repeat('A', 43) || '=', 'base64')), 'hex'), 16), ?"),
    }  # fmt: skip


UUID = "gen_random_uuid()"
WRITES = write_statements()


@pytest.mark.field("F95")
@pytest.mark.parametrize("place", WRITES)
def test_a_time_that_python_cannot_read_is_refused_wherever_a_person_writes(
    database: psycopg.Connection[Any], place: str
) -> None:
    for moment in FAR_TIMES:
        if (place, moment) != ("deliveries.due_at", "infinity"):
            with pytest.raises(CheckViolation) as refused:
                WRITES[place](database, moment)
            assert "date" in str(refused.value.diag.constraint_name)
    for moment in LAST_TIMES:
        database.execute("delete from outbox.sealing_keys")
        WRITES[place](database, moment)


@pytest.mark.field("F95")
def test_every_time_of_the_schema_has_a_bound(database: psycopg.Connection[Any]) -> None:
    """A column that comes later is bounded too, or named here with the reason."""
    statement = """
        select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and a.atttypid = 'timestamptz'::regtype and a.attnum > 0
          and not exists (select from pg_constraint o where o.conrelid = c.oid and o.contype = 'c'
                          and a.attnum = any (o.conkey))"""
    unbounded = {name for (name,) in database.execute(statement).fetchall()}
    assert unbounded == {"schema_migrations.applied_at"}  # nothing reads it


@pytest.mark.field("F95")
def test_what_is_parked_may_be_due_never(database: psycopg.Connection[Any]) -> None:
    database.execute(INTO_DELIVERIES, (add(database), "infinity"))


@pytest.mark.field("F95")
@pytest.mark.parametrize(
    ("session", "until", "is_noted"),
    [
        ("psql", "now() + interval '1 minute'", True),
        ("psql", "'2999-01-01Z'", True),
        (RELAY_NAME, "now() + interval '1 day'", False),
        (RELAY_NAME, "'2999-01-01Z'", True),
    ],
)
def test_a_hold_by_hand_is_noted_and_a_receivers_is_not(
    database: psycopg.Connection[Any], session: str, until: str, is_noted: bool
) -> None:
    add(database)
    database.execute(f"set application_name = '{session}'")
    database.execute(f"update outbox.subscriptions set held_until = {until}")
    database.execute("update outbox.subscriptions set held_until = held_until + interval '1 minute'")
    held = database.execute("select after ? 'held_until' from outbox.audit where action = 'updated'").fetchall()
    assert held == [(True,)] * (2 if is_noted else 0)


# What stands in rows of a database of the former version, and ended commands with a DataError.
OLD_ROWS = """
insert into outbox.subscriptions (id, url, types, held_until, paused_at, created_at, removed_at, disabled_at,
                                  disabled_reason)
values ('00000000-0000-7000-8000-000000000001', 'https://example.com', '{a}', 'infinity', '-infinity',
        '4713-01-01 BC', null, '200000-01-01Z', 'x'),
       ('00000000-0000-7000-8000-000000000002', 'https://example.com', '{a}', null, null, now(), null, null, null);
insert into outbox.secrets (subscription_id, secret, created_at, expires_at)
    select id, 'x', '-infinity', 'infinity' from outbox.subscriptions;
insert into outbox.events (seq, type, payload) values (1, 'a', '"' || repeat('x', 300000) || '"');
insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)
    select gen_random_uuid(), 1, '00000000-0000-7000-8000-000000000002', due::timestamptz, 1, lease
    from unnest('{infinity,-infinity,20000-01-01Z,4713-01-01 BC,2026-01-01Z}'::text[]) due,
         unnest('{null,7}'::int[]) lease;
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
    values (gen_random_uuid(), 1, gen_random_uuid(), now());
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload, recorded_at,
                                 died_at, attempts, reason)
    values (gen_random_uuid(), 1, gen_random_uuid(), '00000000-0000-7000-8000-000000000002', '', 'a', '1', '-infinity',
            'infinity', 1, 'timeout');
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, milliseconds)
    values (gen_random_uuid(), 1, '00000000-0000-7000-8000-000000000002', 1, 'infinity', 'retry', 'timeout', 1),
           (gen_random_uuid(), 1, '00000000-0000-7000-8000-000000000002', 1, '4713-01-01 BC', 'retry', 'timeout', 1);
insert into outbox.resolutions (at, first_seq, seqs, matches) values ('infinity', 1, '{1}', '{2}');
"""
COMMANDS = (
    "status", "subscriptions list", "events list", "deliveries list", "dead-letters list", "audit", "migrate --check",
    "subscriptions show 00000000-0000-7000-8000-000000000001",
    "subscriptions show 00000000-0000-7000-8000-000000000002",
)  # fmt: skip


@pytest.fixture
def old_database_url(empty_database_url: str) -> str:
    """A database of version 0005 with rows that no later version takes."""
    migrate_to(empty_database_url, 5)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(OLD_ROWS)
    return empty_database_url


@pytest.mark.field("F95")
def test_an_old_database_is_migrated_with_its_rows_and_no_command_ends_on_them(old_database_url: str) -> None:
    migrate(old_database_url)
    for command, form in itertools.product(COMMANDS, ((), ("--json",))):
        if command == "migrate --check" and form:
            continue
        ended = CliRunner().invoke(
            cli, [*command.split(), *form], env={"RELAY_DATABASE_URL": old_database_url}, standalone_mode=False
        )
        assert ended.exception is None, (command, ended.exception)
    with psycopg.connect(old_database_url, autocommit=True) as connection:
        count = "select (select count(*) from outbox.deliveries), (select count(*) from outbox.events)"
        assert connection.execute(count).fetchone() == (11, 1)
        far = "select count(*) from outbox.deliveries where due_at < '0001-01-01Z' or due_at >= '10000-01-01Z'"
        assert connection.execute(f"{far} and due_at <> 'infinity'").fetchone() == (0,)
        connection.execute("update outbox.subscriptions set description = 'can be changed'")
        connection.execute("update outbox.deliveries set crashes = 1")
        held = connection.execute("select after ->> 'held_until' from outbox.audit where after ? 'held_until'")
        assert held.fetchone() == ("9999-12-31T00:00:00.000000Z",)
    with engine_on(old_database_url) as engine, engine.connect() as connection:
        assert schema.differences(connection) == []
        (finding,) = schema.findings(connection)
        assert "deliveries are left of a subscription whose row was deleted" in finding


@pytest.mark.field("F63")
@pytest.mark.field("F95")
def test_an_old_relays_statements_run_beside_the_new_schema(old_database_url: str) -> None:
    """Match, burial and settlement of the former version, with parameters of the database's own collation."""
    migrate(old_database_url)
    with psycopg.connect(old_database_url, autocommit=True) as connection:
        found = connection.execute(
            "select count(*) from (values ('', 'a')) k(tenant, type) cross join lateral ("
            " select distinct st.subscription_id from outbox.subscription_types st"
            " where st.tenant = any(array[k.tenant, '*']) and st.pattern = any(outbox.patterns_of(k.type))) m"
        )
        assert found.fetchone() == (2,)


@pytest.mark.field("F79")
def test_a_payload_is_bounded_whoever_inserts(database: psycopg.Connection[Any]) -> None:
    limit = outbox.Outbox().max_payload_bytes
    fits, above = "1" * limit, "1" * (limit + 1)
    database.execute(INTO_EVENTS, (fits,))
    for statement in (INTO_EVENTS, "select outbox.record('a', %s::json)"):
        with pytest.raises(CheckViolation) as refused:
            database.execute(statement, (above,))
        assert refused.value.diag.constraint_name == "payload_is_not_too_large"
        assert f"{limit} bytes: the setting max_payload_bytes" in str(refused.value.diag.message_hint)
    copy = "copy outbox.events (type, payload) from stdin"
    with pytest.raises(CheckViolation), database.cursor() as cursor, cursor.copy(copy) as into:
        into.write_row(("a", above))


@pytest.mark.field("F79")
def test_the_size_counts_bytes_and_is_asked_before_the_json(database: psycopg.Connection[Any]) -> None:
    database.execute("update outbox.settings set value = 10 where name = 'max_payload_bytes'")
    with pytest.raises(CheckViolation) as refused:
        database.execute(INTO_EVENTS, ('"ääääää"',))  # 8 characters, 14 bytes
    assert refused.value.diag.constraint_name == "payload_is_not_too_large"
    with pytest.raises(CheckViolation) as refused:
        database.execute(INTO_EVENTS, ("no json at all",))
    assert refused.value.diag.constraint_name == "payload_is_not_too_large"


@pytest.mark.field("F79")
def test_a_changed_setting_holds_at_once_in_every_session_and_is_noted(database_url: str) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as one,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        for _ in range(8):  # the rule's plan is kept by now
            one.execute(INTO_EVENTS, ('"ten bytes."',))
        other.execute("update outbox.settings set value = 5 where name = 'max_payload_bytes'")
        with pytest.raises(CheckViolation):
            one.execute(INTO_EVENTS, ('"ten bytes."',))
        other.execute("update outbox.settings set value = 400000 where name = 'max_payload_bytes'")
        one.execute(INTO_EVENTS, ("1" * 400_000,))
        assert [row[:2] for row in audit(one)] == [("setting updated", "max_payload_bytes")] * 2


@pytest.mark.field("F79")
def test_a_library_with_a_higher_bound_is_told_of_the_databases(engine: sa.Engine) -> None:
    large = outbox.Outbox(max_payload_bytes=1_000_000)
    words = "update outbox.settings set value = … where name = 'max_payload_bytes'"
    with engine.connect() as connection, connection.begin(), pytest.raises(PayloadTooLarge, match=words):
        large.record(connection, "a", "x" * 300_000)
    with sa.orm.Session(engine) as session:
        session.execute(sa.text("select 1"))
        large.record(session, "a", "x" * 300_000)
        with pytest.raises(PayloadTooLarge, match=words):
            session.commit()
    with engine.begin() as connection:
        connection.execute(sa.text("update outbox.settings set value = 1000000 where name = 'max_payload_bytes'"))
    with engine.begin() as connection:
        large.record(connection, "a", "x" * 300_000)


@pytest.mark.field("F79")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("update outbox.settings set value = 0", CheckViolation),
        ("update outbox.settings set value = 1000000000", CheckViolation),
        ("insert into outbox.settings (name, value) values ('misspelt', 1)", CheckViolation),
        ("delete from outbox.settings", FeatureNotSupported),
        ("update outbox.settings set name = 'x' where name = 'max_payload_bytes'", CheckViolation),
    ],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_refused(
    database: psycopg.Connection[Any], change: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        database.execute(change)


@pytest.mark.field("F79")
def test_a_changed_setting_is_no_drift_and_migrate_keeps_it(engine: sa.Engine, database_url: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("update outbox.settings set value = 7777 where name = 'max_payload_bytes'"))
    migrate(database_url)
    with engine.connect() as connection:
        assert schema.differences(connection) == []
        assert connection.scalar(sa.text("select outbox.max_payload_bytes()")) == 7777


@pytest.mark.field("F79")
def test_a_dead_letter_larger_than_the_bound_is_replayed_though_its_event_is_pruned(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        identity = add(database)
        database.execute(
            "insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload,"
            " recorded_at, attempts, reason) values (gen_random_uuid(), nextval('outbox.events_seq'),"
            " gen_random_uuid(), %s, '', 'a', repeat('1', 300000), now(), 1, 'timeout')",
            (identity,),
        )
        command = ["replay", "--subscription", str(SubscriptionId.of(identity)), "--yes"]
        ended = CliRunner().invoke(cli, command, env={"RELAY_DATABASE_URL": database_url}, standalone_mode=False)
        assert ended.exception is None, ended.exception
        assert database.execute("select octet_length(payload) from outbox.events").fetchall() == [(300_000,)]
        with pytest.raises(CheckViolation):
            database.execute(INTO_EVENTS, ("1" * 300_000,))


@pytest.mark.field("F98")
@pytest.mark.parametrize("state", ["null", "now() - interval '2 hours'"])
def test_a_subscription_with_deliveries_cannot_be_deleted(database: psycopg.Connection[Any], state: str) -> None:
    identity = add(database)
    database.execute(INTO_DELIVERIES, (identity, "now"))
    database.execute(f"update outbox.subscriptions set removed_at = {state}")
    with pytest.raises(ForeignKeyViolation) as refused:
        database.execute("delete from outbox.subscriptions")
    assert f"relay subscriptions remove {identity}" in str(refused.value.diag.message_hint)
    with pytest.raises(ForeignKeyViolation):
        database.execute("truncate outbox.subscriptions cascade")
    database.execute("delete from outbox.deliveries")
    database.execute("delete from outbox.subscriptions")


@pytest.mark.field("F98")
def test_a_subscriptions_id_never_changes(database: psycopg.Connection[Any]) -> None:
    database.execute(INTO_DELIVERIES, (add(database), "now"))
    with pytest.raises(FeatureNotSupported):
        database.execute("update outbox.subscriptions set id = gen_random_uuid()")
    database.execute("update outbox.subscriptions set id = id")


@pytest.mark.field("F98")
def test_orphans_are_a_finding_and_housekeeping_cancels_them_audited(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        gone, kept = add(database), add(database)
        for identity in (gone, kept):
            for _ in range(3):
                database.execute(INTO_DELIVERIES, (identity, "now"))
        database.execute("alter table outbox.subscriptions disable trigger guard")
        database.execute("delete from outbox.subscriptions where id = %s", (gone,))
        database.execute("alter table outbox.subscriptions enable trigger guard")
        found = database.execute("select code, subject from outbox.findings()").fetchall()
        assert [(code, subject) for code, subject in found] == [("deliveries.orphaned", str(SubscriptionId.of(gone)))]

        async def keep_house() -> None:
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
                await Housekeeping(Config(database_url=database_url)).do_due(connection)

        asyncio.run(keep_house())
        assert database.execute("select distinct subscription_id from outbox.deliveries").fetchall() == [(kept,)]
        action, subject, details = audit(database)[-1]
        assert (action, subject, details["count"]) == ("deliveries cancelled", str(SubscriptionId.of(gone)), 3)
        assert len(details["deliveries"]) == 3
        assert database.execute("select * from outbox.findings()").fetchall() == []


@pytest.mark.field("F118")
def test_a_subscription_has_at_most_five_signing_secrets_by_sql_too(database: psycopg.Connection[Any]) -> None:
    one, other = add(database), add(database)
    into = "insert into outbox.secrets (subscription_id, secret, kind, expires_at) values (%s, 'x', %s, %s)"
    for _ in range(5):
        database.execute(into, (one, "signing", None))
        database.execute(into, (other, "signing", "2020-01-01Z"))
    for again in (one, one):
        with pytest.raises(CheckViolation) as refused:
            database.execute(into, (again, "signing", None))
        assert refused.value.diag.constraint_name == "secrets_are_at_most_five"
    database.execute(into, (one, "headers", None))
    database.execute(into, (one, "signing", "2020-01-01Z"))  # one that ran out signs nothing
    database.execute(into, (other, "signing", None))
    with pytest.raises(CheckViolation):
        database.execute("update outbox.secrets set subscription_id = %s where kind = 'signing'", (one,))
    with pytest.raises(CheckViolation):
        database.execute("update outbox.secrets set expires_at = null")


@pytest.mark.field("F118")
def test_two_transactions_at_once_do_not_pass_the_bound_together(database_url: str) -> None:
    into = "insert into outbox.secrets (subscription_id, secret) values (%s, 'x')"
    with psycopg.connect(database_url) as one, psycopg.connect(database_url, autocommit=True) as other:
        identity = add(other)
        for _ in range(4):
            other.execute(into, (identity,))
        one.execute(into, (identity,))
        other.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(into, (identity,))
        one.commit()
        with pytest.raises(CheckViolation):
            other.execute(into, (identity,))


@pytest.mark.field("F118")
def test_the_librarys_rotation_keeps_within_the_bound(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        made = subscriptions.add(connection, "https://example.com", ["a"])
        for _ in range(4):
            subscriptions.rotate_secret(connection, made.id, overlap_seconds=3600)
        with pytest.raises(outbox.SubscriptionError, match="older secrets still sign along"):
            subscriptions.rotate_secret(connection, made.id, overlap_seconds=3600)
        subscriptions.rotate_secret(connection, made.id, overlap_seconds=0)
