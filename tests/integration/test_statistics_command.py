"""`relay statistics` prints what outbox.statistics reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from relay.cli import cli
from tests.support import seeding


@pytest.fixture
def name(engine: sa.Engine) -> str:
    """A subscription of acme with a delivered and a failed attempt."""
    with engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="acme")
        event = seeding.record(connection, tenant="acme")
        for verdict, outcome, took in (("delivered", "delivered", 12), ("retry", "timeout", 15_000)):
            connection.execute(
                sa.text("insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict,"
                        " outcome, milliseconds, error) values (gen_random_uuid(), :seq, outbox.uuid_of(:name), 1,"
                        " :verdict, :outcome, :took, 'no answer\x1b[1m')"),
                {"seq": seeding.seq_of(connection, event), "name": name, "verdict": verdict, "outcome": outcome,
                 "took": took},
            )  # fmt: skip
    return name


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["statistics", *arguments], env={"RELAY_DATABASE_URL": url}, standalone_mode=False)


def documents(result: Result) -> list[dict[str, Any]]:
    assert result.exception is None, result.exception
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_document_of_one_subscription(database_url: str, name: str) -> None:
    found = json.loads(run(database_url, "--subscription", name, "--over", "1h", "--json").stdout)
    assert (found["subscription_id"], found["delivered"], found["failed"]) == (name, 1, 1)
    assert (found["success_rate"], found["mean"], found["p99"]) == (0.5, 12.0, 12.0)
    assert (found["last_outcome"], found["last_error"]) == ("timeout", "no answer\x1b[1m")


def test_text_escapes_what_a_receiver_wrote(database_url: str, name: str) -> None:
    shown = run(database_url, "--tenant", "acme").stdout
    assert "success_rate          50.00 %" in shown
    assert "no answer\\x1b[1m" in shown


def test_ranked_and_over_time(database_url: str, name: str) -> None:
    assert [one["subscription_id"] for one in documents(run(database_url, "--by", "subscription", "--json"))] == [name]
    points = documents(run(database_url, "--series", "--over", "1h", "--json"))
    assert len(points) == 61
    assert sum(point["delivered"] for point in points) == 1
    assert name in run(database_url, "--by", "subscription").stdout
    assert "delivered\tfailed" in run(database_url, "--series").stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--by", "type", "--series"], "--by"),
        (["--step", "60"], "--step"),
        (["--over", "soon"], "over: 'soon'"),
        (["--tenant", "globex", "--subscription"], "subscription: no sub_"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(database_url: str, name: str, arguments: list[str], named: str) -> None:
    given = [*arguments, name] if arguments[-1] == "--subscription" else arguments
    result = run(database_url, *given)
    assert result.exception is not None
    assert named in str(getattr(result.exception, "message", result.exception))
