"""A copied database as operations and commands see it: said, refused, adopted, noted; and where home is noted first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import anyio
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, Engine, text

import outbox
from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from relay.cli import cli
from relay.config.options import Config
from relay.operations import adoption
from relay.operations.connection import Database
from relay.operations.endpoint_tests.test_and_check import check_endpoint, send_test
from relay.operations.endpoint_tests.tested_subscription import ProbeError
from relay.operations.status.status import status
from relay.store.breaker import MARK_LATE
from tests.support import databases, seeding

pytestmark = pytest.mark.field("F22")

ELSEWHERE = "database shop of system 7412345678901234567"
Run = Callable[..., Result]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def run(database_url: str) -> Run:
    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, words, env={"RELAY_DATABASE_URL": database_url, "RELAY_ACTOR": "ann"})

    return run


def bring_from_elsewhere(connection: Connection) -> None:
    """As a dump of a database brings its rows that was at home in another cluster."""
    connection.execute(text("insert into outbox.home (place) values (:place)"), {"place": ELSEWHERE})


def places(connection: Connection) -> list[str]:
    return list(connection.execute(text("select place from outbox.home")).scalars())


def here(connection: Connection) -> str:
    return str(connection.execute(text("select outbox.here()")).scalar_one())


def test_status_says_it_first_and_check_fails(connection: Connection, run: Run) -> None:
    bring_from_elsewhere(connection)
    seeding.sign_in(connection)
    first = status(connection, None).findings[0]
    assert (first.code, first.severity) == ("database.copied", "problem")
    told = run("status", "--check")
    assert told.exit_code == 1
    assert told.stdout.splitlines()[0] == (
        f"this database is a copy, and nothing is sent from it: it was at home as {ELSEWHERE}, and is"
        f" {here(connection)} now; relay adopt, if its events are to be sent from here"
    )
    assert re.search("^sending +nothing, from a copy of a database$", run("status").stdout, re.MULTILINE)
    assert json.loads(run("status", "--json").stdout)["home"] == {"here": here(connection), "noted": [ELSEWHERE]}


def test_what_is_late_because_of_it_is_not_told_again(connection: Connection) -> None:
    name = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), name)
    connection.execute(text("update outbox.deliveries set due_at = now() - interval '1 hour'"))
    seeding.sign_in(connection)
    assert "subscription.behind" in [finding.code for finding in status(connection, None).findings]
    bring_from_elsewhere(connection)
    assert "subscription.behind" not in [finding.code for finding in status(connection, None).findings]
    connection.execute(text("update outbox.settings set value = 60 where name = 'late_after_seconds'"))
    assert connection.exec_driver_sql(MARK_LATE, {"batch": 10}).scalar_one() == 0
    adoption.adopt(connection, None)
    assert connection.exec_driver_sql(MARK_LATE, {"batch": 10}).scalar_one() == 1


def test_adoption_is_asked_for_shows_what_waits_and_is_noted(connection: Connection, run: Run) -> None:
    bring_from_elsewhere(connection)
    name = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), name, name)
    seeding.record(connection)
    asked = run("adopt")
    assert asked.exit_code == 2
    assert "Send all of it from here? Add --yes to do it." in asked.output
    assert places(connection) == [ELSEWHERE]
    done = run("adopt", "--yes")
    lines = [re.sub(" +", " ", line) for line in done.stdout.splitlines()]
    assert lines[0] == f"It was at home as {ELSEWHERE}, and is {here(connection)} now. In it wait:"
    assert re.fullmatch(r"pending 1 events to be resolved, the oldest for \d+s", lines[1])
    assert re.fullmatch(r"due 2 deliveries that go out at once, the oldest for \d+s", lines[2])
    assert lines[-1] == f"adopted: relays send from {here(connection)}"
    assert places(connection) == [here(connection)]
    assert connection.execute(text("select count(*) from outbox.deliveries")).scalar_one() == 2, "nothing is discarded"
    (entry,) = [one for one in list_audit(connection, None, Filters()).items if one.action == "database adopted"]
    assert (entry.actor, entry.before, entry.after) == (
        "ann",
        {"places": [ELSEWHERE]},
        {"places": [here(connection)]},
    )
    again = run("adopt", "--yes")
    assert (again.exit_code, again.stdout) == (0, f"nothing to adopt: it is at home as {here(connection)}\n")


def test_where_no_relay_ran_yet_there_is_nothing_to_adopt(connection: Connection, run: Run) -> None:
    told = run("adopt")
    assert told.exit_code == 0
    assert told.stdout.startswith("nothing to adopt: no relay has run here yet")
    document = json.loads(run("adopt", "--json").stdout)
    assert (document["adopted"], document["noted"]) == (False, [])
    assert places(connection) == []
    assert "database.copied" not in [finding.code for finding in status(connection, None).findings]


def test_no_test_message_goes_out_from_a_copy_and_a_check_says_why(connection: Connection, database_url: str) -> None:
    name = seeding.subscribe(connection)
    bring_from_elsewhere(connection)
    database = Database(Config(database_url=database_url))
    with pytest.raises(ProbeError, match=r"^test: this database is a copy, and nothing is sent from it; relay adopt"):
        anyio.run(send_test, database, None, name)
    checked = anyio.run(check_endpoint, database, None, name)
    assert checked.hindrance is not None
    assert (checked.hindrance.code, checked.hindrance.mend) == ("hindrance.copied", "relay adopt")


@pytest.mark.parametrize("role", ["outbox_relay", "outbox_reader", "outbox_app"])
def test_nobody_but_an_operator_may_adopt(connection: Connection, role: str) -> None:
    bring_from_elsewhere(connection)
    connection.execute(text(f"set role {role}"))
    with pytest.raises(Exception, match="permission denied"):
        connection.execute(text("select outbox.adopt()"))
    connection.execute(text("reset role"))
    assert places(connection) == [ELSEWHERE]


def test_a_database_that_sends_already_is_at_home_where_it_is_migrated(empty_database_url: str) -> None:
    databases.migrate_to(empty_database_url, 19)
    with databases.engine_on(empty_database_url) as engine, engine.begin() as connection:
        outbox.record(connection, "order.created", {"id": 7})
    databases.migrate(empty_database_url)
    with databases.engine_on(empty_database_url) as engine, engine.begin() as connection:
        assert places(connection) == [here(connection)]


def test_a_new_database_has_no_home_before_its_first_relay(connection: Connection) -> None:
    assert places(connection) == []
    assert adoption.read_home(connection, None) == adoption.Home(here=here(connection), noted=())
