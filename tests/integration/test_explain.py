"""Why a subscription gets an event or not: told by the evaluator that relays ask, for recorded events and drafts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text

from outbox import subscriptions
from outbox.control.explain import Draft, explain_draft, explain_event, try_filter, try_stored_filter
from outbox.control.store.replay import find_matching
from outbox.errors import NotFoundError, RecordError, SubscriptionError
from outbox.ids import parse_id
from relay.cli import cli
from tests.support import seeding

URL = "https://example.com/hooks"
LARGE = {"payload": {"total": {"$gte": 100}}}


@pytest.fixture
def connection(engine: Any) -> Any:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def run(database_url: str) -> Any:
    def run(*arguments: str, code: int = 0, given: str | None = None) -> Any:
        ended = CliRunner().invoke(
            cli, arguments, env={"RELAY_DATABASE_URL": database_url}, input=given, standalone_mode=False
        )
        if ended.exception is not None:
            assert code == 2, ended.exception
            return str(ended.exception)
        assert (ended.return_value or 0) == code
        return ended.stdout

    return run


def reasons(found: Any) -> dict[str, str]:
    return {str(item.id): item.reason for item in found.subscriptions}


def test_every_subscription_of_the_tenant_is_explained(connection: Connection) -> None:
    made = {
        "matched": subscriptions.add(connection, URL, ["order.*"], filter={"payload": {"total": {"$lt": 100}}}),
        "filter": subscriptions.add(connection, URL, ["*"], filter=LARGE),
        "type": subscriptions.add(connection, URL, ["user.*", "order.sent"]),
        "paused": subscriptions.add(connection, URL, ["*"]),
        "disabled": subscriptions.add(connection, URL, ["order.paid"]),
        "dropped": subscriptions.add(connection, URL, ["*"]),
        "operator": subscriptions.add_for_every_tenant(connection, URL, ["*"], filter={"key": "k-2"}),
    }
    gone = subscriptions.add(connection, URL, ["*"])
    other = subscriptions.add(connection, URL, ["*"], tenant="acme")
    subscriptions.pause(connection, made["paused"].id)
    subscriptions.pause(connection, made["dropped"].id, drop=True)
    subscriptions.disable(connection, made["disabled"].id, reason="too many errors")
    subscriptions.remove(connection, gone.id)
    event = seeding.record(connection, '{"total": 7}', type="order.paid", key="k-1")
    found = explain_event(connection, None, event)
    assert reasons(found) == {
        made["matched"].id: "matched", made["filter"].id: "filter", made["type"].id: "type",
        made["dropped"].id: "dropped", made["paused"].id: "matched",
        made["disabled"].id: "matched", made["operator"].id: "filter",
    }  # fmt: skip
    by_id = {str(item.id): item for item in found.subscriptions}
    refused = by_id[made["filter"].id]
    assert (refused.path, refused.condition, refused.found) == ("payload.total", '{"$gte":100}', "7")
    assert refused.detail == 'its filter wants {"$gte":100} at payload.total: 7'
    assert by_id[made["type"].id].detail == "none of its types covers order.paid: user.*, order.sent"
    assert by_id[made["paused"].id].waits == "paused"
    assert by_id[made["disabled"].id].waits == "disabled: too many errors"
    assert (by_id[made["operator"].id].path, by_id[made["operator"].id].found) == ("key", '"k-1"')
    assert reasons(explain_event(connection, None, event, subscription=gone.id)) == {gone.id: "removed"}
    assert reasons(explain_event(connection, None, event, subscription=other.id)) == {other.id: "tenant"}


def test_a_tenant_is_told_of_its_own_subscriptions_and_events_only(connection: Connection) -> None:
    own = subscriptions.add(connection, URL, ["*"], tenant="acme")
    operators = subscriptions.add_for_every_tenant(connection, URL, ["*"])
    event = seeding.record(connection, tenant="acme")
    assert list(reasons(explain_event(connection, "acme", event))) == [own.id]
    with pytest.raises(NotFoundError):
        explain_event(connection, "other", event)
    with pytest.raises(NotFoundError):
        explain_event(connection, "acme", event, subscription=operators.id)
    with pytest.raises(NotFoundError):
        try_stored_filter(connection, "other", own.id, Draft(type="a", data="1"))
    draft = Draft(type="order.created", data="{}", tenant="other")
    assert explain_draft(connection, "acme", draft).tenant == "acme", "a draft is of whoever asks"


def test_a_draft_is_explained_without_being_recorded(connection: Connection) -> None:
    made = subscriptions.add(connection, URL, ["order.*"], filter=LARGE, tenant="acme")
    draft = Draft(type="order.paid", data='{"total": 250}', tenant="acme")
    found = explain_draft(connection, None, draft)
    assert (found.id, found.tenant, reasons(found)) == (None, "acme", {made.id: "matched"})
    assert connection.execute(text("select count(*) from outbox.events")).scalar_one() == 0


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"type": "a b"}, "^type: "),
        ({"data": "{"}, "^data: RawJSON is not strict JSON"),
        ({"data": "NaN"}, "^data: "),
        ({"key": "k" * 1025}, "^key: "),
    ],
)
def test_a_draft_that_could_not_be_recorded_is_refused(wrong: dict[str, str], names: str) -> None:
    with pytest.raises(RecordError, match=names):
        Draft(**{"type": "a.b", "data": "1"} | wrong)


def test_what_a_filter_could_not_say_is_told_of_the_event_and_of_its_resolution(connection: Connection) -> None:
    made = subscriptions.add(connection, URL, ["*"])
    broken = {"filter": '{"payload": {"n": {"$like": 1}}}', "id": parse_id("sub", made.id)}
    connection.execute(text("update outbox.subscriptions set filter = :filter where id = :id"), broken)
    event = seeding.record(connection)
    connection.execute(
        text("""insert into outbox.resolutions (first_seq, seqs, matches, gave_up_seqs, gave_up_subscriptions)
                values (:seq, array[:seq], array[0], array[:seq], array[cast(:id as uuid)])"""),
        {"seq": seeding.seq_of(connection, event), "id": broken["id"]},
    )
    (item,) = explain_event(connection, None, event).subscriptions
    assert (item.reason, item.gave_up, item.changed_since) == ("filter_refused", True, False)
    assert "$like: is no operator" in item.detail
    subscriptions.update(connection, made.id, filter=None)
    (item,) = explain_event(connection, None, event).subscriptions
    assert (item.reason, item.gave_up, item.changed_since) == ("matched", True, True)


def test_a_replay_to_all_that_match_asks_their_filters(connection: Connection) -> None:
    large = subscriptions.add(connection, URL, ["*"], filter=LARGE)
    subscriptions.add(connection, URL, ["*"], filter={"payload": {"total": {"$lt": 100}}})
    plain = subscriptions.add(connection, URL, ["*"])
    event = seeding.record(connection, '{"total": 100}')
    found = find_matching(connection, [seeding.seq_of(connection, event)])
    assert {uuid for _, uuid in found} == {parse_id("sub", one.id) for one in (large, plain)}


def test_pages_of_subscriptions(connection: Connection) -> None:
    made = sorted(subscriptions.add(connection, URL, ["*"]).id for _ in range(5))
    event = seeding.record(connection)
    first = explain_event(connection, None, event, limit=3)
    rest = explain_event(connection, None, event, limit=3, after=first.subscriptions.next)
    assert sorted([*reasons(first), *reasons(rest)]) == made
    assert rest.subscriptions.next is None


def test_the_pattern_of_a_type_covers_what_the_database_says(connection: Connection) -> None:
    types = ["a", "a.b", "a.b.c", "ab.c", "b", "relayed"]
    patterns = ["*", "a", "a.*", "a.b", "a.b.*", "ab.*", "b.*", "relay.*"]
    made = {pattern: subscriptions.add(connection, URL, [pattern]).id for pattern in patterns}
    for type_ in types:
        draft = explain_draft(connection, None, Draft(type=type_, data="1"))
        matched = {name for name, reason in reasons(draft).items() if reason == "matched"}
        covering = connection.execute(text("select outbox.patterns_of(:type)"), {"type": type_}).scalar_one()
        assert matched == {made[pattern] for pattern in patterns if pattern in covering}


def test_a_filter_is_tried_before_anybody_has_it(connection: Connection) -> None:
    event = seeding.record(connection, '{"total": 100}')
    assert try_filter(connection, None, LARGE, event).matches
    said = try_filter(connection, None, LARGE, Draft(type="a.b", data='{"total": "100"}'))
    assert (said.matches, said.path, said.found) == (False, "payload.total", '"100"')
    with pytest.raises(SubscriptionError, match=r"did you mean \$gte\?"):
        try_filter(connection, None, {"payload": {"total": {"$gtee": 100}}}, event)


class TestCommands:
    def test_explain_prints_each_subscription_with_its_reason(self, run: Any, connection: Connection) -> None:
        made = subscriptions.add(connection, URL, ["*"], filter=LARGE)
        event = seeding.record(connection, '{"total": 1}')
        told = json.loads(run("explain", event, "--json"))
        assert [(item["id"], item["reason"]) for item in told["subscriptions"]] == [(made.id, "filter")]
        assert "its filter wants" in run("explain", event, "--subscription", made.id)

    def test_explain_takes_a_draft_from_standard_input(self, run: Any, connection: Connection) -> None:
        made = subscriptions.add(connection, URL, ["order.*"], filter=LARGE, tenant="acme")
        asked = ("explain", "--type", "order.paid", "--data", "-", "--tenant", "acme", "--json")
        told = json.loads(run(*asked, given='{"total": 120}'))
        assert (told["id"], told["subscriptions"][0]["id"]) == (None, made.id)
        assert told["subscriptions"][0]["matches"] is True

    @pytest.mark.parametrize(
        "wrong",
        [
            ("explain"),
            ("explain", "--type", "a.b"),
            ("explain", "evt_01jd3v8m2qe7qs1k0v6w5n4x3y", "--key", "k"),
            ("subscriptions", "filter-test", "--filter", "{}"),
            ("subscriptions", "filter-test", "--event", "evt_01jd3v8m2qe7qs1k0v6w5n4x3y"),
            ("subscriptions", "filter-test", "--filter", "{", "--event", "evt_01jd3v8m2qe7qs1k0v6w5n4x3y"),
            ("subscriptions", "filter-test", "--filter", "@/no/such", "--event", "evt_01jd3v8m2qe7qs1k0v6w5n4x3y"),
        ],
    )
    def test_what_cannot_be_meant_is_a_usage_error(self, run: Any, wrong: tuple[str, ...]) -> None:
        assert run(*wrong, code=2)

    def test_filter_test_says_match_by_its_exit_code(self, run: Any, connection: Connection) -> None:
        made = subscriptions.add(connection, URL, ["*"], filter=LARGE)
        event = seeding.record(connection, '{"total": 100}')
        run("subscriptions", "filter-test", made.id, "--event", event)
        given = ("subscriptions", "filter-test", "--filter", '{"payload": {"total": {"$lt": 100}}}')
        told = json.loads(run(*given, "--event", event, "--json", code=1))
        assert (told["answer"], told["path"], told["found"]) == ("no_match", "payload.total", "100")
        run(*given, "--data", "-", given='{"total": 99.99}')

    def test_a_filter_is_given_by_a_file_and_taken_away_by_none(self, run: Any, tmp_path: Any) -> None:
        file = tmp_path / "filter.json"
        file.write_text('{"payload": {"id": {"$gt": 9007199254740993}, "sum": 0.10}}')
        made = json.loads(run("subscriptions", "add", URL, "*", "--filter", f"@{file}", "--json"))
        assert made["filter"] == {"payload": {"id": {"$gt": 9007199254740993}, "sum": 0.1}}
        shown = run("subscriptions", "show", made["id"])
        assert '{"payload":{"id":{"$gt":9007199254740993},"sum":0.1}}' in shown
        changed = json.loads(run("subscriptions", "update", made["id"], "--filter", "none", "--json"))
        assert changed["filter"] is None
