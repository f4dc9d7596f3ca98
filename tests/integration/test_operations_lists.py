"""What an operator sees of events, deliveries and dead letters."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from sqlalchemy import text

from outbox import subscriptions
from outbox.control import dead_letters
from outbox.control.deliveries import list_deliveries, show_delivery
from outbox.control.events import event_state, list_events, show_event
from outbox.control.filters import FilterError, Filters
from outbox.control.replay.replay import Asked, replay
from outbox.control.replay.replayable import candidates_by_id
from outbox.errors import NotFoundError
from outbox.ids import parse_id
from relay.cli.output import counted
from tests.support import seeding

ALL = Filters()


@pytest.fixture
def connection(engine):
    with engine.connect() as connection:
        yield connection


class TestEvents:
    def test_each_is_listed_with_what_became_of_it(self, connection):
        subscription_id = seeding.subscribe(connection)
        events = {state: seeding.record(connection, type=state)
                  for state in ("pending", "unmatched", "under_way", "delivered", "dead")}  # fmt: skip
        seeding.resolve(connection, events["unmatched"])
        seeding.resolve(connection, events["under_way"], subscription_id)
        for verdict in ("delivered", "dead"):
            (delivery_id,) = seeding.resolve(connection, events[verdict], subscription_id)
            seeding.attempt(connection, delivery_id, verdict)
        found = list_events(connection, None, ALL)
        assert {str(item.id): item.state for item in found} == {name: state for state, name in events.items()}
        assert [str(item.id) for item in found] == list(events.values())[::-1]

    @pytest.mark.field("F45")
    def test_all_states_of_its_subscriptions_are_counted(self, connection):
        names = [seeding.subscribe(connection) for _ in range(8)]
        event_id = seeding.record(connection)
        deliveries = seeding.resolve(connection, event_id, *names)
        for delivery_id, verdict in zip(deliveries, ("delivered", "dead", "dead", "retry", "retry"), strict=False):
            seeding.attempt(connection, delivery_id, verdict)
        dead_letters.purge(connection, None, [parse_id("dlv", deliveries[2])])
        for name in (names[4], names[5], names[6]):  # attempted, never attempted, never attempted and not cleared yet
            subscriptions.remove(connection, name)
        self._clear(connection, deliveries[4], deliveries[5])
        (found,) = list_events(connection, None, ALL)
        counts = show_event(connection, None, event_id).counts
        assert [found.matched, found.delivered, found.outstanding, found.dead, found.purged, found.cancelled] == [
            8, 1, 2, 1, 1, 3,
        ]  # fmt: skip
        assert counted(counts) == counted(found) == "1 delivered, 2 outstanding, 1 dead, 1 purged, 3 cancelled"

    @staticmethod
    def _clear(connection, *names) -> None:
        """Delete deliveries as housekeeping and `cancel_orphans` do."""
        statement = text("delete from outbox.deliveries where id = any(cast(:ids as uuid[]))")
        connection.execute(statement, {"ids": [parse_id("dlv", name) for name in names]})

    @pytest.mark.field("F45")
    def test_one_delivered_and_one_cancelled_is_delivered_in_part(self, connection):
        kept, removed = seeding.subscribe(connection), seeding.subscribe(connection)
        event_id = seeding.record(connection)
        delivered, cancelled = seeding.resolve(connection, event_id, kept, removed)
        seeding.attempt(connection, delivered, "delivered")
        subscriptions.remove(connection, removed)
        seen = [show_event(connection, None, event_id).state]
        self._clear(connection, cancelled)
        found = show_event(connection, None, event_id)
        assert [*seen, found.state] == ["partly_delivered"] * 2
        assert (found.counts.matched, found.counts.delivered, found.counts.cancelled) == (2, 1, 1)

    @pytest.mark.field("F45")
    def test_what_cannot_be_told_is_said_to_be_unknown(self, connection):
        kept, removed, other = (seeding.subscribe(connection) for _ in range(3))
        event_id = seeding.record(connection)
        delivered, cancelled = seeding.resolve(connection, event_id, kept, removed)
        seeding.attempt(connection, delivered, "delivered")
        self._clear(connection, cancelled)
        candidates = candidates_by_id(connection, None, event_id, to=other)
        replay(connection, None, candidates, Asked(names=[event_id], to=other))
        (found,) = list_events(connection, None, ALL)
        assert (found.matched, found.cancelled) == (2, None)
        assert counted(found) == "1 delivered, 1 outstanding, cancelled unknown"

    def test_state_names_the_most_urgent(self):
        words = [
            event_state(pending=pending, matched=matched, delivered=delivered, dead=dead, outstanding=outstanding)
            for pending, dead, outstanding, delivered, matched in itertools.product(
                (True, False), (1, 0), (1, 0), (1, 0), (1, 0, None)
            )
        ]
        assert list(dict.fromkeys(words)) == [
            "pending", "dead", "under_way", "delivered", "cancelled", "unmatched", "unknown",
        ]  # fmt: skip

    def test_a_replay_is_outstanding_and_one_to_another_subscription_is_marked(self, connection):
        own, other = seeding.subscribe(connection), seeding.subscribe(connection)
        again, elsewhere, alone = (seeding.record(connection, type=f"order.{name}") for name in ("a", "b", "c"))
        for event_id in (again, elsewhere, alone):
            (delivery_id,) = seeding.resolve(connection, event_id, own)
            seeding.attempt(connection, delivery_id, "delivered")
        for event_id, to in ((again, None), (elsewhere, other)):
            found = candidates_by_id(connection, None, event_id, to=to)
            replay(connection, None, found, Asked(names=[event_id], to=to))
        counts = {str(item.id): (item.state, item.delivered, item.outstanding, item.cancelled)
                  for item in list_events(connection, None, ALL)}  # fmt: skip
        assert counts == {
            again: ("under_way", 1, 1, 0), elsewhere: ("under_way", 1, 1, None), alone: ("delivered", 1, 0, 0),
        }  # fmt: skip

    def test_filters_narrow(self, connection):
        seeding.record(connection, type="order.created", key="k", tenant="acme")
        seeding.record(connection, type="order.paid")
        seeding.record(connection, type="orders")

        def types(**given) -> list[str]:
            return [item.type for item in list_events(connection, None, Filters(**given))]

        assert types(type="order.*") == ["order.paid", "order.created"]
        assert types(type="*", limit=1) == ["orders"]
        assert types(key="k") == types(tenant="acme") == ["order.created"]
        assert types(tenant="") == ["orders", "order.paid"]
        assert types(since=timedelta(minutes=5)) == ["orders", "order.paid", "order.created"]
        assert types(until=timedelta(minutes=5)) == []
        assert types(key="' or true --") == []
        with pytest.raises(FilterError, match="subscription: does not apply here"):
            types(subscription=seeding.subscribe(connection))

    def test_one_is_shown_with_all_that_happened(self, connection):
        one, other, third = (seeding.subscribe(connection) for _ in range(3))
        payload = '{"b": 1,  "a":1e2}'
        event_id = seeding.record(connection, payload)
        waiting, done, lost = seeding.resolve(connection, event_id, one, other, third)
        seeding.attempt(connection, waiting, "retry", error="answered 500")
        seeding.attempt(connection, done, "delivered")
        seeding.attempt(connection, lost, "dead", error="answered 410")
        found = show_event(connection, None, event_id)
        assert (found.state, found.payload, found.resolution.matched) == ("dead", payload, 3)
        assert [(str(item.id), item.state) for item in found.deliveries] == [(waiting, "waiting")]
        assert [(str(item.delivery_id), item.error) for item in found.dead_letters] == [(lost, "answered 410")]
        assert {str(item.delivery_id): item.verdict for item in found.attempts} == {
            waiting: "retry", done: "delivered", lost: "dead",
        }  # fmt: skip

    def test_a_pruned_one_is_still_shown_from_its_dead_letter(self, connection):
        event_id = seeding.record(connection, '"kept"')
        (delivery_id,) = seeding.resolve(connection, event_id, seeding.subscribe(connection))
        seeding.attempt(connection, delivery_id, "dead")
        seeding.prune_event(connection, event_id)
        assert show_event(connection, None, event_id).payload == '"kept"'

    def test_an_unknown_one_is_not_found(self, connection):
        with pytest.raises(NotFoundError, match="never recorded, or pruned"):
            show_event(connection, None, "evt_00000000000000000000000000")


class TestDeliveries:
    def test_each_state_is_told_apart_and_filtered(self, connection):
        busy, paused, removed, disabled, slow = (seeding.subscribe(connection) for _ in range(5))
        event_id = seeding.record(connection)
        due, waiting, leased, expired = seeding.resolve(connection, event_id, busy, busy, busy, busy)
        standing, cancelled = seeding.resolve(connection, event_id, paused, removed)
        off, held, later = seeding.resolve(connection, event_id, disabled, slow, slow)
        for name in (waiting, later):
            seeding.attempt(connection, name, "retry")
        for name, until in ((leased, "1 minute"), (expired, "-1 minute")):
            connection.execute(
                text("update outbox.deliveries set lease = 7, attempts = 1, due_at = now() + cast(:until as interval)"
                     " where id = :id"), {"id": parse_id("dlv", name), "until": until},
            )  # fmt: skip
        subscriptions.pause(connection, paused)
        subscriptions.remove(connection, removed)
        subscriptions.disable(connection, disabled, reason="broken")
        connection.execute(
            text("update outbox.subscriptions set held_until = now() + interval '1 minute' where id = :id"),
            {"id": parse_id("sub", slow)},
        )
        expected = {due: "due", expired: "due", waiting: "waiting", later: "waiting", leased: "leased", held: "held",
                    standing: "paused", off: "disabled", cancelled: "removed"}  # fmt: skip
        assert {str(item.id): item.state for item in list_deliveries(connection, None, ALL)} == expected
        for state in set(expected.values()):
            found = {str(item.id) for item in list_deliveries(connection, None, ALL, state)}
            assert found == {name for name, other in expected.items() if other == state}
        assert {str(item.id) for item in list_deliveries(connection, None, Filters(subscription=paused))} == {standing}
        with pytest.raises(FilterError, match="state: 'stuck' is not one of due, waiting"):
            list_deliveries(connection, None, ALL, "stuck")

    def test_the_delivered_are_listed_from_their_attempts(self, connection):
        event_id = seeding.record(connection, key="k")
        (delivery_id,) = seeding.resolve(connection, event_id, seeding.subscribe(connection))
        seeding.attempt(connection, delivery_id, "retry")
        seeding.attempt(connection, delivery_id, "delivered")
        (found,) = list_deliveries(connection, None, Filters(key="k"), "delivered")
        assert (str(found.id), str(found.event_id), found.attempts) == (delivery_id, event_id, 2)
        assert list(list_deliveries(connection, None, ALL)) == []

    def test_one_is_shown_wherever_it_is(self, connection):
        event_id = seeding.record(connection)
        (delivery_id,) = seeding.resolve(connection, event_id, seeding.subscribe(connection))
        states = []
        for verdict in ("retry", "dead"):
            seeding.attempt(connection, delivery_id, verdict, error="answered 500")
            found = show_delivery(connection, None, delivery_id)
            states.append((found.state, [attempt.number for attempt in found.attempts_made]))
        dead_letters.purge(connection, None, [parse_id("dlv", delivery_id)])
        states.append((show_delivery(connection, None, delivery_id).state, [1, 2]))
        assert states == [("waiting", [1]), ("dead", [1, 2]), ("replayed_or_purged", [1, 2])]

    def test_bytes_of_an_answer_are_shown_without_loss(self, connection):
        event_id = seeding.record(connection)
        (delivery_id,) = seeding.resolve(connection, event_id, seeding.subscribe(connection))
        seeding.attempt(connection, delivery_id, "retry")
        connection.execute(text(r"update outbox.attempts set excerpt = '\x00ff41'"))
        (found,) = show_delivery(connection, None, delivery_id).attempts_made
        assert found.excerpt == "\x00\\xffA"


class TestDeadLetters:
    def test_they_are_listed_shown_and_purged(self, connection):
        subscription_id = seeding.subscribe(connection)
        names = []
        for number in range(3):
            event_id = seeding.record(connection, f'{{"n":{number}}}')
            names += seeding.resolve(connection, event_id, subscription_id)
            seeding.attempt(connection, names[-1], "dead", error="gone")
        unresolved = seeding.bury_unresolved(connection, seeding.record(connection))
        listed = dead_letters.list_dead_letters(connection, None, ALL).items
        assert [str(item.id) for item in listed] == [unresolved, *names[::-1]]
        assert (listed[0].subscription_id, listed[0].reason) == (None, "unresolvable")
        shown = dead_letters.show_dead_letter(connection, None, names[1])
        assert (shown.payload, shown.error, len(shown.attempts_made)) == ('{"n":1}', "gone", 1)
        oldest = dead_letters.find(connection, None, Filters(subscription=subscription_id, limit=2))
        assert dead_letters.purge(connection, None, oldest) == 2
        assert [str(item.id) for item in dead_letters.list_dead_letters(connection, None, ALL)] == [
            unresolved,
            names[2],
        ]
        with pytest.raises(NotFoundError, match="replayed, purged, or never died"):
            dead_letters.show_dead_letter(connection, None, names[0])


@pytest.mark.case("C7")
def test_a_hostile_search_path_changes_no_answer(connection):
    event_id = seeding.record(connection)
    (delivery_id,) = seeding.resolve(connection, event_id, seeding.subscribe(connection))
    for table in ("events", "deliveries", "attempts", "dead_letters", "pending", "resolutions"):
        connection.execute(text(f"create temporary table {table} (like outbox.{table})"))
    connection.execute(text("create function pg_temp.text_id(text, uuid) returns text language sql as $$select 'x'$$"))
    connection.execute(text("set local search_path = pg_temp"))
    seeding.attempt(connection, delivery_id, "retry")
    assert str(show_event(connection, None, event_id).deliveries.items[0].id) == delivery_id
    assert [str(item.id) for item in list_events(connection, None, ALL)] == [event_id]
    assert [str(item.id) for item in list_deliveries(connection, None, ALL)] == [delivery_id]
