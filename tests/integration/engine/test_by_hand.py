"""What a person does while relays work: retry now, cancel, the switch of all sending, a pause that drops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine

from outbox.control.by_hand import cancel
from outbox.control.deliveries import show_delivery
from outbox.control.replay.replay import candidates_by_id, replay
from outbox.control.store import by_hand
from outbox.ids import DeliveryId
from relay.engine.poll_turn import PollTurn
from relay.http import AddressPolicy, DirectDialler, HttpSender
from relay.model.verdict import VerdictKind
from relay.operations.sending_switch import pause_all, resume_all
from relay.store.store import Store
from tests.integration.engine.world import (
    ERROR_500,
    FarEnd,
    Relay,
    World,
    fan_out,
    held,
    result,
    running,
    stepping,
    uuid_of,
)
from tests.support.databases import plain
from tests.support.scripted_receiver import Exchange, receiving, response
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

Act = Callable[..., Any]


def engine_of(world: World, **connect: Any) -> Engine:
    return create_engine(plain(world.url).replace("postgresql://", "postgresql+psycopg://"), connect_args=connect)


@pytest.fixture
def act(world: World) -> Iterator[Act]:
    """Runs a function of a person's in a transaction of its own; the switch is on again afterwards."""
    engine = engine_of(world)

    def act(function: Callable[..., Any], *arguments: Any) -> Any:
        with engine.begin() as connection:
            return function(connection, *arguments)

    yield act
    world.rows("update outbox.sending set paused_at = null where paused_at is not null")
    engine.dispose()


def ids(world: World, where: str = "true") -> list[UUID]:
    return [row[0] for row in world.deliveries("id", where)]


STATES = {
    "due": "due_at = now() - interval '1 s', attempts = 1",
    "waiting": "due_at = now() + interval '1 h', attempts = 1",
    "parked": "due_at = 'infinity', attempts = 0",
    "leased": "due_at = now() + interval '1 h', attempts = 1, lease = 7",
    "suspect": "due_at = now() - interval '1 s', attempts = 1, lease = 7",
}


async def one_of_each(world: World, store: Store) -> dict[str, UUID]:
    world.subscribe()
    world.record(count=len(STATES))
    await fan_out(store)
    found = dict(zip(STATES, ids(world), strict=True))
    for state, identity in found.items():
        world.rows(f"update outbox.deliveries set {STATES[state]} where id = %s", identity)
    return found


# -- retry now


@pytest.mark.field("F07")
async def test_only_what_waits_without_a_lease_is_made_due(world: World, store: Store, act: Act) -> None:
    """The end of a lease is not moved, what is parked stays, and nothing is charged."""
    found = await one_of_each(world, store)
    before = dict(world.rows("select id, due_at::text from outbox.deliveries"))
    made = act(by_hand.make_due, list(found.values()))
    assert [row.id for row in made] == [found["waiting"]]
    after = dict(world.rows("select id, due_at::text from outbox.deliveries"))
    assert {state for state, identity in found.items() if before[identity] != after[identity]} == {"waiting"}
    assert world.count("deliveries", "id = %s and due_at <= now() and attempts = 1", found["waiting"]) == 1


@pytest.mark.field("F07")
async def test_what_waits_for_ten_hours_is_sent_now_and_its_schedule_goes_on(
    world: World, far_end: FarEnd, act: Act
) -> None:
    world.subscribe(schedule=(36_000, 36_000))
    world.record(count=3)
    far_end.script["/"] = ERROR_500
    async with running(world.url, far_end):
        await await_until(lambda: world.count("deliveries", "lease is null and attempts = 1") == 3)
        act(by_hand.make_due, ids(world)[:1])
        await await_until(lambda: world.count("deliveries", "lease is null and attempts = 2") == 1)
        far_end.script.clear()
        act(by_hand.make_due, ids(world))
        await await_until(lambda: world.count("deliveries") == 0)
    assert world.rows("select number from outbox.attempts where verdict = 'delivered' order by 1") == [(2,), (2,), (3,)]


# -- cancel


async def test_whatever_is_outstanding_is_cancelled_and_leaves_a_record(world: World, store: Store, act: Act) -> None:
    found = await one_of_each(world, store)
    gone = act(by_hand.cancel, list(found.values()))
    assert {row.id for row in gone if row.leased} == {found["leased"]}
    assert world.count("deliveries") == 0
    recorded = world.rows("select delivery_id, verdict, outcome, number from outbox.attempts")
    assert set(recorded) == {
        (identity, "cancelled", "cancelled", 0 if state == "parked" else 1) for state, identity in found.items()
    }
    assert act(by_hand.cancel, list(found.values())) == []
    assert world.count("attempts") == len(found)


