"""Retention of dead letters and the audit where it is set, and a shorter one of tenants; nothing undelivered, ever."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from psycopg import IsolationLevel

from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from outbox.errors import OutboxError
from relay.cli import cli
from relay.config.options import Config
from relay.operations.prune import count_prunable, prune
from relay.operations.tenant_retention import (
    TenantRetention,
    TenantRetentionError,
    list_tenant_retention,
    set_tenant_retention,
)
from relay.process import housekeeping
from tests.support import seeding

DAYS = {"events_days": 30, "attempts_days": 90, "resolutions_days": 90}


@pytest.fixture
def connection(engine: sa.Engine) -> Any:
    with engine.connect() as connection:
        yield connection


def execute(connection: sa.Connection, statement: str, **values: Any) -> Any:
    with connection.begin():
        result = connection.execute(sa.text(statement), values)
        return result.scalars().all() if result.returns_rows else None


def age(connection: sa.Connection, days: int) -> None:
    """Let everything that there is be so many days older."""
    by = f"- interval '{days} days'"
    execute(connection, f"update outbox.events set recorded_at = recorded_at {by}")
    execute(connection, f"update outbox.attempts set at = at {by}")
    execute(connection, f"update outbox.dead_letters set died_at = died_at {by}")
    execute(connection, "alter table outbox.audit disable trigger append_only")
    execute(connection, f"update outbox.audit set at = at {by}")
    execute(connection, "alter table outbox.audit enable always trigger append_only")


def keep_house(url: str, rounds: int = 1) -> None:
    """Do every round of housekeeping once."""

    async def run() -> None:
        config = Config(database_url=url)
        connection = await psycopg.AsyncConnection.connect(config.conninfo(), autocommit=True, prepare_threshold=None)
        async with connection:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
            for _ in range(rounds):
                await housekeeping.Housekeeping(config).do_due(connection)

    asyncio.run(run())


def event(connection: sa.Connection, tenant: str, verdict: str | None = None) -> str:
    """Record an event; with a verdict, after an attempt with an answer to a subscription of the tenant's."""
    with connection.begin():
        name = seeding.record(connection, tenant=tenant)
        found = connection.execute(
            sa.text("select outbox.text_id('sub', id) from outbox.subscriptions where tenant = :t"), {"t": tenant}
        ).scalar()
        whose = found or seeding.subscribe(connection, tenant=tenant)
        (delivery,) = seeding.resolve(connection, name, whose)
        if verdict is not None:
            seeding.attempt(connection, delivery, verdict, error="the answer")
        return name


def events_of(connection: sa.Connection) -> list[str]:
    return sorted(execute(connection, "select tenant from outbox.events"))


def test_dead_letters_and_the_audit_stay_unless_asked_for(connection: sa.Connection, database_url: str) -> None:
    event(connection, "", "dead")
    age(connection, 400)
    with connection.begin():
        audit = len(list_audit(connection, None, Filters(limit=1000)))
    keep_house(database_url)
    gone = prune(connection, None, **DAYS)
    assert (gone.dead_letters, gone.audit) == (0, 0)
    with connection.begin():
        wanted = count_prunable(connection, None, **DAYS, dead_letters_days=365, audit_days=365)
    assert (wanted.dead_letters, wanted.audit) == (1, audit)
    gone = prune(connection, None, **DAYS, dead_letters_days=365, audit_days=365, batch_rows=1)
    assert (gone.dead_letters, gone.audit) == (1, audit)
    with connection.begin():
        left = list(list_audit(connection, None, Filters(limit=1000)))
    assert {entry.action for entry in left} == {"pruned", "purged"}
    assert [dict(entry.details or {})["reason"] for entry in left if entry.action == "purged"] == ["retention"]


def test_the_audit_of_a_month_stays_and_a_dry_run_says_so(connection: sa.Connection) -> None:
    event(connection, "", "dead")
    age(connection, 20)
    with connection.begin():
        wanted = count_prunable(connection, None, **DAYS, audit_days=7)
    assert wanted.audit == prune(connection, None, **DAYS, audit_days=7).audit == 0


