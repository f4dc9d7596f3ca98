"""Probes of endpoints that have limits: an open breaker closes again, whatever its probe has to wait for."""

from __future__ import annotations

from typing import Any

import pytest

from relay.store.store import Store
from tests.integration.engine.world import FarEnd, Relay, World, fan_out, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F24")]

OTHERS_SHARE = (
    "insert into outbox.in_flight select id, outbox.uuid7(), 1, now() + interval '1 hour' from outbox.subscriptions"
)
LIMITS = {
    "a rate": "update outbox.subscriptions set rate_limit = '20/s'",
    "requests at once": "update outbox.subscriptions set max_in_flight = 2",
    "a tenant's rate": "insert into outbox.tenant_limits (tenant, rate_limit) values ('acme', '20/s')",
    "what the receiver takes": "insert into outbox.limits (id, slowed_to) select id, 20 from outbox.subscriptions",
}


def break_open(world: World, subscription: bytes, **fields: str) -> None:
    """Open the breaker of a subscription; its probe is due."""
    values = {"opened_at": "now()", "failing_since": "now()", "probe_at": "now() - interval '1 s'", **fields}
    world.rows(
        f"insert into outbox.health (subscription_id, failures, pause_seconds, {', '.join(values)})"
        f" values (%s, 20, 60, {', '.join(values.values())})",
        uuid_of(subscription),
    )


def make_probe_due(world: World) -> None:
    world.rows("update outbox.health set probe_at = now() - interval '1 s'")


async def looked(relay: Relay, condition: Any) -> bool:
    """Look, also at the breakers, and tell whether it is so."""
    relay.feeder.breakers.restart()
    await relay.look()
    return bool(condition())


@pytest.mark.parametrize("limit", LIMITS)
async def test_the_breaker_of_an_endpoint_with_a_limit_closes_and_what_waited_goes_out(
    world: World, store: Store, far_end: FarEnd, limit: str
) -> None:
    subscription = world.subscribe(tenant="acme")
    world.rows(LIMITS[limit])
    world.record(count=5, tenant="acme")
    await fan_out(store)
    break_open(world, subscription)
    async with running(world.url, far_end):
        await await_until(lambda: len(far_end.requests) == 5)
        await await_until(lambda: not world.count("deliveries"))
    assert not world.count("health", "opened_at is not null")


async def test_a_probe_whose_slot_is_far_away_is_not_leased_in_vain_and_goes_at_its_time(
    world: World, store: Store, far_end: FarEnd
) -> None:
    subscription = world.subscribe()
    world.rows("update outbox.subscriptions set rate_limit = '1/h'")
    world.record(count=3)
    async with stepping(world.url, far_end) as relay:
        await await_until(lambda: looked(relay, lambda: len(far_end.requests) == 1))
        await relay.settled()
        break_open(world, subscription)
        for _ in range(5):
            assert await looked(relay, lambda: not relay.sending.leased)
        assert world.count("health", "probe_at < now()") == 1, "its turn is not used up"
        world.rows("update outbox.limits set allowed_at = now() - interval '1 hour'")
        endpoint = relay.endpoints.get(subscription)
        assert endpoint is not None
        assert endpoint.gate is not None
        for slots in endpoint.gate.cells:
            slots.next_ask = 0.0  # the hour is over
        await await_until(lambda: looked(relay, lambda: len(far_end.requests) == 2))
        await relay.settled()
    assert not world.count("health", "opened_at is not null")


async def start_trial(world: World, store: Store) -> bytes:
    """A subscription that was disabled since it only failed, and is tried; another relay has all of its cap."""
    subscription = world.subscribe()
    world.record()
    await fan_out(store)
    await store.make_cells([subscription])
    world.rows(
        "update outbox.subscriptions set max_in_flight = 1, recovery_seconds = 3600, disabled_at = now(),"
        " disabled_reason = 'every attempt failed'"
    )
    world.rows(OTHERS_SHARE)
    break_open(world, subscription, disabled_at="now()")
    return subscription


async def test_the_probe_of_a_disabled_one_waits_for_its_limit_over_sweeps(
    world: World, store: Store, far_end: FarEnd
) -> None:
    subscription = await start_trial(world, store)
    async with stepping(world.url, far_end) as relay:
        for _ in range(3):
            assert await looked(relay, lambda: relay.sending.leased)
            endpoint = relay.endpoints.get(subscription)
            assert endpoint is not None
            assert [delivery.probe for delivery in endpoint.unbegun] == [True]
        world.rows("delete from outbox.in_flight")
        await await_until(lambda: looked(relay, lambda: far_end.requests))
        await relay.settled()
    assert not world.count("deliveries")
    assert not world.count("subscriptions", "disabled_at is not null")


async def test_a_probe_that_waits_is_given_back_when_a_person_pauses(
    world: World, store: Store, far_end: FarEnd
) -> None:
    await start_trial(world, store)
    async with stepping(world.url, far_end) as relay:
        assert await looked(relay, lambda: relay.sending.leased)
        world.rows("update outbox.subscriptions set paused_at = now()")
        assert await looked(relay, lambda: not relay.sending.leased)
        await relay.settled()
    assert world.deliveries("attempts, lease") == [(0, None)]


async def test_what_waits_here_goes_out_when_the_limit_is_lifted(world: World, store: Store, far_end: FarEnd) -> None:
    subscription = await start_trial(world, store)
    async with stepping(world.url, far_end) as relay:
        await await_until(lambda: looked(relay, lambda: relay.endpoints.thirsty))
        world.rows("update outbox.subscriptions set max_in_flight = null")
        assert await looked(relay, lambda: relay.endpoints.get(subscription).gate is None)  # type: ignore[union-attr]
        await relay.settled()
    assert not world.count("deliveries")


@pytest.mark.slow
async def test_a_probe_gets_a_slot_though_another_endpoint_of_its_tenant_wants_them_all(
    world: World, far_end: FarEnd
) -> None:
    ill = world.subscribe("ill.x", path="/ill", tenant="acme")
    world.subscribe("busy.x", path="/busy", tenant="acme")
    world.rows("insert into outbox.tenant_limits (tenant, rate_limit) values ('acme', '40/min')")
    world.record("ill.x", tenant="acme")
    async with running(world.url, far_end):
        await await_until(lambda: far_end.paths() == ["/ill"] and not world.count("deliveries"))
        break_open(world, ill, probe_at="now() + interval '1 hour'")
        world.record("ill.x", tenant="acme")
        world.record("busy.x", count=20, tenant="acme")
        await await_until(lambda: far_end.paths().count("/busy") >= 2)
        make_probe_due(world)
        await await_until(lambda: far_end.paths().count("/ill") == 2)
    assert far_end.paths().count("/busy") < 10
