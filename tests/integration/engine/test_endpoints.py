"""The registry of endpoints follows the subscriptions there are."""

from __future__ import annotations

import pytest

from outbox.signing.verify import new_secret
from relay.engine import endpoint
from relay.engine.feeder import Part
from relay.model.subscription import SubscriptionVersion
from relay.secrets.keyring import Keyring
from tests.integration.engine.world import FarEnd, Relay, World, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

MANY, KNOWN_MAX = 5_000, 1_000


async def know_all(relay: Relay, world: World) -> None:
    """Let the process know every subscription, as fan_out and claim do for those that they meet."""
    ids = [row[0].bytes for row in world.rows("select id from outbox.subscriptions")]
    for at in range(0, len(ids), 500):
        relay.sending.update(await relay.engine.feed_store.read_subscriptions(ids[at : at + 500]))


async def turn(relay: Relay) -> None:
    """Let the sweep go round once."""
    while True:
        await relay.feeder.step(Part.SWEEP)
        if not any(relay.feeder.sweep.position):
            return


async def test_endpoints_of_removed_subscriptions_leave_memory(
    own_world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.engine.endpoint_registry.KNOWN_MAX", KNOWN_MAX)
    own_world.rows("set session_replication_role = replica")  # what triggers do for so many takes a minute
    own_world.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/' || n, '{none}' from generate_series(1, %s) n",
        MANY,
    )
    own_world.rows(
        "insert into outbox.secrets (subscription_id, secret) select id, %s from outbox.subscriptions", new_secret()
    )
    own_world.rows("set session_replication_role = origin")
    kept = own_world.subscribe("a.b")
    async with stepping(own_world.url, far_end) as relay:
        await know_all(relay, own_world)
        assert len(relay.endpoints) == KNOWN_MAX, "those that nobody asked for the longest are forgotten"
        own_world.rows("set session_replication_role = replica")
        removed = "update outbox.subscriptions set removed_at = now(), version = version + 1 where id <> %s"
        own_world.rows(removed, uuid_of(kept))
        own_world.rows("set session_replication_role = origin")
        for _ in range(2 * MANY // 500):
            await relay.feeder.step(Part.SWEEP)
        assert [endpoint.subscription.id for endpoint in relay.endpoints] == [kept]
        assert (relay.endpoints.take_sendable_again(), list(relay.feeder.due)) == ([], [])
        own_world.record("a.b")
        await relay.look()
        await relay.settled()
    assert far_end.paths() == ["/"]


async def test_a_subscription_that_is_gone_with_its_row_leaves_memory_too(world: World, far_end: FarEnd) -> None:
    gone = world.subscribe()
    async with stepping(world.url, far_end) as relay:
        await know_all(relay, world)
        world.rows("delete from outbox.subscriptions where id = %s", uuid_of(gone))
        await turn(relay)
        assert len(relay.endpoints) == 0


async def test_an_endpoint_stays_while_it_holds_something_or_is_held_back(world: World, far_end: FarEnd) -> None:
    busy, held = world.subscribe("busy", path="/busy"), world.subscribe("held", path="/held")
    freed = far_end.hold("/busy")
    async with stepping(world.url, far_end) as relay:
        world.record("busy")
        await relay.look()
        await know_all(relay, world)
        world.rows("update outbox.subscriptions set held_until = now() + interval '1 h' where id = %s", uuid_of(held))
        world.rows("update outbox.subscriptions set removed_at = now() where id = %s", uuid_of(busy))
        for _ in range(3):
            await turn(relay)
        assert {endpoint.subscription.id for endpoint in relay.endpoints} == {busy, held}
        freed.set()
        await relay.settled()
        await turn(relay)
        assert {endpoint.subscription.id for endpoint in relay.endpoints} == {held}


async def test_a_paused_endpoint_that_left_memory_comes_back_when_resumed(world: World, far_end: FarEnd) -> None:
    paused = world.subscribe()
    async with stepping(world.url, far_end) as relay:
        await know_all(relay, world)
        world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(paused))
        await turn(relay)
        assert len(relay.endpoints) == 0
        world.record()
        await relay.look()
        assert far_end.requests == []
        world.rows("update outbox.subscriptions set paused_at = null where id = %s", uuid_of(paused))
        await relay.look()
        await relay.settled()
    assert far_end.paths() == ["/"]


async def test_an_error_of_our_own_in_one_subscription_ends_nothing_and_shows_no_secret(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Envelope(endpoint.Envelope):
        def __init__(self, subscription: SubscriptionVersion, keyring: Keyring) -> None:
            if "bad" in subscription.url:
                raise TypeError(f"cannot use {subscription.url} with whsec_secret")
            super().__init__(subscription, keyring)

    monkeypatch.setattr(endpoint, "Envelope", Envelope)
    world.subscribe(path="/bad")
    world.subscribe(path="/good")
    world.record(count=3)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: world.count("attempts") == 6)
        assert relay.feeding is not None
        assert not relay.feeding.done()
    assert sorted(world.rows("select outcome, error, count(*) from outbox.attempts group by 1, 2")) == [
        ("delivered", None, 3),
        ("unsendable", "TypeError inside the relay; see its log", 3),
    ]
    assert "nothing can be sent to it: TypeError" in caplog.text
    assert "whsec" not in caplog.text
