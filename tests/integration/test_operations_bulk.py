"""Bulk operations, as people ask for them: what is refused, what a plan says, what may follow what; the commands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from outbox import subscriptions
from outbox.control.audit import list_audit
from outbox.control.filters import FilterError, Filters
from outbox.errors import NotFoundError
from outbox.ids import parse_id
from relay.cli import cli
from relay.operations.bulk import operations, plan
from relay.operations.bulk.plan import plan_bulk
from relay.operations.bulk.request import BulkError, BulkRequest
from tests.support import seeding

HOUR = timedelta(hours=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def connection(engine: sa.Engine) -> Any:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def dead(connection: sa.Connection, subscription: str, count: int = 1) -> list[str]:
    """So many dead letters; returns their events."""
    events = [seeding.record(connection) for _ in range(count)]
    for event in events:
        (delivery,) = seeding.resolve(connection, event, subscription)
        seeding.attempt(connection, delivery, "dead")
    return events


@pytest.mark.parametrize("kind", ["of one", "of all"])
def test_what_became_is_read_from_a_bounded_number_of_rows(
    connection: sa.Connection, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    operation = seeding.put_back(connection, seeding.subscribe(connection), 3)
    for table in (
        "deliveries (id, event_seq, subscription_id, due_at)",
        "attempts (delivery_id, event_seq, subscription_id, at, number, verdict, outcome, milliseconds)",
    ):
        rest = "" if table.startswith("deliveries") else ", 1, 'delivered', 'delivered', 1"
        many = "select outbox.uuid7(), 1, (select id from outbox.subscriptions), clock_timestamp()"
        connection.execute(sa.text(f"insert into outbox.{table} {many}{rest} from generate_series(1, 20000)"))
    if kind == "of all":
        connection.execute(sa.text("update outbox.bulk_operations set kind = 'redrive', subscription_id = null"))
    connection.execute(sa.text("analyze outbox.deliveries, outbox.attempts"))
    monkeypatch.setattr("relay.operations.bulk.became.LOOKED_AT", 100)
    with engine.begin() as reading:
        found = operations.show_bulk(reading, None, operation).became
        rows_read = reading.execute(ROWS_READ).scalar_one()
    assert found is not None
    assert not found.exact
    assert 0 < rows_read < 1_000


def test_what_became_of_what_went_to_one_is_not_looked_for_among_what_went_to_others(
    connection: sa.Connection, engine: sa.Engine
) -> None:
    """By what the planner knows every attempt went to that one; the statistics are older than those to the other."""
    operation = seeding.put_back(connection, seeding.subscribe(connection), 3)
    one = connection.execute(sa.text("select subscription_id from outbox.bulk_operations")).scalar_one()
    other = seeding.subscribe(connection, url="https://example.com/other")
    attempts = sa.text("""
        insert into outbox.attempts (delivery_id, subscription_id, number, verdict, outcome, milliseconds)
        select outbox.uuid7(), :subscription, 1, 'delivered', 'delivered', 1 from generate_series(1, 20000)""")
    connection.execute(attempts, {"subscription": one})
    connection.execute(sa.text("analyze outbox.attempts"))
    connection.execute(sa.text("update outbox.bulk_operations set started_at = clock_timestamp()"))
    connection.execute(attempts, {"subscription": parse_id("sub", other)})
    with engine.begin() as reading:
        found = operations.show_bulk(reading, None, operation).became
        rows_read = reading.execute(ROWS_READ).scalar_one()
    assert found is not None
    assert (found.outstanding, found.exact) == (3, True)
    assert 0 < rows_read < 1_000


ROWS_READ = sa.text("""
select sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)) from pg_class
where relnamespace = to_regnamespace('outbox') and relkind in ('r', 'i')
  and (relname like 'attempts%' or relname like 'deliveries%')