LATE = {
    "delivered": (VerdictKind.DELIVERED, "delivered"),
    "retry": (VerdictKind.RETRY, "cancelled"),
    "dead": (VerdictKind.DEAD, "cancelled"),
}


@pytest.mark.parametrize(("kind", "state"), LATE.values(), ids=LATE)
async def test_a_late_result_of_a_cancelled_delivery_brings_nothing_back(
    world: World, store: Store, act: Act, kind: VerdictKind, state: str
) -> None:
    world.subscribe()
    world.record()
    (birth,) = await fan_out(store, leased=True)
    act(by_hand.cancel, [UUID(bytes=birth.id)])
    settled = await store.settle([result(held(birth), kind)])
    assert (settled.won, settled.buried, settled.risen) == (frozenset(), frozenset(), frozenset())
    assert (world.count("deliveries"), world.count("dead_letters"), world.count("attempts")) == (0, 0, 2)
    name = DeliveryId.of(UUID(bytes=birth.id))
    assert act(show_delivery, None, name).state == state


async def test_a_cancelled_delivery_that_is_given_back_stays_cancelled(world: World, store: Store, act: Act) -> None:
    world.subscribe()
    world.record()
    (birth,) = await fan_out(store, leased=True)
    act(by_hand.cancel, [UUID(bytes=birth.id)])
    await store.release([(held(birth), 0.0)])
    assert (world.count("deliveries"), world.count("attempts")) == (0, 1)


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (500, "cancelled")])
async def test_a_request_on_the_wire_ends_as_it_ends_and_the_relay_goes_on(
    world: World, act: Act, status: int, state: str
) -> None:
    """A real relay, a receiver that hangs, a delivery that is cancelled meanwhile."""
    answer = asyncio.Event()

    async def behaviour(exchange: Exchange) -> None:
        await answer.wait()
        await exchange.play(response(status if len(receiver.requests) == 1 else 200))

    sender = HttpSender(DirectDialler(AddressPolicy(["127.0.0.0/8"], allow_http=True)), user_agent="test")
    async with receiving(behaviour) as receiver:
        world.subscribe(path=f":{receiver.port}/", schedule=(0, 0))
        world.record()
        async with running(world.url, cast(FarEnd, sender)) as relay:
            await await_until(lambda: len(receiver.requests) == 1)
            (identity,) = ids(world)
            done = act(cancel, None, [identity])
            assert done.leased == done.deliveries == (DeliveryId.of(identity),)
            answer.set()
            await relay.settled()
            world.record()
            await await_until(lambda: world.count("attempts", "verdict = 'delivered' and event_seq = 2") == 1)
        await sender.close()
    assert len(receiver.requests) == 2
    assert (world.count("deliveries"), world.count("dead_letters")) == (0, 0)
    assert act(show_delivery, None, identity).state == state


async def test_a_cancelled_delivery_is_replayed_as_one_that_was_delivered(
    world: World, far_end: FarEnd, act: Act
) -> None:
    world.subscribe()
    world.record()
    store = Store(world.url)
    await fan_out(store)
    await store.close()
    (identity,) = ids(world)
    act(cancel, None, [identity])
    found = act(candidates_by_id, None, DeliveryId.of(identity))
    (made,) = act(replay, None, found)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert act(show_delivery, None, made).state == "delivered"
    assert act(show_delivery, None, identity).state == "cancelled"


async def test_retry_and_cancel_need_the_rights_of_an_operator_alone(world: World, store: Store) -> None:
    found = await one_of_each(world, store)
    engine = engine_of(world, options="-c role=outbox_operator")
    with engine.begin() as connection:
        assert len(by_hand.make_due(connection, list(found.values()))) == 1
        assert len(by_hand.cancel(connection, list(found.values()))) == len(found)
    engine.dispose()


# -- the switch of all sending


async def look(relay: Relay, times: int = 3) -> None:
    for _ in range(times):
        await relay.look()


