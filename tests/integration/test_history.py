"""The history: attempts found by every filter, page by page, also where a page may look at few rows only."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from outbox.control import dead_letters, deliveries, event_walk, events, history
from outbox.control.by_hand import cancel, outstanding_by_id
from outbox.control.filters import FilterError, Filters
from outbox.control.pages import Page
from outbox.ids import DeliveryId, EventId, SubscriptionId, new_uuid7
from tests.support import seeding
from tests.support.page_turning import all_pages

NOW = datetime.now(UTC).replace(microsecond=0)
TENANTS = ("acme", "other")
OUTCOMES = {"delivered": 200, "http_5xx": 503, "http_4xx": 404, "timeout": None, "cancelled": None}
_MADE = text("""
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, status,
                             milliseconds, error, headers, excerpt)
values (:delivery_id, :seq, :subscription_id, :number, :at, :verdict, :outcome, :status, 5, :error, :headers, :excerpt)
""")


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def looks_at_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks at seven rows, and at its own limit at least."""
    for module in (history, event_walk, dead_letters):
        for name in ("LOOKED", "LOOKED_FOR_TEXT"):
            monkeypatch.setattr(module, name, 7)
    for name in ("LOOKED_FOR_STATE", "LOOKED_BY_INDEX"):
        monkeypatch.setattr(event_walk, name, 7)


@pytest.fixture
def made(connection: Connection) -> list[dict[str, Any]]:
    """Ninety attempts of six subscriptions, one of them the operator's, and thirty events; the newest first."""
    dice = random.Random(7)
    subscribed = [(seeding.subscribe(connection, tenant=tenant), tenant) for tenant in (*TENANTS, "acme", "other", "*")]
    recorded = []
    for number in range(30):
        tenant, type_ = dice.choice(TENANTS), dice.choice(("order.created", "order.paid", "user"))
        key = dice.choice((None, "k1", "k2"))
        payload = json.dumps({"n": number, "word": dice.choice(("apple", "pear"))})
        name = seeding.record(connection, payload, type=type_, key=key, tenant=tenant)
        facts = {"event": name, "seq": seeding.seq_of(connection, name), "type": type_, "key": key}
        recorded.append(facts | {"event_tenant": tenant, "payload": payload})
    rows = []
    for _ in range(90):
        event = dice.choice(recorded)
        subscription, whose = dice.choice([(s, t) for s, t in subscribed if t in (event["event_tenant"], "*")])
        outcome = dice.choice(list(OUTCOMES))
        rows.append(event | {
            "subscription": subscription, "whose": whose, "outcome": outcome, "status": OUTCOMES[outcome],
            "verdict": outcome if outcome in ("delivered", "cancelled") else "retry",
            "delivery_id": new_uuid7(), "number": 1, "at": NOW - timedelta(minutes=dice.randrange(200)),
            "error": None if outcome == "delivered" else dice.choice(("reset by peer", "too slow")),
            "headers": "HTTP/1.1 503\r\nserver: nginx", "excerpt": dice.choice((None, b"an apple a day")),
            "subscription_id": SubscriptionId.of(subscription),
        })  # fmt: skip
        connection.execute(_MADE, rows[-1])
    return sorted(rows, key=lambda row: (row["at"], row["delivery_id"], row["number"]), reverse=True)


def passes(row: dict[str, Any], tenant: str | None, given: dict[str, Any]) -> bool:
    """What each filter means, said once more in Python."""
    said = {
        "subscription": lambda value: row["subscription"] == value,
        "event": lambda value: row["event"] == value,
        "type": lambda value: row["type"] == value or (value.endswith(".*") and row["type"].startswith(value[:-1])),
        "key": lambda value: row["key"] == value,
        "tenant": lambda value: row["event_tenant"] == value,
        "outcome": lambda value: row["outcome"] != "delivered" if value == "failed" else row["outcome"] == value,
        "status": lambda value: (
            str(row["status"] or "").startswith(str(value).rstrip("x")) and row["status"] is not None
        ),
        "since": lambda value: row["at"] >= value,
        "until": lambda value: row["at"] < value,
        "text": lambda value: any(
            value in (part or "")
            for part in (row["payload"], row["error"], row["headers"], (row["excerpt"] or b"").decode())
        ),
    }
    return (tenant is None or row["whose"] == tenant) and all(said[name](value) for name, value in given.items())


