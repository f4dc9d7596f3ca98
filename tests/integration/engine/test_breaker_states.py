"""The breaker in the database: what settling makes of it, who gets the probe, and when an endpoint is disabled."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from relay.model.outcome import OutcomeKind
from relay.model.settlement import Settlement
from relay.model.verdict import Disable, Hold, VerdictKind
from relay.store.breaker import FORGET_WELL, MARK_LATE
from relay.store.lease import new_lease
from relay.store.rows import Birth
from relay.store.store import Store
from relay.store.suspects import MAX_CRASHES
from tests.integration.engine.world import World, claimed, fan_out, held, result, uuid_of
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F24")]

OK, RETRY, DEAD = VerdictKind.DELIVERED, VerdictKind.RETRY, VerdictKind.DEAD
WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
TELLING = "select type, payload::jsonb from outbox.events where starts_with(type, 'relay.') order by seq"


async def births_of(world: World, store: Store, count: int, event_type: str = "a.b") -> list[Birth]:
    world.record(event_type, count=count)
    return await fan_out(store, leased=True)


def noted(
    birth: Birth, kind: VerdictKind, *, probe: bool = False, event_type: bytes = b"a.b", **changes: Any
) -> Settlement:
    settlement = result(held(birth), kind, endpoint=changes.pop("endpoint", None))
    settlement.delivery.probe = probe
    assert settlement.delivery.event is not None
    settlement.delivery.event.type = event_type
    return settlement._replace(noted=True, **changes)


async def fail(world: World, store: Store, count: int, **how: Any) -> None:
    """So many deliveries fail in one batch."""
    await store.settle([noted(birth, RETRY, **how) for birth in await births_of(world, store, count)])


async def broken(world: World, store: Store, **how: Any) -> bytes:
    """A subscription whose breaker is open, with deliveries that wait."""
    subscription = world.subscribe("a.*", **how)
    await fail(world, store, 10)
    assert health(world)["opened_at"] is not None
    return subscription


def health(world: World) -> dict[str, Any]:
    """The one row of outbox.health."""
    ((row,),) = world.rows("select to_jsonb(h) from outbox.health h")
    found: dict[str, Any] = row
    return found


def make_due(world: World) -> None:
    world.rows("update outbox.deliveries set due_at = now() - interval '1 minute'")


def make_probe_due(world: World) -> None:
    world.rows("update outbox.health set probe_at = now() - interval '1 s'")


def told(world: World) -> list[str]:
    return [kind for kind, _ in world.rows(TELLING)]


async def probe(store: Store, *ids: bytes, may_be_suspect: bool = True) -> list[bytes]:
    found = await store.claim_probes(list(ids), 10, new_lease(), may_be_suspect=may_be_suspect)
    return [one.row.id for one in found]


async def test_successes_of_an_endpoint_of_which_nothing_is_noted_leave_no_row(world: World, store: Store) -> None:
    world.subscribe()
    await store.settle([noted(birth, OK) for birth in await births_of(world, store, 3)])
    assert world.count("health") == 0


async def test_it_opens_at_the_failure_rate_and_not_below_the_least_number(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 9)
    assert (health(world)["failures"], health(world)["opened_at"]) == (9, None)
    await fail(world, store, 1)
    assert health(world)["opened_at"] is not None
    assert world.value("select probe_at - opened_at between interval '30 s' and interval '33 s' from outbox.health")


async def test_it_stays_closed_below_the_failure_rate(world: World, store: Store) -> None:
    world.subscribe()
    births = await births_of(world, store, 20)
    await store.settle([noted(birth, RETRY if at < 13 else OK) for at, birth in enumerate(births)])
    assert (health(world)["failures"], health(world)["successes"], health(world)["opened_at"]) == (13, 7, None)
    await fail(world, store, 4)
    assert health(world)["opened_at"] is not None, "17 of 24 are 70 %"


async def test_two_relays_that_settle_at_once_lose_no_result(world: World, store: Store) -> None:
    """Of successes alone: a failure waits before, where its row is made."""
    world.subscribe()
    await fail(world, store, 4)
    births = await births_of(world, store, 3)
    with world.open() as other:
        other.execute("update outbox.health set failures = failures + 2, successes = 1")
        settling = asyncio.create_task(store.settle([noted(birth, OK) for birth in births]))
        await await_until(lambda: world.value(WAITING))
    await settling
    assert (health(world)["failures"], health(world)["successes"]) == (6, 4)


async def test_failures_of_an_older_window_do_not_count(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 9)
    world.rows("update outbox.health set window_from = now() - interval '61 s'")
    await fail(world, store, 9)
    assert (health(world)["failures"], health(world)["opened_at"]) == (9, None)


async def test_the_settings_of_the_database_rule_and_nought_percent_switches_it_off(world: World, store: Store) -> None:
    world.subscribe()
    world.break_at(0)
    await fail(world, store, 30)
    assert health(world)["opened_at"] is None
    world.break_at(50)
    await fail(world, store, 1)
    assert health(world)["opened_at"] is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": OutcomeKind.ABORTED, "status": None},
        {"outcome": OutcomeKind.PAYLOAD_UNREADABLE, "status": None},
        {"endpoint": Disable("the endpoint answered 410 Gone"), "status": 410, "outcome": OutcomeKind.HTTP_4XX},
    ],
)
async def test_what_is_no_fault_of_the_endpoint_is_not_noted(world: World, store: Store, changes: Any) -> None:
    world.subscribe()
    await fail(world, store, 12, **changes)
    assert world.count("health") == 0


async def test_who_asks_to_wait_is_not_broken_but_has_not_succeeded(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 12, endpoint=Hold(5.0), status=503)
    assert (health(world)["failures"], health(world)["opened_at"]) == (0, None)
    assert health(world)["failing_since"] is not None


async def test_nothing_is_claimed_or_born_leased_while_it_is_open(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    make_due(world)
    assert await store.claim([(subscription, 10)], 10, 10**9, new_lease()) == []
    assert [row.id for row in await store.sweep(bytes(16), 10)] == []
    world.record()
    async with store.fan_out(-1, 10, 10**6) as batch:
        assert [match.sendable for match in batch.matches["", "a.b"]] == [False]
    (read,) = await store.read_subscriptions([subscription])
    assert (read.sendable_in_seconds, read.health) == (60, "open")
    assert world.count("deliveries", "attempts > 1") == 0, "nothing was charged"


async def test_a_probe_is_not_due_before_its_time(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    make_due(world)
    assert await probe(store, subscription) == []


async def test_of_two_relays_one_has_the_probe_with_one_delivery(
    world: World, store: Store, other_store: Store
) -> None:
    subscription = await broken(world, store)
    make_due(world)
    make_probe_due(world)
    both = await asyncio.gather(probe(store, subscription), probe(other_store, subscription))
    assert sorted(map(len, both)) == [0, 1]
    assert world.count("deliveries", "lease is not null and attempts = 2") == 1
    assert world.value("select probe_at > now() + interval '20 s' from outbox.health")


async def test_a_relay_that_waits_behind_another_finds_the_probe_taken(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    make_due(world)
    make_probe_due(world)
    with world.open() as other:
        other.execute("select from outbox.health for update")
        assert await probe(store, subscription) == []
        other.rollback()
    assert len(await probe(store, subscription)) == 1
    assert await probe(store, subscription) == []


async def test_a_closed_breaker_is_not_probed(world: World, store: Store) -> None:
    subscription = world.subscribe()
    await fail(world, store, 1)
    make_due(world)
    assert await probe(store, subscription) == []


@pytest.mark.parametrize(
    "closed",
    [
        "paused_at = now()",
        "removed_at = now()",
        "held_until = now() + interval '1 hour'",
        "disabled_at = now(), disabled_reason = 'a person'",
        "disabled_at = now(), disabled_reason = 'a person', recovery_seconds = 60",
    ],
)
async def test_what_else_closes_a_subscription_stops_its_probes(world: World, store: Store, closed: str) -> None:
    subscription = await broken(world, store)
    make_due(world)
    make_probe_due(world)
    world.rows(f"update outbox.subscriptions set {closed}")
    assert await probe(store, subscription) == []


async def test_a_suspect_may_be_the_probe_and_is_counted_as_one(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    make_due(world)
    make_probe_due(world)
    world.rows("update outbox.deliveries set lease = 7")
    assert await probe(store, subscription, may_be_suspect=False) == []
    assert len(await probe(store, subscription)) == 1
    assert world.count("deliveries", "crashes = 1 and due_at > now()") == 1


async def test_a_suspect_that_is_the_probe_costs_no_second_attempt(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    make_due(world)
    make_probe_due(world)
    world.rows("update outbox.deliveries set lease = 7, attempts = 3")
    lease = new_lease()
    (found,) = await store.claim_probes([subscription], 10, lease, may_be_suspect=True)
    assert found.suspect
    assert found.row.attempts == 3
    await store.release([(claimed(found.row, lease, suspect=True), 0.0)])
    assert world.rows("select distinct attempts from outbox.deliveries") == [(3,)]


async def test_a_suspect_batch_that_is_the_probe_counts_one_crash(world: World, store: Store) -> None:
    subscription = world.subscribe("a.*")
    world.rows("update outbox.subscriptions set batch_events = 3, batch_milliseconds = 0")
    world.record(count=3)
    await fan_out(store)
    await store.claim_batches(subscription, 1, 10**6, new_lease())
    world.expire()
    world.rows(
        "insert into outbox.health (subscription_id, opened_at, pause_seconds, probe_at) values (%s, now(), 60, now())",
        uuid_of(subscription),
    )
    lease = new_lease()
    (found,) = await store.claim_probes([subscription], 10, lease, may_be_suspect=True)
    ((_, rows),) = await store.claim_batches(subscription, 1, 0, lease, lead=found.row.id, suspects=True)
    assert len(rows) == 3
    assert world.deliveries("attempts, crashes") == [(1, 1)] * 3


async def test_a_suspect_that_crashed_too_often_is_no_probe(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    make_due(world)
    make_probe_due(world)
    world.rows("update outbox.deliveries set lease = 7, crashes = %s", MAX_CRASHES)
    assert await probe(store, subscription) == []


async def test_one_suspect_at_most_of_all_probes(world: World, store: Store) -> None:
    subscriptions = [world.subscribe("a.*") for _ in range(2)]
    await fail(world, store, 10)
    make_due(world)
    make_probe_due(world)
    world.rows("update outbox.deliveries set lease = 7")
    assert len(await probe(store, *subscriptions)) == 1
    assert world.count("health", "probe_at > now()") == 1, "the other one keeps its turn"


async def opened(world: World, count: int, *, due: bool, probe_at: str = "now() - interval '1 s'") -> list[bytes]:
    """So many subscriptions of one type, whose breakers have been open for long; due: each has a delivery."""
    event_type = f"{'due' if due else 'idle'}.{world.count('subscriptions')}"
    ids = [world.subscribe(event_type) for _ in range(count)]
    world.rows(
        "insert into outbox.health (subscription_id, opened_at, failing_since, pause_seconds, probe_at, changed_at)"
        f" select id, now(), now(), 60, {probe_at}, now() - interval '1 h' from outbox.subscriptions"
        " where types = array[%s]",
        event_type,
    )
    if due:
        world.record(event_type)
    return ids


async def test_breakers_with_nothing_due_keep_no_place_among_the_probes(world: World, store: Store) -> None:
    idle = await opened(world, 3, due=False, probe_at="now() - interval '1 minute'")
    (wants,) = await opened(world, 1, due=True)
    await fan_out(store)
    assert [one.subscription_id for one in (await store.read_noted(time.time() - 60))[0]] == [wants]
    found = await store.claim_probes([*idle, wants], 2, new_lease(), may_be_suspect=True)
    assert [one.row.subscription_id for one in found] == [wants]


async def test_a_suspect_that_must_wait_keeps_no_place_among_the_probes(world: World, store: Store) -> None:
    ids = await opened(world, 3, due=True)
    await fan_out(store)
    world.rows("update outbox.deliveries set lease = 7, attempts = 1 where subscription_id <> %s", uuid_of(ids[2]))
    (found,) = await store.claim_probes(ids, 1, new_lease(), may_be_suspect=False)
    assert found.row.subscription_id == ids[2]


async def test_who_has_waited_longest_for_its_probe_is_first(world: World, store: Store) -> None:
    (late,) = await opened(world, 1, due=True, probe_at="now() - interval '1 s'")
    (early,) = await opened(world, 1, due=True, probe_at="now() - interval '9 s'")
    (middle,) = await opened(world, 1, due=True, probe_at="now() - interval '5 s'")
    await fan_out(store)
    assert [one.subscription_id for one in (await store.read_noted(0.0))[0]] == [early, middle, late]


async def test_many_that_want_a_probe_keep_no_news_away(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.probes.NOTED_MAX", 2)
    await opened(world, 3, due=True)
    await fan_out(store)
    closed = world.subscribe("a.*")
    world.rows("insert into outbox.health (subscription_id) values (%s)", uuid_of(closed))
    noted_ones, _ = await store.read_noted(time.time() - 60)
    assert [one.probe for one in noted_ones] == [True, True, False]
    assert noted_ones[2].subscription_id == closed


@pytest.mark.parametrize("closed", ["paused_at = now()", "held_until = now() + interval '1 hour'"])
async def test_what_else_closes_a_subscription_asks_for_no_probe(world: World, store: Store, closed: str) -> None:
    await opened(world, 1, due=True)
    await fan_out(store)
    world.rows(f"update outbox.subscriptions set {closed}")
    assert not any(one.probe for one in (await store.read_noted(0.0))[0])


async def test_a_failed_probe_doubles_the_pause_up_to_the_longest(world: World, store: Store) -> None:
    await broken(world, store)
    for pause in (60, 120, 240, 300, 300):
        await fail(world, store, 1, probe=True)
        assert health(world)["pause_seconds"] == pause
        assert world.value(
            "select probe_at - changed_at between make_interval(secs => %s) and make_interval(secs => %s)"
            " from outbox.health",
            pause, 1.1 * pause,
        )  # fmt: skip
    assert told(world) == ["relay.breaker.opened"], "a failed probe is no change"


async def test_a_late_failure_of_before_it_opened_moves_no_probe(world: World, store: Store) -> None:
    await broken(world, store)
    before = health(world)["probe_at"]
    await fail(world, store, 5)
    assert (health(world)["probe_at"], health(world)["pause_seconds"]) == (before, 30)


async def test_a_success_of_before_it_opened_does_not_close_it(world: World, store: Store) -> None:
    await broken(world, store)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK)])
    assert health(world)["opened_at"] is not None
    assert health(world)["failing_since"] is None, "but it did not only fail"


async def test_a_probe_that_succeeds_closes_it(world: World, store: Store) -> None:
    subscription = await broken(world, store)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK, probe=True)])
    row = health(world)
    assert (row["opened_at"], row["probe_at"], row["failures"], row["successes"]) == (None, None, 0, 0)
    make_due(world)
    assert len(await store.claim([(subscription, 20)], 20, 10**9, new_lease())) == 10
    assert told(world) == ["relay.breaker.opened", "relay.breaker.closed"]


async def test_a_probe_of_a_breaker_that_was_closed_meanwhile_changes_nothing(world: World, store: Store) -> None:
    await broken(world, store)
    births = await births_of(world, store, 2)
    world.rows("update outbox.subscriptions set paused_at = null")
    assert world.count("health") == 0
    await store.settle([noted(births[0], RETRY, probe=True)])
    assert (health(world)["opened_at"], health(world)["probe_at"]) == (None, None)
    await store.settle([noted(births[1], OK, probe=True)])


async def test_results_of_another_url_say_nothing_of_this_one(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 12, url="http://127.0.0.1/former")
    assert world.count("health") == 0
    await fail(world, store, 1)
    await fail(world, store, 12, url="http://127.0.0.1/former")
    assert health(world)["failures"] == 1


@pytest.mark.parametrize("change", ["url = 'http://127.0.0.1/new'", "paused_at = null, disabled_at = null"])
async def test_another_url_or_a_resume_begins_anew(world: World, store: Store, change: str) -> None:
    await broken(world, store)
    world.rows(f"update outbox.subscriptions set {change}")
    assert world.count("health") == 0
    assert told(world) == ["relay.breaker.opened", "relay.breaker.closed"]
    assert world.rows("select payload::json ->> 'by' from outbox.events order by seq desc limit 1") == [("person",)]
    assert world.count("audit", "action = 'breaker closed'") >= 1


@pytest.mark.parametrize("change", ["description = 'x'", "paused_at = now()", "held_until = now() + interval '1 hour'"])
async def test_other_changes_leave_it_open(world: World, store: Store, change: str) -> None:
    await broken(world, store)
    world.rows(f"update outbox.subscriptions set {change}")
    assert health(world)["opened_at"] is not None


async def test_no_result_waits_for_a_person_who_resumes_in_an_open_transaction(world: World, store: Store) -> None:
    await broken(world, store)
    with world.open() as person:
        person.execute("update outbox.subscriptions set paused_at = null")
        await asyncio.wait_for(fail_without_recording(world, store), 5)
    assert world.count("health") == 0


async def fail_without_recording(world: World, store: Store) -> None:
    rows = world.rows("select id, event_seq, subscription_id from outbox.deliveries limit 1")
    births = [Birth(i.bytes, seq, s.bytes, None, 1, 1.0) for i, seq, s in rows]
    await store.settle([noted(birth, RETRY) for birth in births])


async def test_a_change_of_health_moves_no_version(world: World, store: Store) -> None:
    await broken(world, store)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK, probe=True)])
    assert world.value("select version from outbox.subscriptions") == 2, "one for its secret"


# Five days


def age(world: World, days: float) -> None:
    world.rows("update outbox.health set failing_since = now() - make_interval(secs => %s)", days * 86_400)


def disabled(world: World) -> list[Any]:
    return world.rows("select disabled_at is not null, disabled_reason from outbox.subscriptions")


async def test_it_is_warned_of_once_at_half_time_and_disabled_at_the_end(world: World, store: Store) -> None:
    subscription = world.subscribe()
    await fail(world, store, 1)
    age(world, 2.4)
    await fail(world, store, 1)
    assert told(world) == []
    age(world, 2.6)
    await fail(world, store, 1)
    await fail(world, store, 1)
    assert told(world) == ["relay.subscription.warned"]
    age(world, 4.9)
    await fail(world, store, 1)
    assert disabled(world) == [(False, None)]
    age(world, 5.1)
    settled = await store.settle([noted(birth, RETRY) for birth in await births_of(world, store, 1)])
    assert settled.worn == {subscription}
    ((is_disabled, reason),) = disabled(world)
    assert is_disabled
    assert reason.startswith("every attempt has failed since 2")
    assert told(world) == ["relay.subscription.warned", "relay.subscription.disabled"]


async def test_without_an_attempt_nothing_is_disabled_however_old_its_failure_is(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 1)
    age(world, 30)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK)])
    assert disabled(world) == [(False, None)]
    assert health(world)["failing_since"] is None


async def test_a_success_after_a_warning_is_told(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 1)
    age(world, 3)
    await fail(world, store, 1)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK)])
    assert told(world) == ["relay.subscription.warned", "relay.subscription.recovered"]
    assert health(world)["warned_at"] is None


async def test_the_time_is_a_setting_and_nought_disables_nothing(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 1)
    age(world, 30)
    try:
        world.rows("update outbox.settings set value = 0 where name = 'disable_after_seconds'")
        await fail(world, store, 1)
        assert (disabled(world), told(world)) == ([(False, None)], [])
    finally:
        world.rows("update outbox.settings set value = 432000 where name = 'disable_after_seconds'")


async def test_a_subscription_that_somebody_has_locked_is_disabled_with_the_next_result(
    world: World, store: Store
) -> None:
    world.subscribe()
    await fail(world, store, 1)
    age(world, 6)
    with world.open() as other:
        other.execute("select from outbox.subscriptions for no key update")
        await asyncio.wait_for(fail_without_recording(world, store), 5)
        other.rollback()
    assert disabled(world) == [(False, None)]
    assert health(world)["disabled_at"] is None
    await fail(world, store, 1)
    assert disabled(world)[0][0]


async def test_who_disabled_it_before_keeps_time_and_reason(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 1)
    births = await births_of(world, store, 1)
    age(world, 6)
    world.rows("update outbox.subscriptions set disabled_at = now(), disabled_reason = 'mine'")
    await store.settle([noted(births[0], RETRY)])
    assert disabled(world) == [(True, "mine")]
    assert health(world)["disabled_at"] is None


async def worn(world: World, store: Store, recovery_seconds: int) -> bytes:
    subscription = world.subscribe("a.*")
    await fail(world, store, 2)
    world.rows("update outbox.subscriptions set recovery_seconds = %s", recovery_seconds)
    age(world, 6)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, RETRY)])
    make_due(world)
    return subscription


async def test_without_recovery_a_disabled_one_is_not_tried(world: World, store: Store) -> None:
    subscription = await worn(world, store, 0)
    assert [one.probe for one in (await store.read_noted(0.0))[0]] == [False]
    assert await probe(store, subscription) == []
    world.rows("update outbox.subscriptions set recovery_seconds = 60")
    assert [one.probe for one in (await store.read_noted(0.0))[0]] == [True], "who wants recovery later gets it too"
    assert len(await probe(store, subscription)) == 1


async def test_with_recovery_it_is_tried_once_in_that_time_and_enabled_by_a_success(world: World, store: Store) -> None:
    subscription = await worn(world, store, 3600)
    assert await probe(store, subscription) == []
    make_probe_due(world)
    assert len(await probe(store, subscription)) == 1
    births = await births_of(world, store, 2)
    await store.settle([noted(births[0], RETRY, probe=True)])
    assert world.value("select probe_at - changed_at = interval '1 hour' from outbox.health")
    assert disabled(world)[0][0]
    await store.settle([noted(births[1], OK, probe=True)])
    assert disabled(world) == [(False, None)]
    assert told(world) == ["relay.subscription.disabled", "relay.subscription.recovered"]
    assert world.count("health") == 0


async def test_a_success_does_not_enable_what_a_person_has_locked(world: World, store: Store) -> None:
    await worn(world, store, 3600)
    births = await births_of(world, store, 2)
    with world.open() as other:
        other.execute("select from outbox.subscriptions for no key update")
        await asyncio.wait_for(store.settle([noted(births[0], OK, probe=True)]), 5)
        other.rollback()
    assert disabled(world)[0][0]
    assert world.value("select probe_at < now() + interval '1 minute' from outbox.health"), "soon asked again"
    await store.settle([noted(births[1], OK, probe=True)])
    assert not disabled(world)[0][0]


async def test_a_late_success_does_not_enable_what_a_person_disabled(world: World, store: Store) -> None:
    await broken(world, store)
    (birth,) = await births_of(world, store, 1)
    world.rows("update outbox.subscriptions set disabled_at = now(), disabled_reason = 'mine'")
    await store.settle([noted(birth, OK, probe=True)])
    assert disabled(world) == [(True, "mine")]


async def test_a_late_success_does_not_disable_what_a_person_has_enabled(world: World, store: Store) -> None:
    """While it is paused beside, its health stays as it was."""
    await worn(world, store, 3600)
    births = await births_of(world, store, 1)
    world.rows("update outbox.subscriptions set paused_at = now()")
    world.rows("update outbox.subscriptions set disabled_at = null, disabled_reason = null")
    assert health(world)["disabled_at"] is not None
    settled = await store.settle([noted(births[0], OK, probe=True)])
    assert settled.worn == set()
    assert disabled(world) == [(False, None)]


# What housekeeping does


async def test_who_is_well_for_a_while_needs_no_row(world: World, store: Store) -> None:
    world.subscribe()
    await fail(world, store, 1)
    world.rows("update outbox.health set changed_at = now() - interval '1 hour'")
    forget = FORGET_WELL.replace("%(batch)s", "100")
    assert world.value(forget) == 0, "it has not succeeded since"
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK)])
    assert world.value(forget) == 0, "too soon"
    world.rows("update outbox.health set changed_at = now() - interval '11 minutes'")
    assert world.value(forget) == 1


async def test_an_open_breaker_is_never_forgotten_and_that_of_nobody_is(world: World, store: Store) -> None:
    await broken(world, store)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK)])
    world.rows("update outbox.health set changed_at = now() - interval '1 hour'")
    assert world.value(FORGET_WELL.replace("%(batch)s", "100")) == 0
    world.rows("insert into outbox.health (subscription_id, failing_since) values (gen_random_uuid(), now())")
    assert world.value(FORGET_WELL.replace("%(batch)s", "100")) == 1


async def test_a_late_backlog_is_told_once_until_it_is_caught_up(world: World, store: Store) -> None:
    world.subscribe("a.*")
    world.record()
    await fan_out(store)
    mark = MARK_LATE.replace("%(batch)s", "100")
    assert world.value(mark) == 0
    world.rows("update outbox.deliveries set due_at = now() - interval '301 s'")
    assert [world.value(mark), world.value(mark)] == [1, 0]
    assert told(world) == ["relay.backlog.late"]
    world.rows("update outbox.deliveries set due_at = now() - interval '200 s'")
    world.value(mark)
    assert health(world)["late_at"] is not None, "still late by half"
    world.rows("update outbox.deliveries set due_at = now() - interval '100 s'")
    world.value(mark)
    assert health(world)["late_at"] is None
    (read,) = await store.read_subscriptions([world.value("select id from outbox.subscriptions").bytes])
    assert read.health == "", "late is not ill"


async def test_what_is_not_sent_on_purpose_is_not_late(world: World, store: Store) -> None:
    world.subscribe("a.*")
    world.record()
    await fan_out(store)
    world.rows("update outbox.deliveries set due_at = now() - interval '1 hour'")
    world.rows("update outbox.subscriptions set paused_at = now()")
    assert world.value(MARK_LATE.replace("%(batch)s", "100")) == 0


# Who is told


async def test_failures_of_the_relays_own_events_are_told_to_nobody(world: World, store: Store) -> None:
    world.subscribe("a.*")
    await fail(world, store, 12, event_type=b"relay.breaker.opened")
    assert health(world)["opened_at"] is not None, "it is not asked any more"
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK, probe=True)])
    assert told(world) == []


async def test_a_failure_of_an_applications_event_among_them_is(world: World, store: Store) -> None:
    world.subscribe("a.*")
    await fail(world, store, 5, event_type=b"relay.breaker.opened")
    await fail(world, store, 5)
    assert told(world) == ["relay.breaker.opened"]


async def test_an_event_about_a_subscription_goes_to_others_and_never_to_itself(world: World, store: Store) -> None:
    about = world.subscribe("a.*", "relay.*")
    other, _application, elsewhere = (
        world.subscribe("relay.breaker.*"),
        world.subscribe("*"),
        world.subscribe("relay.*", tenant="elsewhere"),
    )
    await store.settle(
        [noted(birth, RETRY) for birth in await births_of(world, store, 10) if birth.subscription_id == about]
    )
    assert told(world) == ["relay.breaker.opened"]
    async with store.fan_out(-1, 10, 10**6) as batch:
        (taken,) = batch.taken
        assert [match.subscription_id for match in batch.matches_of(taken)] == [other]
        await batch.resolve([])
    assert world.rows("select matches from outbox.resolutions order by at desc limit 1") == [([1],)]
    assert elsewhere


async def test_dead_deliveries_are_told_one_by_one_up_to_ten_a_minute(world: World, store: Store) -> None:
    mine = world.subscribe("a.*")
    await store.settle([noted(birth, DEAD) for birth in await births_of(world, store, 1)])
    assert told(world) == [], "nobody has asked for it"
    world.subscribe("relay.delivery.dead")
    await store.settle([noted(birth, DEAD) for birth in await births_of(world, store, 3)])
    await store.settle([noted(birth, DEAD) for birth in await births_of(world, store, 30)])
    dead = [payload for kind, payload in world.rows(TELLING) if kind == "relay.delivery.dead"]
    assert [payload["more_may_follow"] for payload in dead] == [False] * 8 + [True]
    world.rows("update outbox.dead_letters set died_at = now() - interval '2 minutes'")
    births = await births_of(world, store, 1)
    await store.settle([noted(birth, DEAD) for birth in births if birth.subscription_id == mine])
    assert told(world).count("relay.delivery.dead") == 10


async def test_a_dead_delivery_of_the_relays_own_events_is_not_told(world: World, store: Store) -> None:
    first, second = world.subscribe("a.*", "relay.*"), world.subscribe("a.*", "relay.*")
    births = await births_of(world, store, 1)
    await store.settle([noted(birth, DEAD) for birth in births if birth.subscription_id == first])
    assert told(world) == ["relay.delivery.dead"]
    async with store.fan_out(-1, 10, 10**6) as batch:
        (taken,) = batch.taken
        assert [match.subscription_id for match in batch.matches_of(taken)] == [second]
        await batch.resolve([Birth(bytes(16), taken.seq, second, None, 5, 60.0)])
    await store.settle([noted(Birth(bytes(16), taken.seq, second, None, 5, 60.0), DEAD)])
    assert world.count("dead_letters", "starts_with(type, 'relay.')") == 1
    assert told(world) == ["relay.delivery.dead"]


async def test_a_bound_of_the_payload_keeps_no_result_from_being_stored(world: World, store: Store) -> None:
    world.subscribe("a.*")
    births = await births_of(world, store, 10)
    world.allow_payloads_of(10)
    await store.settle([noted(birth, RETRY) for birth in births])
    assert health(world)["opened_at"] is not None
    assert told(world) == []


async def test_every_relay_hears_that_it_opened_and_that_it_closed(world: World, store: Store) -> None:
    await broken(world, store)
    ((first,), newest) = await store.read_noted(0.0)
    assert (first.open, first.failing, first.ailing) == (True, True, True)
    (birth,) = await births_of(world, store, 1)
    await store.settle([noted(birth, OK, probe=True)])
    ((again,), _) = await store.read_noted(newest - 5)
    assert (again.open, again.failing, again.ailing) == (False, False, False)
    assert (await store.read_noted(newest + 60))[0] == []


async def test_a_relay_is_drained_unless_a_probe_is_due(world: World, store: Store) -> None:
    await broken(world, store)
    make_due(world)
    world.rows("delete from outbox.pending")  # the event about it
    assert await store.is_drained()
    make_probe_due(world)
    assert not await store.is_drained()
    world.rows("update outbox.subscriptions set disabled_at = now(), disabled_reason = 'mine'")
    world.rows("delete from outbox.pending")
    assert await store.is_drained()