def test_nobody_prunes_the_audit_by_a_setting_of_the_session(connection: sa.Connection) -> None:
    with connection.begin():
        seeding.subscribe(connection)
        connection.execute(sa.text("set local role outbox_operator"))
        connection.execute(sa.text("select set_config('outbox.prunes_audit', 'on', true)"))
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.execute(sa.text("delete from outbox.audit"))


def test_what_is_a_tenants_goes_earlier_and_nothing_else(connection: sa.Connection, database_url: str) -> None:
    for tenant in ("acme", "globex", ""):
        event(connection, tenant, "delivered")
        event(connection, tenant, "dead")
    age(connection, 10)
    event(connection, "acme", "delivered")
    with connection.begin():
        set_tenant_retention(connection, None, TenantRetention(
            name="acme", events_days=7, attempts_days=7, dead_letters_days=7))  # fmt: skip
    keep_house(database_url)
    assert events_of(connection) == ["", "", "acme", "globex", "globex"]
    assert sorted(execute(connection, "select tenant from outbox.dead_letters")) == ["", "globex"]
    answered = "select count(*) from outbox.attempts a join outbox.subscriptions s on s.id = a.subscription_id"
    assert execute(connection, f"{answered} where s.tenant = 'acme'") == [3], "the attempts stay on record"
    assert execute(connection, f"{answered} where s.tenant = 'acme' and a.error is not null") == [1]
    assert execute(connection, f"{answered} where s.tenant <> 'acme' and a.error is not null") == [4]


@pytest.mark.parametrize("undelivered", ["pending", "due", "waiting", "leased", "parked"])
def test_nothing_undelivered_goes_however_old_and_it_goes_when_it_is_done(
    connection: sa.Connection, database_url: str, undelivered: str
) -> None:
    with connection.begin():
        set_tenant_retention(connection, None, TenantRetention(name="acme", events_days=1, dead_letters_days=1))
    if undelivered == "pending":
        with connection.begin():
            seeding.record(connection, tenant="acme")
    else:
        event(connection, "acme", "retry" if undelivered == "waiting" else None)
    if undelivered == "leased":
        execute(connection, "update outbox.deliveries set lease = 1, attempts = 1")
    elif undelivered == "parked":
        execute(connection, "update outbox.deliveries set due_at = 'infinity'")
    event(connection, "acme", "delivered")
    age(connection, 20)
    keep_house(database_url)
    assert len(events_of(connection)) == 1
    assert execute(connection, "select count(*) from outbox.pending union all select count(*) from outbox.deliveries"
                   " order by 1") == [0, 1]  # fmt: skip
    execute(connection, "truncate outbox.pending")
    execute(connection, "delete from outbox.deliveries")
    keep_house(database_url)
    assert len(events_of(connection)) == 1, "a pass an hour is enough"
    execute(connection, "update outbox.tenant_retention_passes set checked_at = checked_at - interval '2 hours'")
    keep_house(database_url)
    assert events_of(connection) == []


def test_a_second_pass_begins_where_the_first_one_ended(connection: sa.Connection, database_url: str) -> None:
    """What came meanwhile, and a tenant that is added later, are seen."""
    with connection.begin():
        set_tenant_retention(connection, None, TenantRetention(name="acme", events_days=5))
    for tenant in ("acme", "globex"):
        event(connection, tenant, "delivered")
    age(connection, 6)
    keep_house(database_url)
    assert events_of(connection) == ["globex"]
    event(connection, "acme", "delivered")
    age(connection, 6)
    execute(connection, "update outbox.tenant_retention_passes set checked_at = checked_at - interval '2 hours'")
    keep_house(database_url)
    assert events_of(connection) == ["globex"]
    with connection.begin():
        set_tenant_retention(connection, None, TenantRetention(name="globex", events_days=5))
    keep_house(database_url)
    assert events_of(connection) == []