def asked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each filter alone, and every pair of them."""
    singles: list[dict[str, Any]] = [
        {"subscription": rows[0]["subscription"]}, {"event": rows[3]["event"]}, {"type": "order.*"}, {"type": "user"},
        {"key": "k1"}, {"tenant": "acme"}, {"outcome": "failed"}, {"outcome": "timeout"}, {"outcome": "delivered"},
        {"status": 503}, {"status": "4xx"}, {"since": NOW - timedelta(minutes=90)}, {"text": "apple"},
        {"until": NOW - timedelta(minutes=60)}, {"text": "reset by"}, {"text": "nginx"},
    ]  # fmt: skip
    pairs = [one | other for one, other in itertools.combinations(singles, 2) if not set(one) & set(other)]
    return [{}, *singles, *pairs]


@pytest.mark.slow
@pytest.mark.parametrize("tenant", [None, "acme"])
@pytest.mark.parametrize("branches", [200, 1], ids=["side-by-side", "as-one"])
def test_each_filter_and_each_pair_finds_what_it_says_in_order(
    connection: Connection, made, looks_at_seven, monkeypatch, tenant, branches
) -> None:
    monkeypatch.setattr(history, "MOST_BRANCHES", branches)
    for given in asked(made):
        found = list(all_pages(lambda after, given=given: history.list_attempts(
            connection, tenant, Filters(**given, limit=4), after=after)))  # fmt: skip
        expected = [row for row in made if passes(row, tenant, given)]
        assert [item.delivery_id for item in found] == [row["delivery_id"] for row in expected], given


def test_a_page_that_stops_early_says_until_when_it_searched(connection: Connection, made, looks_at_seven) -> None:
    last = made[-1]
    filters = Filters(text=f'"n": {json.loads(last["payload"])["n"]},', limit=3)
    first = history.list_attempts(connection, None, filters)
    assert first.next is not None
    assert first.searched_until == made[6]["at"]
    turned = [first]
    while turned[-1].next is not None:
        turned.append(history.list_attempts(connection, None, filters, after=turned[-1].next))
    assert turned[-1].searched_until is None
    assert last["delivery_id"] in [item.delivery_id for page in turned for item in page]


def test_an_attempt_is_listed_with_its_event_and_what_is_kept_of_the_answer(connection: Connection, made) -> None:
    row = next(row for row in made if row["excerpt"])
    (found,) = history.list_attempts(connection, None, Filters(event=row["event"], since=row["at"], limit=50)).items[
        -1:
    ]
    assert (str(found.event_id), found.type, found.tenant, found.key) == (
        row["event"], row["type"], row["event_tenant"], row["key"],
    )  # fmt: skip
    by_id = {item.delivery_id: item for item in history.list_attempts(connection, None, Filters(limit=90))}
    shown = by_id[DeliveryId.of(row["delivery_id"])]
    assert (shown.excerpt, shown.headers, shown.error) == ("an apple a day", row["headers"], row["error"])


def test_deliveries_that_are_done_take_the_filters_of_attempts(connection: Connection, made, looks_at_seven) -> None:
    for state in ("delivered", "cancelled"):
        for given in ({}, {"key": "k1"}, {"event": made[0]["event"]}, {"text": "apple"}):
            found = list(all_pages(lambda after, given=given, state=state: deliveries.list_deliveries(
                connection, "acme", Filters(**given, limit=2), state, after=after)))  # fmt: skip
            expected = [row for row in made if row["verdict"] == state and passes(row, "acme", given)]
            assert [item.id for item in found] == [row["delivery_id"] for row in expected], (state, given)
    with pytest.raises(FilterError, match="status: does not apply here"):
        deliveries.list_deliveries(connection, None, Filters(status=503))


def test_events_are_found_by_time_type_key_and_text(connection: Connection, made, looks_at_seven) -> None:
    everything = list(all_pages(lambda after: events.list_events(connection, None, Filters(limit=4), after=after)))
    assert len(everything) == 30
    middle = everything[12]
    for given, expected in (
        ({"since": middle.recorded_at}, everything[:13]),
        ({"until": middle.recorded_at}, everything[13:]),
        ({"key": "k1", "tenant": "acme"}, [one for one in everything if (one.key, one.tenant) == ("k1", "acme")]),
        ({"text": "pear"}, [one for one in everything if '"pear"' in payload_of(made, connection, one.id)]),
        ({"event": middle.id}, [middle]),
    ):
        found = list(all_pages(lambda after, given=given: events.list_events(
            connection, None, Filters(**given, limit=2), after=after)))  # fmt: skip
        assert [item.id for item in found] == [one.id for one in expected], given


def in_every_state(connection: Connection) -> None:
    """Five events of each state, mixed; one of a dead letter is past its retention, another has two of them."""
    first, other = (seeding.subscribe(connection, tenant="acme") for _ in range(2))
    for number in range(35):
        name = seeding.record(connection, type="order.paid" if number % 2 else "user", key=f"k{number}", tenant="acme")
        if number % 7 == 0:
            continue  # pending
        made = seeding.resolve(
            connection, name, *{6: [], 5: [first, other], 4: [first, other]}.get(number % 7, [first])
        )
        for delivery, became in zip(made, MATCHED[number % 7], strict=True):
            if became == "cancelled":
                cancel(connection, None, outstanding_by_id(connection, None, [delivery]))
            else:
                seeding.attempt(connection, delivery, became)


MATCHED: dict[int, tuple[str, ...]] = {
    1: ("cancelled",), 2: ("delivered",), 3: ("retry",), 4: ("dead", "dead"), 5: ("delivered", "cancelled"), 6: (),
}  # fmt: skip


@pytest.mark.slow
def test_events_are_found_by_state_alone_and_with_every_other_filter(connection: Connection, looks_at_seven) -> None:
    in_every_state(connection)
    everything = list(all_pages(lambda after: events.list_events(connection, None, Filters(limit=4), after=after)))
    assert {one.state for one in everything} == set(events.STATES)
    middle = everything[17]
    for state in events.STATES:
        for given in ({}, {"type": "user"}, {"key": "k5"}, {"since": middle.recorded_at}, {"event": middle.id},
                      {"until": middle.recorded_at}, {"tenant": "acme"}, {"text": "n"}):  # fmt: skip
            wanted = Filters(**given, limit=2)
            passing = list(all_pages(lambda after, wanted=wanted: events.list_events(
                connection, None, wanted, after=after)))  # fmt: skip
            found = list(all_pages(lambda after, wanted=wanted, state=state: events.list_events(
                connection, None, wanted, state, after=after)))  # fmt: skip
            assert found == [one for one in passing if one.state == state], (state, given)
    assert events.list_events(connection, "other", Filters(), "dead").items == ()
    with pytest.raises(FilterError, match="state: 'lost' is not one of pending, "):
        events.list_events(connection, None, Filters(), "lost")  # type: ignore[arg-type]


def test_what_died_is_listed_beyond_the_retention_of_its_event(connection: Connection) -> None:
    in_every_state(connection)
    before = events.list_events(connection, None, Filters(), "dead")
    connection.execute(text("delete from outbox.events where seq = (select min(event_seq) from outbox.dead_letters)"))
    found = events.list_events(connection, None, Filters(), "dead")
    assert [one.id for one in found] == [one.id for one in before]
    assert (found.items[-1].priority, found.items[-1].state) == (None, "dead")


def payload_of(_rows: list[dict[str, Any]], connection: Connection, name: EventId) -> str:
    found: str = connection.execute(text("select payload from outbox.events where id = :id"), {"id": name}).scalar_one()
    return found


def test_dead_letters_are_found_by_event_and_text(connection: Connection, looks_at_seven) -> None:
    subscription = seeding.subscribe(connection)
    recorded = [seeding.record(connection, f'{{"n": "{number}!"}}') for number in range(20)]
    dead = {}
    for name in recorded:
        (dead[name],) = seeding.resolve(connection, name, subscription)
        seeding.attempt(connection, dead[name], "dead", error="answered 500")

    def found(**given: Any) -> list[str]:
        return [str(item.id) for item in all_pages(lambda after: dead_letters.list_dead_letters(
            connection, None, Filters(**given, limit=3), after=after))]  # fmt: skip

    assert found() == found(text="answered") == found(subscription=subscription) == list(dead.values())[::-1]
    assert found(text="3!") == [dead[recorded[13]], dead[recorded[3]]]
    assert found(event=recorded[5]) == [dead[recorded[5]]]
    assert found(text="no such text") == []


def test_a_tenant_with_more_subscriptions_than_are_walked_side_by_side_sees_all_of_its_own(
    connection: Connection, made, monkeypatch
) -> None:
    expected = [row["delivery_id"] for row in made if row["whose"] == "acme"]
    monkeypatch.setattr(history, "MOST_BRANCHES", 1)
    monkeypatch.setattr(history, "LOOKED", 10)
    found = all_pages(lambda after: history.list_attempts(connection, "acme", Filters(limit=5), after=after))
    assert [item.delivery_id for item in found] == expected


def test_what_is_no_filter_is_refused_by_name() -> None:
    for given, why in (
        ({"outcome": "broken"}, "outcome: 'broken' is not one of failed, delivered, "),
        ({"status": 99}, "status: 99 is no status"),
        ({"status": "5x"}, "status: '5x' is no status"),
        ({"text": ""}, "text: has 0 characters"),
        ({"text": "x" * 201}, "text: has 201 characters"),
        ({"text": "a\0b"}, "text: has a NUL character"),
    ):
        with pytest.raises(FilterError) as raised:
            Filters(**given)
        assert str(raised.value).startswith(why)


def test_what_the_caller_had_set_is_as_it_was(connection: Connection, made) -> None:
    connection.execute(text("select set_config('enable_sort', 'on', true), set_config('jit', 'on', true)"))
    history.list_attempts(connection, None, Filters(key="k1"))
    row = connection.execute(text("select current_setting('enable_sort'), current_setting('jit')")).one()
    assert tuple(row) == ("on", "on")


def test_a_page_without_a_bound_that_was_reached_says_nothing_of_it() -> None:
    assert Page(()).searched_until is None