""")


def test_show_says_what_became_of_what_was_put_back(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("RELAY_DATABASE_URL", database_url)
    operation = seeding.put_back(connection, seeding.subscribe(connection), 3)
    shown = CliRunner().invoke(cli, ["bulk", "show", operation], catch_exceptions=False).output
    others = "2 others (retries made due, put back again, or past retention)"
    assert f"0 arrived, 3 on their way, 0 dead, {others}" in shown
    document = json.loads(CliRunner().invoke(cli, ["bulk", "show", operation, "--json"]).output)["became"]
    assert document == {"delivered": 0, "outstanding": 3, "dead": 0, "cancelled": 0, "others": 2, "exact": True}
    monkeypatch.setattr("relay.operations.bulk.became.LOOKED_AT", 2)
    assert "2 or more on their way" in CliRunner().invoke(cli, ["bulk", "show", operation]).output


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"kind": "resend"}, "kind: 'resend' is none of recover, replay, backfill, redrive"),
        ({"kind": "recover", "since": HOUR}, "subscription: is needed for recover"),
        ({"kind": "recover", "subscription": "sub_00000000000000000000000000"}, "since: is needed for recover"),
        ({"kind": "backfill", "subscription": "sub_00000000000000000000000000", "reason": "timeout"},
         "reason: does not apply to backfill; leave it out"),
        ({"kind": "redrive"}, "filter: none given"),
        ({"kind": "redrive", "type": "a\0"}, "type: has a NUL character"),
        ({"kind": "redrive", "since": NOW, "until": NOW}, "since: is not before until"),
    ],
)  # fmt: skip
def test_what_fits_no_kind_is_refused(asked: dict[str, Any], why: str) -> None:
    with pytest.raises((BulkError, FilterError), match=why.replace("(", r"\(")):
        BulkRequest(**asked)


@pytest.mark.parametrize("rate", [0, 100_001, True, 1.5])
def test_a_rate_is_a_number_of_deliveries_a_second(connection: sa.Connection, rate: Any) -> None:
    with pytest.raises(BulkError, match=r"rate: .* is not a whole number from 1 to 100000"):
        operations.add_bulk(connection, None, BulkRequest(kind="redrive", since=HOUR), rate=rate)
    assert not list(operations.list_bulk(connection, None))


def test_an_operation_is_about_a_subscription_that_is_there(connection: sa.Connection) -> None:
    name = seeding.subscribe(connection)
    subscriptions.remove(connection, name)
    with pytest.raises(BulkError, match="is removed; name another"):
        plan_bulk(connection, None, BulkRequest(kind="backfill", subscription=name))
    with pytest.raises(NotFoundError, match="no sub_0000"):
        plan_bulk(connection, None, BulkRequest(kind="backfill", subscription="sub_00000000000000000000000000"))
    with pytest.raises(BulkError, match="tenant: only your own"):
        plan_bulk(connection, "acme", BulkRequest(kind="redrive", tenant="globex"))


def test_a_plan_counts_and_shows_some_and_changes_nothing(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = seeding.subscribe(connection)
    events = dead(connection, name, 8)
    subscriptions.pause(connection, name)
    found = plan_bulk(connection, None, BulkRequest(kind="redrive", since=HOUR))
    assert (found.count, found.exact, found.not_sendable_because) == (8, True, None)
    assert [one.id for one in found.sample] == list(map(type(found.sample[0].id).of, events[:5]))
    recover = BulkRequest(kind="recover", subscription=name, since=HOUR)
    assert plan_bulk(connection, None, recover).not_sendable_because == "paused"
    monkeypatch.setattr(plan, "COUNTED", 5)
    found = plan_bulk(connection, None, BulkRequest(kind="redrive", since=HOUR))
    assert (found.count, found.exact) == (5, False)
    assert seeding_count(connection, "dead_letters") == 8
    assert not list(operations.list_bulk(connection, None))


def seeding_count(connection: sa.Connection, table: str) -> int:
    return int(connection.execute(sa.text(f"select count(*) from outbox.{table}")).scalar_one())


STATES = ("planned", "running", "paused", "done", "cancelled", "failed")
FOLLOWS = {
    "planned": {"running", "cancelled"},
    "running": {"paused", "done", "failed", "cancelled"},
    "paused": {"running", "cancelled"},
    "failed": {"running", "cancelled"},
    "done": set(),
    "cancelled": set(),
}


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_what_may_follow_what_stands_in_the_database(connection: sa.Connection, before: str, after: str) -> None:
    insert = "insert into outbox.bulk_operations (kind, phase, state, started_at, up_to_seq) values"
    connection.execute(sa.text(f"{insert} ('redrive', 'dead', '{before}', now(), 1)"))
    change = sa.text(f"update outbox.bulk_operations set state = '{after}'")
    if after in {before, *FOLLOWS[before]}:
        connection.execute(change)
    else:
        with pytest.raises(sa.exc.IntegrityError, match=f"that is {before} does not become {after}"):
            connection.execute(change)


def test_the_verbs_say_what_an_operation_is(connection: sa.Connection) -> None:
    made = operations.add_bulk(connection, None, BulkRequest(kind="redrive", since=HOUR), rate=5)
    assert (made.state, made.rate, made.started_at, made.tenant) == ("planned", 5, None, None)
    with pytest.raises(BulkError, match=f"{made.id} is planned; only what is running can be paused"):
        operations.pause_bulk(connection, None, made.id)
    started = operations.start_bulk(connection, None, str(made.id))
    assert (started.state, started.started_at is not None) == ("running", True)
    with pytest.raises(BulkError, match="is running; only what is planned can be started"):
        operations.start_bulk(connection, None, made.id)
    operations.pause_bulk(connection, None, made.id)
    assert operations.resume_bulk(connection, None, made.id).state == "running"
    assert operations.cancel_bulk(connection, None, made.id).state == "cancelled"
    with pytest.raises(BulkError, match="only what is planned or running or paused or failed can be cancelled"):
        operations.cancel_bulk(connection, None, made.id)
    noted = [entry.action for entry in list_audit(connection, None, Filters(), subject=str(made.id))]
    assert noted == ["bulk cancelled", "bulk resumed", "bulk paused", "bulk started", "bulk planned"]


def test_a_list_comes_in_pages(connection: sa.Connection) -> None:
    made = [operations.add_bulk(connection, None, BulkRequest(kind="redrive", since=HOUR)).id for _ in range(3)]
    first = operations.list_bulk(connection, None, Filters(limit=2))
    rest = operations.list_bulk(connection, None, Filters(limit=2), after=first.next)
    assert [one.id for one in (*first, *rest)] == made[::-1]
    operations.cancel_bulk(connection, None, made[0])
    assert [one.id for one in operations.list_bulk(connection, None, state="cancelled")] == made[:1]
    with pytest.raises(BulkError, match="state: 'gone' is none of planned"):
        operations.list_bulk(connection, None, state="gone")  # type: ignore[arg-type]


class TestCommands:
    @pytest.fixture
    def run(self, database_url: str) -> Any:
        def run(*arguments: str, answer: str | None = None) -> tuple[str, str]:
            environ = {"RELAY_DATABASE_URL": database_url}
            ended = CliRunner().invoke(cli, arguments, env=environ, input=answer, standalone_mode=False)
            if ended.exception is not None:
                raise ended.exception
            return ended.stdout, ended.stderr

        return run

    def test_from_the_plan_to_the_end(self, run: Any, connection: sa.Connection) -> None:
        dead(connection, seeding.subscribe(connection), 3)
        said, _ = run("bulk", "redrive", "--reason", "http_5xx", "--dry-run")
        assert said.startswith("would put back 3 deliveries, in 0s at 100/s\nevt_")
        assert json.loads(run("bulk", "redrive", "--since", "1h", "--dry-run", "--json")[0])["count"] == 3
        with pytest.raises(click.UsageError, match=r"Put back 3 deliveries\? Add --yes"):
            run("bulk", "redrive", "--since", "1h")
        made = json.loads(run("bulk", "redrive", "--since", "1h", "--no-start", "--rate", "7", "--json")[0])
        assert (made["state"], made["planned"], made["rate"]) == ("planned", 3, 7)
        name = made["id"]
        assert "state            running" in run("bulk", "start", name, "--yes")[0]
        assert "state            paused" in run("bulk", "pause", name)[0]
        assert json.loads(run("bulk", "resume", name, "--rate", "9", "--json")[0])["rate"] == 9
        assert json.loads(run("bulk", "show", name, "--json")[0])["state"] == "running"
        assert "state            cancelled" in run("bulk", "cancel", name)[0]
        assert run("bulk", "list", "--state", "cancelled")[0].splitlines()[1].split("\t")[:5] == [
            name, "redrive", "cancelled", "0", "3",
        ]  # fmt: skip

    @pytest.mark.parametrize("kind", ["recover", "replay", "backfill"])
    def test_each_kind_starts(self, run: Any, connection: sa.Connection, kind: str) -> None:
        name = seeding.subscribe(connection)
        dead(connection, name, 2)
        other = seeding.subscribe(connection)
        target = other if kind == "backfill" else name
        said, hint = run("bulk", kind, target, "--since", "1h", "--yes")
        assert said.endswith(" running: 2 deliveries\n")
        assert hint.startswith("relay bulk show bulk_")

    @pytest.mark.field("F74")
    def test_a_replay_by_filter_says_how_many_match_and_how_to_go_on(self, run: Any, connection: sa.Connection) -> None:
        name = seeding.subscribe(connection)
        dead(connection, name, 3)
        said, hint = run("replay", "--subscription", name, "--since", "1h", "--limit", "2", "--dry-run")
        assert said == "would replay 2 of 3 deliveries to 1 subscriptions\n"
        assert hint.startswith("for all of them: relay bulk redrive --since … --subscription …; or go on")
        done = json.loads(run("replay", "--since", "1h", "--limit", "2", "--yes", "--json")[0])
        assert (done["count"], done["matching"]) == (2, {"count": 3, "exact": True})
        said, hint = run("replay", "--since", "1h", "--limit", "2", "--yes")
        assert (said.splitlines()[0], hint) == ("replayed 1 deliveries to 1 subscriptions", "")

    @pytest.mark.field("F74")
    def test_of_what_was_delivered_too(self, run: Any, connection: sa.Connection) -> None:
        name = seeding.subscribe(connection)
        for _ in range(3):
            (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
            seeding.attempt(connection, delivery, "delivered")
        said, hint = run("replay", "--state", "delivered", "--since", "1h", "--limit", "2", "--dry-run")
        assert said == "would replay 2 of 3 deliveries to 1 subscriptions\n"
        assert "relay bulk replay SUB --since TIME" in hint


def test_who_may_plan_and_start_is_no_relay(database_url: str, connection: sa.Connection) -> None:
    """A relay carries out; it cannot make an operation, nor change what one wants."""
    for statement in (
        "insert into outbox.bulk_operations (kind, phase) values ('redrive', 'dead')",
        "update outbox.bulk_operations set parameters = '{}'",
        "update outbox.bulk_operations set subscription_id = null",
    ):
        with psycopg.connect(database_url) as own:
            own.execute("set local role outbox_relay")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                own.execute(statement)