def test_nothing_goes_that_is_younger_than_the_database_allows(connection: sa.Connection, database_url: str) -> None:
    execute(connection, "update outbox.settings set value = 20 where name = 'least_retention_days'")
    with connection.begin():
        set_tenant_retention(connection, None, TenantRetention(name="acme", events_days=1, dead_letters_days=1))
    event(connection, "acme", "delivered")
    event(connection, "acme", "dead")
    age(connection, 10)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("create role outbox_test_keeper login; grant outbox_relay to outbox_test_keeper")
        try:
            owner.execute("set session authorization outbox_test_keeper")
            while owner.execute("select outbox.prune_tenant_events(100)").fetchone() == (True,):
                pass
            while owner.execute("select outbox.prune_tenant(100)").fetchone() == (True,):
                pass
            assert owner.execute("select outbox.prune_dead_letters(now(), 100)").fetchone() == (0,)
            assert owner.execute("select outbox.prune_audit(now(), 100)").fetchone() == (0,)
        finally:
            owner.execute("reset session authorization")
            owner.execute("drop owned by outbox_test_keeper; drop role outbox_test_keeper")
    assert len(events_of(connection)) == 2
    assert execute(connection, "select count(*) from outbox.dead_letters") == [1]


@pytest.mark.parametrize("days", [0, 36_501, True])
def test_a_retention_is_a_number_of_days(days: Any) -> None:
    with pytest.raises(TenantRetentionError, match=r"attempts_days: .* is not a whole number from 1 to 36500"):
        TenantRetention(name="acme", attempts_days=days)
    with pytest.raises(OutboxError, match="tenant"):
        TenantRetention(name="*")


def test_it_is_set_listed_audited_and_taken_away_by_command(database_url: str, connection: sa.Connection) -> None:
    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(cli, arguments, env={"RELAY_DATABASE_URL": database_url}, standalone_mode=False)
        assert ended.exception is None, ended.exception
        return ended.stdout

    assert run("tenants", "retain", "acme", "--events-days", "7") == "tenant 'acme': events 7 days\n"
    assert run("tenants", "retain", "acme", "--events-days", "5", "--attempts-days", "3") == (
        "tenant 'acme': events 5 days, answers 3 days\n"
    )
    assert json.loads(run("tenants", "retention", "--json")) == {
        "name": "acme", "events_days": 5, "attempts_days": 3, "dead_letters_days": None,
    }  # fmt: skip
    assert run("tenants", "retain", "acme") == "tenant 'acme': kept as of all tenants\n"
    with connection.begin():
        assert list_tenant_retention(connection, None) == ()
        noted = [entry.action for entry in list_audit(connection, None, Filters(tenant="acme"))]
    assert noted == ["tenant retention removed", "tenant retention set", "tenant retention set"]


def test_a_pass_comes_back_to_what_was_too_young_for_it(connection: sa.Connection, database_url: str) -> None:
    """Numbers and times are not in one order: a later event with an older time hid it from every pass to come."""
    with connection.begin():
        set_tenant_retention(connection, None, TenantRetention(name="acme", events_days=5))
    event(connection, "acme", "delivered")
    age(connection, -1)
    event(connection, "acme", "delivered")
    age(connection, 5)
    keep_house(database_url)
    assert events_of(connection) == ["acme"]
    age(connection, 2)
    execute(connection, "update outbox.tenant_retention_passes set checked_at = checked_at - interval '2 hours'")
    keep_house(database_url)
    assert events_of(connection) == []


def test_a_locked_answer_holds_up_no_other_tenant(connection: sa.Connection, database_url: str) -> None:
    for tenant in ("acme", "globex"):
        event(connection, tenant, "delivered")
        with connection.begin():
            set_tenant_retention(connection, None, TenantRetention(name=tenant, attempts_days=5))
    age(connection, 6)
    answers = "select s.tenant from outbox.attempts a join outbox.subscriptions s on s.id = a.subscription_id"
    answers += " where a.error is not null"
    with psycopg.connect(database_url) as holder:
        holder.execute(f"{answers} and s.tenant = 'acme' for update of a")
        keep_house(database_url)
        assert execute(connection, answers) == ["acme"]
    execute(connection, "update outbox.tenant_retention set checked_at = checked_at - interval '2 minutes'")
    keep_house(database_url)
    assert execute(connection, answers) == []
