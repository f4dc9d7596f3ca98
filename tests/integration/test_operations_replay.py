"""Replay: a new delivery each time; a dead letter leaves with it; what cannot be delivered is refused whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from outbox import subscriptions
from outbox.control import by_hand
from outbox.control.audit import list_audit
from outbox.control.filters import FilterError, Filters
from outbox.control.replay.replay import Asked, ReplayError, candidates_by_filter, candidates_by_id, replay
from outbox.control.replay.replayable import Matching, count_by_filter
from outbox.errors import NotFoundError
from outbox.ids import SubscriptionId, parse_id
from tests.support import seeding
from tests.support.waiting import wait_until


@pytest.fixture
def connection(engine):
    with engine.connect() as connection:
        yield connection


def outstanding(connection):
    """The outstanding deliveries, oldest first: id, event, subscription, attempts, due now."""
    statement = "select id, event_seq, subscription_id, attempts, lease, due_at <= clock_timestamp() as due"
    return connection.execute(text(f"{statement} from outbox.deliveries order by due_at, id")).all()


def count(connection, table: str) -> int:
    return connection.execute(text(f"select count(*) from outbox.{table}")).scalar_one()


def dead(connection, subscription_id: str, **event) -> tuple[str, str]:
    """An event and its dead letter."""
    event_id = seeding.record(connection, **event)
    (delivery_id,) = seeding.resolve(connection, event_id, subscription_id)
    seeding.attempt(connection, delivery_id, "dead")
    return event_id, delivery_id


def delivered(connection, subscription_id: str, **event) -> tuple[str, str]:
    event_id = seeding.record(connection, **event)
    (delivery_id,) = seeding.resolve(connection, event_id, subscription_id)
    seeding.attempt(connection, delivery_id, "delivered")
    return event_id, delivery_id


def cancelled(connection, subscription_id: str, **event) -> tuple[str, str]:
    event_id = seeding.record(connection, **event)
    (delivery_id,) = seeding.resolve(connection, event_id, subscription_id)
    by_hand.cancel(connection, None, [parse_id("dlv", delivery_id)])
    return event_id, delivery_id


def test_a_dead_letter_becomes_a_new_delivery_and_is_gone(connection):
    subscription_id = seeding.subscribe(connection)
    event_id, delivery_id = dead(connection, subscription_id)
    (made,) = replay(connection, None, candidates_by_id(connection, None, delivery_id))
    (row,) = outstanding(connection)
    assert made == row.id != parse_id("dlv", delivery_id)
    assert row.id.version == 7
    assert (row.event_seq, row.subscription_id) == (
        seeding.seq_of(connection, event_id), parse_id("sub", subscription_id),
    )  # fmt: skip
    assert (row.attempts, row.lease, row.due) == (0, None, True)
    assert count(connection, "dead_letters") == 0
    assert count(connection, "pending") == 0


def test_what_was_delivered_is_delivered_again_as_often_as_it_is_asked(connection):
    event_id, delivery_id = delivered(connection, seeding.subscribe(connection))
    made = []
    for name in (delivery_id, event_id, delivery_id):
        made += replay(connection, None, candidates_by_id(connection, None, name))
        seeding.attempt(connection, made[-1], "delivered")
    assert len(set(made)) == 3


@pytest.mark.parametrize("before", [dead, delivered, cancelled])
def test_what_has_ended_once_is_replayed_as_often_as_it_is_asked(connection, before):
    """By each of its names, though none of the replays has been sent yet; the new ones have not ended themselves."""
    subscription_id = seeding.subscribe(connection)
    event_id, delivery_id = before(connection, subscription_id)
    made = []
    for name, to in ((delivery_id, None), (event_id, subscription_id), (delivery_id, subscription_id)):
        made += replay(connection, None, candidates_by_id(connection, None, name, to))
    if before is not dead:  # of a dead letter that was replayed no subscription of the event's is left to go to
        made += replay(connection, None, candidates_by_id(connection, None, event_id))
    assert len(set(made)) == len(outstanding(connection)) == 3 + (before is not dead)
    with pytest.raises(ReplayError, match="still on its way; relay deliveries retry"):
        candidates_by_id(connection, None, made[0])


def test_by_filter_what_is_on_its_way_again_is_left_out(connection):
    """So that a large replay can be asked for again, and does nothing twice."""
    subscription_id = seeding.subscribe(connection)
    wanted = Filters(subscription=subscription_id)
    delivered(connection, subscription_id)
    cancelled(connection, subscription_id)
    for state in ("delivered", "cancelled"):
        assert len(replay(connection, None, candidates_by_filter(connection, None, wanted, state=state))) == 1
        assert candidates_by_filter(connection, None, wanted, state=state) == []


def test_one_event_under_two_names_makes_one_delivery(connection):
    event_id, delivery_id = dead(connection, seeding.subscribe(connection))
    found = [item for name in (event_id, delivery_id) for item in candidates_by_id(connection, None, name)]
    assert len(replay(connection, None, found)) == 1


def test_two_people_replaying_what_was_delivered_at_once_make_a_delivery_each(engine):
    with engine.begin() as connection:
        event_id, _ = delivered(connection, seeding.subscribe(connection))
    with engine.connect() as one, engine.connect() as other, ThreadPoolExecutor(1) as pool:
        seen_by_both = [candidates_by_id(connection, None, event_id) for connection in (one, other)]
        first = replay(one, None, seen_by_both[0])
        second = pool.submit(replay, other, None, seen_by_both[1])
        wait_until(lambda: is_waiting_for_a_lock(engine) or second.done())
        one.commit()
        assert (len(first), len(second.result())) == (1, 1)


def test_two_people_replaying_a_filter_at_once_make_one_delivery(engine):
    with engine.begin() as connection:
        delivered(connection, seeding.subscribe(connection))
    wanted = Filters(since=timedelta(hours=1))
    with engine.connect() as one, engine.connect() as other, ThreadPoolExecutor(1) as pool:
        seen_by_both = [candidates_by_filter(each, None, wanted, state="delivered") for each in (one, other)]
        first = replay(one, None, seen_by_both[0])
        second = pool.submit(replay, other, None, seen_by_both[1])
        wait_until(lambda: is_waiting_for_a_lock(engine) or second.done())
        one.commit()
        assert (len(first), second.result()) == (1, [])


def is_waiting_for_a_lock(engine) -> bool:
    statement = "select exists (select from pg_locks l join pg_stat_activity a using (pid)"
    with engine.connect() as connection:
        return connection.execute(text(f"{statement} where not granted and datname = current_database())")).scalar_one()


def test_two_people_replaying_one_dead_letter_at_once_make_one_delivery(engine):
    with engine.begin() as connection:
        _, delivery_id = dead(connection, seeding.subscribe(connection))
    with engine.connect() as one, engine.connect() as other:
        seen_by_both = [candidates_by_id(connection, None, delivery_id) for connection in (one, other)]
        first = replay(one, None, seen_by_both[0])
        one.commit()
        second = replay(other, None, seen_by_both[1])
        other.commit()
        assert (len(first), second) == (1, [])
        assert len(outstanding(one)) == 1


def test_what_is_on_its_way_is_left_alone(connection):
    event_id = seeding.record(connection)
    (delivery_id,) = seeding.resolve(connection, event_id, seeding.subscribe(connection))
    with pytest.raises(ReplayError, match="still on its way"):
        candidates_by_id(connection, None, delivery_id)
    assert len(outstanding(connection)) == 1


@pytest.mark.parametrize("to_all", [False, True])
def test_an_event_that_is_not_resolved_yet_is_left_alone(connection, to_all):
    """It would go twice, and before others of its key."""
    name = seeding.subscribe(connection)
    event_id = seeding.record(connection)
    with pytest.raises(ReplayError, match="still on its way"):
        candidates_by_id(connection, None, event_id, to=None if to_all else name, to_all=to_all)
    assert outstanding(connection) == []
    seeding.resolve(connection, event_id)
    assert candidates_by_id(connection, None, event_id, to=None if to_all else name, to_all=to_all)


def test_what_was_cancelled_and_arrived_all_the_same_is_not_replayed_as_cancelled(connection):
    name = seeding.subscribe(connection)
    (_, arrived), (stopped, _) = cancelled(connection, name), cancelled(connection, name)
    connection.execute(
        text("""
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds)
select delivery_id, event_seq, subscription_id, 1, 'delivered', 'delivered', 204, 5 from outbox.attempts
where delivery_id = :id and verdict = 'cancelled'"""),
        {"id": parse_id("dlv", arrived)},
    )
    filters = Filters(since=timedelta(hours=1))
    assert count_by_filter(connection, None, filters, state="cancelled") == Matching(count=1, exact=True)
    (found,) = candidates_by_filter(connection, None, filters, state="cancelled")
    assert found.event_seq == seeding.seq_of(connection, stopped)


def test_an_event_goes_to_everybody_who_had_it_dead_or_alive(connection):
    one, other, third = (seeding.subscribe(connection) for _ in range(3))
    event_id = seeding.record(connection)
    deliveries = seeding.resolve(connection, event_id, one, other, third)
    seeding.attempt(connection, deliveries[0], "delivered")
    seeding.attempt(connection, deliveries[1], "dead")
    replay(connection, None, candidates_by_id(connection, None, event_id))
    reached = [row.subscription_id for row in outstanding(connection)]
    assert sorted(reached) == sorted(parse_id("sub", name) for name in (one, other, third))
    assert count(connection, "dead_letters") == 0


def test_to_another_subscription_the_dead_letter_stays(connection):
    own, other = seeding.subscribe(connection), seeding.subscribe(connection)
    event_id, delivery_id = dead(connection, own)
    replay(connection, None, candidates_by_id(connection, None, delivery_id, to=other))
    assert [row.subscription_id for row in outstanding(connection)] == [parse_id("sub", other)]
    assert count(connection, "dead_letters") == 1
    replay(connection, None, candidates_by_id(connection, None, event_id, to=own))
    assert count(connection, "dead_letters") == 0


def test_an_event_without_subscriber_needs_a_name(connection):
    event_id = seeding.record(connection)
    seeding.resolve(connection, event_id)
    with pytest.raises(ReplayError, match="--to sub_"):
        replay(connection, None, candidates_by_id(connection, None, event_id))
    replay(connection, None, candidates_by_id(connection, None, event_id, to=seeding.subscribe(connection)))
    assert len(outstanding(connection)) == 1


class TestToAll:
    def test_it_goes_to_every_subscription_that_it_matches_now(self, connection):
        """Those that had it, and those that came since; not who is removed, drops what comes, or is a stranger."""
        had, since, on_its_way, dropping, removed, stranger = (
            seeding.subscribe(connection, tenant=tenant) for tenant in ("acme",) * 5 + ("globex",)
        )
        every = seeding.subscribe(connection, tenant="*")
        event_id = seeding.record(connection, tenant="acme")
        done, _ = seeding.resolve(connection, event_id, had, on_its_way)
        seeding.attempt(connection, done, "dead")
        subscriptions.pause(connection, dropping, drop=True, tenant="acme")
        subscriptions.pause(connection, since, tenant="acme")
        subscriptions.remove(connection, removed, tenant="acme")
        found = candidates_by_id(connection, None, event_id, to_all=True)
        assert {str(item.subscription_id) for item in found} == {had, since, every}
        assert {str(item.subscription_id) for item in candidates_by_id(connection, "acme", done, to_all=True)} == {
            had, since,
        }  # fmt: skip
        replay(connection, None, found, Asked(names=[event_id], to="all"))
        reached = sorted(str(SubscriptionId.of(row.subscription_id)) for row in outstanding(connection))
        assert reached == sorted([had, since, on_its_way, every])
        assert (count(connection, "dead_letters"), stranger in reached) == (0, False)
        (entry,) = (entry for entry in list_audit(connection, None, Filters()) if entry.action == "replayed")
        assert (entry.details["to"], entry.details["count"], entry.subject) == ("all", 3, event_id)

    def test_an_event_that_matches_nobody_is_refused(self, connection):
        event_id = seeding.record(connection)
        seeding.resolve(connection, event_id)
        with pytest.raises(ReplayError, match="matches no subscription now"):
            candidates_by_id(connection, None, event_id, to_all=True)
        seeding.subscribe(connection)
        assert len(replay(connection, None, candidates_by_id(connection, None, event_id, to_all=True))) == 1


@pytest.mark.parametrize("by", ["event", "dead letter"])
def test_an_event_that_could_not_be_resolved_goes_back_to_pending(connection, by):
    event_id = seeding.record(connection)
    delivery_id = seeding.bury_unresolved(connection, event_id)
    assert count(connection, "pending") == 0
    assert (
        replay(connection, None, candidates_by_id(connection, None, event_id if by == "event" else delivery_id)) == []
    )
    assert (count(connection, "pending"), count(connection, "dead_letters"), outstanding(connection)) == (1, 0, [])


class TestPruned:
    def test_a_dead_letter_brings_its_event_back_for_one_subscription_only(self, connection):
        subscription_id = seeding.subscribe(connection)
        seeding.subscribe(connection)
        payload = '{"b":1, "a":  1.0000000000000000000001}'
        event_id, delivery_id = dead(connection, subscription_id, data=payload, key="k")
        before = connection.execute(text("select * from outbox.events")).one()
        seeding.prune_event(connection, event_id)
        replay(connection, None, candidates_by_id(connection, None, delivery_id))
        assert connection.execute(text("select * from outbox.events")).one() == before
        assert before.payload == payload
        assert count(connection, "pending") == 0
        assert len(outstanding(connection)) == 1

    def test_an_unresolved_one_is_brought_back_and_resolved_again(self, connection):
        event_id = seeding.record(connection)
        delivery_id = seeding.bury_unresolved(connection, event_id)
        seeding.prune_event(connection, event_id)
        replay(connection, None, candidates_by_id(connection, None, delivery_id))
        assert (count(connection, "events"), count(connection, "pending")) == (1, 1)

    def test_what_was_delivered_is_refused_since_its_payload_is_gone(self, connection):
        event_id, delivery_id = delivered(connection, seeding.subscribe(connection))
        seeding.prune_event(connection, event_id)
        with pytest.raises(ReplayError, match="its payload is gone"):
            replay(connection, None, candidates_by_id(connection, None, delivery_id))
        with pytest.raises(NotFoundError, match="pruned"):
            candidates_by_id(connection, None, event_id)


class TestRefusals:
    def test_a_removed_subscription_is_refused_with_everything_else(self, connection):
        removed, alive = seeding.subscribe(connection), seeding.subscribe(connection)
        dead(connection, alive)
        dead(connection, removed)
        subscriptions.remove(connection, removed)
        found = candidates_by_filter(connection, None, Filters(since=timedelta(hours=1)))
        with pytest.raises(ReplayError, match=f"{removed} is removed; name another with --to"):
            replay(connection, None, found)
        assert (count(connection, "dead_letters"), outstanding(connection)) == (2, [])

    def test_another_tenants_subscription_is_refused(self, connection):
        stranger = seeding.subscribe(connection, tenant="other")
        everybody = seeding.subscribe(connection, tenant="*")
        event_id, _ = dead(connection, seeding.subscribe(connection, tenant="acme"), tenant="acme")
        with pytest.raises(ReplayError, match="another tenant"):
            replay(connection, None, candidates_by_id(connection, None, event_id, to=stranger))
        assert len(replay(connection, None, candidates_by_id(connection, None, event_id, to=everybody))) == 1

    def test_a_subscription_that_never_was_is_not_called_removed(self, connection):
        event_id, _ = dead(connection, seeding.subscribe(connection))
        nobody = "sub_00000000000000000000000000"
        with pytest.raises(ReplayError, match=f"no {nobody}; never made, or removed"):
            replay(connection, None, candidates_by_id(connection, None, event_id, to=nobody))

    @pytest.mark.parametrize("name", ["dlv_00000000000000000000000000", "evt_00000000000000000000000000"])
    def test_what_was_never_there_is_not_found(self, connection, name):
        with pytest.raises(NotFoundError, match=name):
            candidates_by_id(connection, None, name)

    @pytest.mark.case("C24")
    def test_no_filter_at_all_is_refused(self, connection):
        with pytest.raises(ReplayError, match="filter: none given"):
            candidates_by_filter(connection, None, Filters())

    @pytest.mark.case("C24")
    def test_since_after_until_is_refused(self):
        with pytest.raises(FilterError, match="since: is not before until"):
            Filters(since=timedelta(hours=1), until=timedelta(hours=2))


class TestByFilter:
    def test_each_filter_narrows_and_the_limit_takes_the_oldest(self, connection):
        acme, other = seeding.subscribe(connection, tenant="acme"), seeding.subscribe(connection, tenant="other")
        first = dead(connection, acme, tenant="acme", type="order.created", key="k1")
        dead(connection, acme, tenant="acme", type="order.paid", key="k2")
        dead(connection, other, tenant="other", type="user.created", key="k1")

        def found(**given) -> int:
            return len(candidates_by_filter(connection, None, Filters(**given)))

        assert found(tenant="acme") == 2
        assert found(type="order.*") == 2
        assert found(type="order.paid") == 1
        assert found(key="k1") == 2
        assert found(subscription=other) == 1
        assert found(since=timedelta(hours=1), until=timedelta(seconds=0)) == 3
        assert found(until=timedelta(hours=1)) == 0
        (oldest,) = candidates_by_filter(connection, None, Filters(tenant="acme", limit=1))
        assert oldest.dead == parse_id("dlv", first[1])

    def test_delivered_ones_are_found_once_each(self, connection):
        subscription_id = seeding.subscribe(connection)
        _, delivery_id = delivered(connection, subscription_id)
        (again,) = replay(connection, None, candidates_by_id(connection, None, delivery_id))
        seeding.attempt(connection, again, "delivered")
        delivered(connection, subscription_id)
        dead(connection, subscription_id)
        found = candidates_by_filter(connection, None, Filters(subscription=subscription_id), state="delivered")
        assert len(found) == 2
        assert len(replay(connection, None, found)) == 2