@pytest.mark.field("F103")
async def test_what_was_leased_and_not_sent_is_given_back_and_nothing_is_leased(
    world: World, far_end: FarEnd, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    """One is on the wire when the switch is turned; it ends as it ends. New events are resolved and wait."""
    world.subscribe()
    world.record(count=10)
    freed = far_end.hold("/")
    with caplog.at_level(logging.WARNING, "relay"):
        async with stepping(world.url, far_end, per_endpoint=4, max_in_flight=1) as relay:
            await relay.look()
            await await_until(lambda: far_end.in_flight == 1)
            assert world.count("deliveries", "lease is not null") > 1
            act(pause_all, None, "wrong prices")
            await relay.look()
            await await_until(lambda: not relay.settler.unsettled)
            assert world.count("deliveries", "lease is not null") == 1
            freed.set()
            await relay.settled()
            world.record(count=5)
            world.rows("update outbox.deliveries set lease = 7, attempts = 1 where id = %s", ids(world)[0])
            world.expire()
            await look(relay)
            assert world.count("pending") == 0
            assert world.count("deliveries", "lease is null and attempts = 0 and due_at <= now()") == 13
            assert world.count("deliveries", "lease = 7 and crashes = 0") == 1, "a suspect is not claimed either"
            assert len(far_end.requests) == world.count("attempts") == 1
            act(resume_all, None)
            for _ in range(20):
                await relay.look()
                await relay.settled()
    assert world.count("deliveries") == 0
    assert len(far_end.requests) == 15
    assert world.count("attempts", "number > 1") == 0, "nothing was charged"
    said = [record.message for record in caplog.records]
    assert said == ["sending is paused until `relay resume-all`", "sending goes on"]


@pytest.mark.field("F103")
async def test_a_relay_that_rests_for_long_heeds_the_switch_all_the_same(
    world: World, far_end: FarEnd, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of many idle relays may rest for a minute; not while it has something to begin, nor while all is paused."""
    monkeypatch.setattr(PollTurn, "pause_seconds", lambda *_: 3600.0)
    world.subscribe(timeout=60)
    world.record(count=5)
    freed = far_end.hold("/")
    async with running(world.url, far_end, max_in_flight=1):
        await await_until(lambda: world.count("deliveries", "lease is not null") > 1)
        act(pause_all, None)
        await await_until(lambda: world.count("deliveries", "lease is not null") == 1)
        freed.set()
        await await_until(lambda: world.count("attempts") == 1)
        act(resume_all, None)
        await await_until(lambda: world.count("deliveries") == 0)
    assert world.count("attempts", "number = 1") == 5


@pytest.mark.field("F103")
async def test_a_relay_that_starts_while_all_is_paused_sends_nothing_and_loses_nothing(
    world: World, far_end: FarEnd, act: Act
) -> None:
    act(pause_all, None)
    for _ in range(3):
        world.subscribe()
    world.record(count=600)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: world.count("deliveries") == 1800)
        seen = relay.feeder.steps
        await await_until(lambda: relay.feeder.steps > seen + 3)
        assert far_end.requests == []
        assert world.count("deliveries", "lease is null and attempts = 0") == 1800
        act(resume_all, None)
        await await_until(lambda: world.count("deliveries") == 0)
    assert world.count("attempts") == len(far_end.requests) == 1800


@pytest.mark.field("F103")
async def test_until_drained_ends_while_all_is_paused(world: World, far_end: FarEnd, act: Act) -> None:
    """As for a paused subscription: what may not be sent is not waited for."""
    act(pause_all, None)
    world.subscribe()
    world.record(count=3)
    async with running(world.url, far_end, until_drained=True) as relay:
        assert relay.feeding is not None
        await asyncio.wait_for(asyncio.shield(relay.feeding), 20)
    assert (world.count("deliveries"), far_end.requests) == (3, [])


# -- a pause that drops


def receivers(world: World, seq: int) -> set[bytes]:
    rows = world.rows("select subscription_id from outbox.deliveries where event_seq = %s", seq)
    return {row[0].bytes for row in rows}


@pytest.mark.field("F53")
async def test_what_comes_to_a_pause_that_drops_matches_nobody_and_is_counted_so(world: World, store: Store) -> None:
    dropping, gathering, open_, resumed = (world.subscribe() for _ in range(4))
    (before,) = world.record()
    await fan_out(store)
    drops = "update outbox.subscriptions set drops_while_paused = true"
    world.rows(f"{drops}, paused_at = now() where id = %s", uuid_of(dropping))
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(gathering))
    world.rows(f"{drops} where id = %s", uuid_of(resumed))
    (meanwhile,) = world.record()
    await fan_out(store)
    assert receivers(world, meanwhile) == {gathering, open_, resumed}
    assert receivers(world, before) == {dropping, gathering, open_, resumed}, "what it had before waits"
    assert world.matches() == {before: 4, meanwhile: 3}
    world.rows("update outbox.subscriptions set paused_at = null where id = %s", uuid_of(dropping))
    (after,) = world.record()
    await fan_out(store)
    assert len(receivers(world, after)) == 4


@pytest.mark.field("F53")
async def test_an_event_that_only_a_dropping_one_wants_has_no_subscriber(world: World, store: Store) -> None:
    world.subscribe()
    world.rows("update outbox.subscriptions set paused_at = now(), drops_while_paused = true")
    (seq,) = world.record()
    await fan_out(store)
    assert world.matches() == {seq: 0}
    assert world.count("deliveries") == 0
