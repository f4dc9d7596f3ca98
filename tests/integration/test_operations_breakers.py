"""What people see of breakers: status, findings, show and list."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

import outbox
from relay.cli import cli
from relay.operations.status.breakers import Breaker, breaker_of, breakers_of, read_breakers
from relay.operations.status.status import status
from tests.support import seeding

pytestmark = pytest.mark.field("F24")

Break = Callable[..., str]


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection
        connection.commit()


def broken(connection: Connection, *, tenant: str = "", probe: str = "1 hour", days: float = 0) -> str:
    """A subscription whose breaker opened a minute ago."""
    made = outbox.subscribe(connection, "https://example.com/hook", ["a.*"], tenant=tenant)
    connection.execute(
        text(
            "insert into outbox.health (subscription_id, failures, successes, failing_since, warned_at, opened_at,"
            " probe_at, pause_seconds) values (outbox.uuid_of(:id), 9, 1, now() - make_interval(secs => :seconds),"
            " case when :seconds > 216000 then now() end, now() - interval '1 minute',"
            " now() + cast(:probe as interval), 30)"
        ),
        {"id": made.id, "seconds": days * 86_400, "probe": probe},
    )
    return made.id


def run(engine: Engine, *arguments: str) -> str:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ended = CliRunner().invoke(cli, list(arguments), env={"RELAY_DATABASE_URL": url})
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_of_which_nothing_is_noted_is_closed(connection: Connection) -> None:
    made = outbox.subscribe(connection, "https://example.com/", ["*"])
    assert breaker_of(connection, "", made.id) == Breaker()


@pytest.mark.parametrize(("probe", "state"), [("1 hour", "open"), ("-1 s", "half_open")])
def test_an_open_one_tells_since_when_how_bad_and_what_comes(connection: Connection, probe: str, state: str) -> None:
    found = breaker_of(connection, None, broken(connection, probe=probe))
    assert (found.state, found.failure_percent) == (state, 90)
    assert found.since is not None
    assert found.next_probe_at is not None
    assert found.failing_since is not None
    assert found.disable_at is not None
    assert (found.disable_at - found.failing_since).days == 5


def test_a_tenant_sees_its_own_only(connection: Connection) -> None:
    mine, others = broken(connection, tenant="a"), broken(connection, tenant="b")
    found = breakers_of(connection, "a", [mine, others])
    assert [one.state for one in found.values()] == ["open", "closed"]
    with pytest.raises(outbox.NotFoundError):
        read_breakers(connection, "a")


def test_status_names_five_and_counts_the_rest_the_next_to_be_disabled_first(connection: Connection) -> None:
    for _ in range(6):
        broken(connection)
    warned = broken(connection, days=3)
    found = status(connection, None)
    assert (found.breakers.open, found.breakers.warned, len(found.breakers.named)) == (7, 1, 5)
    codes = [(finding.code, finding.severity) for finding in found.findings if "breaker" in finding.code]
    assert codes == [("breaker.open", "note")] * 4 + [("breakers.open", "note")]
    (told,) = [finding for finding in found.findings if finding.code == "subscription.warned"]
    assert str(told.subject) == warned
    assert "has only failed for 3d 0h, and is disabled from 20" in told.seen
    assert told.severity == "problem"


def test_an_open_one_says_how_its_endpoint_fails_and_until_when(connection: Connection) -> None:
    made = broken(connection)
    delivery = seeding.resolve(connection, seeding.record(connection), made)[0]
    seeding.attempt(connection, delivery, "retry", error="certificate has expired " + "x" * 300)
    (told,) = [finding for finding in status(connection, None).findings if finding.code == "breaker.open"]
    assert f"{made} (https://example.com/hook) is not sent to, its endpoint fails: it answers 500" in told.seen
    assert ": certificate has expired xxx" in told.seen
    assert "x…; breaker open since 20" in told.seen
    assert ", 90 % failed, next probe 20" in told.seen
    assert ", and is disabled from 20" in told.seen


@pytest.mark.parametrize(
    ("successes", "waits", "severity"), [(0, True, "problem"), (1, True, "note"), (0, False, "note")]
)
def test_an_endpoint_that_gets_nothing_of_what_waits_is_a_problem(
    connection: Connection, successes: int, severity: str, *, waits: bool
) -> None:
    made = broken(connection)
    connection.execute(text("update outbox.health set successes = :successes"), {"successes": successes})
    if waits:
        seeding.resolve(connection, seeding.record(connection), made)
    (told,) = [finding for finding in status(connection, None).findings if finding.code == "breaker.open"]
    assert told.severity == severity


def test_resume_closes_it_and_is_audited(engine: Engine) -> None:
    with engine.begin() as connection:
        made = broken(connection)
    run(engine, "subscriptions", "resume", made)
    shown: dict[str, Any] = json.loads(run(engine, "subscriptions", "show", made, "--json"))
    assert shown["breaker"]["state"] == "closed"
    assert "breaker closed" in run(engine, "audit", "--subject", made)


def test_show_and_list_say_it_in_words_and_as_data(engine: Engine) -> None:
    with engine.begin() as connection:
        made = broken(connection)
    assert "open since 20" in run(engine, "subscriptions", "show", made)
    listed = run(engine, "subscriptions", "list")
    assert "active, open since 20" in listed
    assert "90 % failed, next probe 20" in listed
    assert json.loads(run(engine, "subscriptions", "list", "--json"))["breaker"]["failures"] == 9
    assert "1 not sent to while they fail" in run(engine, "status")
    assert json.loads(run(engine, "status", "--json"))["breakers"]["named"][0]["breaker"]["state"] == "open"
