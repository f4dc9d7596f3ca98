"""Somebody holds the row of a leased delivery, or what follows from its result: nobody else waits for that."""

from __future__ import annotations

import pytest

from outbox.control.store import by_hand
from relay.model.outcome import Outcome
from relay.model.verdict import VerdictKind
from relay.store.store import Store
from tests.integration.engine.test_by_hand import engine_of
from tests.integration.engine.world import ERROR_500, FarEnd, World, fan_out, held, result, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


async def test_a_result_waits_alone_for_the_row_that_somebody_holds(
    world: World, far_end: FarEnd, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    world.subscribe()
    world.record(count=100)
    births = await fan_out(store, leased=True)
    locked = uuid_of(births[49].id)
    async with stepping(world.url, far_end) as relay:
        with world.open() as application:
            application.execute("select from outbox.deliveries where id = %s for update", [locked])
            for birth in births:
                relay.settler.settle(result(held(birth), VerdictKind.DELIVERED))
            await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 99)
            assert world.deliveries("id") == [(locked,)]
            world.record()
            await relay.look()
            await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 100)
            await await_until(lambda: relay.settler.unsettled == 1)
            await await_until(lambda: "another transaction holds" in caplog.text)
        await relay.settled()
    assert world.count("deliveries") == 0
    assert world.count("attempts", "delivery_id = %s", locked) == 1


async def test_a_delivery_that_is_cancelled_by_an_open_transaction_stops_no_other(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe()
    world.record(count=10)
    freed, engine = far_end.hold("/", ERROR_500), engine_of(world)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        ((locked,),) = world.deliveries("id")[7:8]
        with engine.begin() as application:
            assert by_hand.cancel(application, [locked])
            freed.set()
            await await_until(lambda: world.count("attempts", "verdict = 'retry'") == 9)
        await relay.settled()
    engine.dispose()
    assert world.count("deliveries") == 9
    assert sorted(world.rows("select verdict, outcome from outbox.attempts where delivery_id = %s", locked)) == [
        ("cancelled", "cancelled"),
        ("retry", "http_5xx"),
    ]


async def test_what_is_given_back_waits_alone_too(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=10)
    freed = far_end.hold("/", Outcome(kind="local", status=None, milliseconds=1, error="no free file descriptor"))
    async with stepping(world.url, far_end, max_in_flight=1) as relay:
        with world.open() as application:
            await relay.look()
            ((locked,),) = world.deliveries("id", "lease is not null")[4:5]
            application.execute("select from outbox.deliveries where id = %s for update", [locked])
            freed.set()
            await await_until(lambda: world.count("deliveries", "lease is null") == 9)
        await relay.settled()
    assert world.deliveries("attempts, lease") == [(0, None)] * 10


async def test_a_lock_on_the_health_of_one_endpoint_stops_no_other(world: World, far_end: FarEnd) -> None:
    """No delivery is locked: halving finds the results that wait."""
    ailing = world.subscribe("ailing", path="/ailing")
    world.subscribe("well", path="/well")
    world.rows("insert into outbox.health (subscription_id) values (%s)", uuid_of(ailing))
    world.record("well", 7)
    world.record("ailing")
    world.record("well", 7)
    freed, freed_too = far_end.hold("/ailing", ERROR_500), far_end.hold("/well")
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        with world.open() as operator:
            operator.execute("select from outbox.health for update")
            freed.set()
            freed_too.set()
            await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 14)
            assert world.count("deliveries", "lease is not null") == 1
        await relay.settled()
    assert world.count("attempts", "verdict = 'retry'") == 1
