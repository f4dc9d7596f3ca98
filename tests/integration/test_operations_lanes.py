"""What people see of lanes: blocked ones, what is parked and behind which delivery, and a backlog that is sorted."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from outbox import subscriptions
from outbox.control.deliveries import list_deliveries, show_delivery
from outbox.control.filters import Filters
from outbox.control.findings import Action
from outbox.errors import SubscriptionError
from relay.cli import cli
from relay.cli.findings import in_words
from relay.config.options import Config
from relay.operations.connection import Database
from relay.operations.status.status import status
from tests.support import seeding

pytestmark = pytest.mark.case("B12")

LANE = "hashtextextended('order-7', hashtextextended('', 0))"


@pytest.fixture
def connection(database_url: str) -> Any:
    """Of a command: it reads every time."""
    database = Database(Config(database_url=database_url))
    with database.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@pytest.fixture
def lane(connection: Any) -> tuple[str, list[str]]:
    """An ordered subscription, and the deliveries of one lane, of which the first failed twice."""
    name = subscriptions.add(connection, "https://example.com/hooks", ["*"], ordered=True).id
    deliveries = [seeding.resolve(connection, seeding.record(connection, key="order-7"), name)[0] for _ in range(3)]
    connection.execute(text(f"update outbox.deliveries set lane = {LANE}, due_at = 'infinity'"))
    seeding.attempt(connection, deliveries[0], "retry", error="HTTP 500")
    seeding.attempt(connection, deliveries[0], "retry", error="HTTP 503")
    return name, deliveries


def test_status_counts_what_is_parked_apart_from_what_waits(connection: Any, lane: Any) -> None:
    found = status(connection, None).deliveries
    assert (found.parked.value, found.waiting.value, found.due.value) == (2, 1, 0)


def test_status_names_a_blocked_key_its_head_since_when_and_how_many_wait(connection: Any, lane: Any) -> None:
    name, (head, *_) = lane
    found = status(connection, None)
    (blocked,) = found.blocked_lanes
    assert (str(blocked.subscription_id), str(blocked.head), blocked.key) == (name, head, "order-7")
    assert (blocked.attempts, blocked.behind, blocked.last_error) == (2, 2, "HTTP 503")
    assert blocked.since is not None
    (finding,) = (finding for finding in found.findings if finding.code == "lane.blocked")
    assert finding.action == Action("delivery", head)
    assert finding.severity == "problem"
    words = in_words(finding)
    assert all(part in words for part in (head, "'order-7'", "2 attempts", "2 wait behind it", "HTTP 503"))
    assert f"relay subscriptions update {name} --order-policy skip" in words


def test_a_lane_that_skips_by_itself_is_a_note(connection: Any, lane: Any) -> None:
    subscriptions.update(connection, lane[0], order_policy="skip")
    (finding,) = (finding for finding in status(connection, None).findings if finding.code == "lane.blocked")
    assert finding.severity == "note"
    assert "--order-policy" not in finding.mend


def test_a_head_that_fails_alone_blocks_nobody(connection: Any, lane: Any) -> None:
    connection.execute(text("delete from outbox.deliveries where due_at = 'infinity'"))
    assert status(connection, None).blocked_lanes == ()


def test_a_head_that_waits_for_its_time_blocks_nobody(connection: Any, lane: Any) -> None:
    connection.execute(text("update outbox.deliveries set attempts = 0"))
    assert status(connection, None).blocked_lanes == ()


def test_a_parked_delivery_is_shown_with_the_one_that_goes_first(connection: Any, lane: Any) -> None:
    _, (head, parked, _) = lane
    found = show_delivery(connection, None, parked)
    assert (found.state, found.at, str(found.waits_for)) == ("parked", None, head)
    assert show_delivery(connection, None, head).waits_for is None


def test_parked_deliveries_are_listed_page_by_page(connection: Any, lane: Any) -> None:
    seen, after = [], None
    for _ in range(4):
        page = list_deliveries(connection, None, Filters(limit=1), after=after)
        seen += [(str(item.id), item.state) for item in page]
        after = page.next
        if after is None:
            break
    _, deliveries = lane
    assert sorted(seen) == sorted(zip(deliveries, ["waiting", "parked", "parked"], strict=True))
    assert [item.state for item in list_deliveries(connection, None, Filters(), "parked")] == ["parked"] * 2


def test_the_commands_print_a_parked_delivery(database_url: str, connection: Any, lane: Any) -> None:
    _, (head, parked, _) = lane

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(cli, arguments, env={"RELAY_DATABASE_URL": database_url})
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    assert head in run("deliveries", "show", parked)
    assert "parked" in run("deliveries", "list", "--json")
    assert "2 behind another of their key" in run("status")
    assert '"blocked_lanes"' in run("status", "--json")


def test_a_backlog_that_is_sorted_is_a_note(connection: Any) -> None:
    name = seeding.subscribe(connection)
    subscriptions.update(connection, name, ordered=True)
    (finding,) = (finding for finding in status(connection, None).findings if finding.code == "subscription.sorting")
    assert str(finding.subject) == name
    assert finding.severity == "note"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("ordered", "yes", "ordered: 'yes' is not True or False"),
        ("ordered", 1, "ordered: 1 is not True or False"),
        ("order_policy", "stop", "order_policy: 'stop' is not one of block, skip"),
        ("order_policy", True, "order_policy: True is not one of block, skip"),
    ],
)
def test_a_wrong_order_is_refused_by_name(connection: Any, field: str, value: Any, words: str) -> None:
    with pytest.raises(SubscriptionError, match=words):
        subscriptions.add(connection, "https://example.com/", ["*"], **{field: value})
