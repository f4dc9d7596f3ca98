"""What a relay does with secrets that it cannot open: it waits, unsent and uncharged, and goes on after the repair."""

from __future__ import annotations

import logging
from uuid import UUID

import pytest

import outbox
from outbox.ids import text_id
from outbox.sealing import SealingKey, seal
from outbox.signing.verify import new_secret
from relay.http.sender import Endpoint
from relay.model.outcome import Outcome
from relay.secrets.keyring import Keyring, new_private_key
from tests.integration.engine.world import FarEnd, World, running, stepping
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

PRIVATE, PUBLIC = new_private_key()
RING = Keyring([PRIVATE])
HEADERS = '{"x-token": "t0ken"}'
WAITING = "lease is null and attempts = 0 and due_at > now()"


def subscribe(world: World, path: str, key: SealingKey = PUBLIC) -> bytes:
    """Subscribe with a signing secret and a header of its own, sealed to `key`."""
    identity = world.subscribe(path=path)
    world.rows(
        "insert into outbox.secrets (subscription_id, kind, secret) values (%s, 'headers', '')", UUID(bytes=identity)
    )
    for kind, text in (("signing", new_secret()), ("headers", HEADERS)):
        store(world, identity, kind, seal(text, key, identity, kind))
    return identity


def store(world: World, identity: bytes, kind: str, text: str) -> None:
    world.rows(
        "update outbox.secrets set secret = %s where subscription_id = %s and kind = %s",
        text,
        UUID(bytes=identity),
        kind,
    )


def swap_subscriptions(world: World) -> None:
    """Exchange the signing secrets of the two subscriptions."""
    world.rows(
        "update outbox.secrets a set secret = b.secret from outbox.secrets b"
        " where a.kind = 'signing' and b.kind = 'signing' and a.subscription_id <> b.subscription_id"
    )


def swap_kinds(world: World) -> None:
    """Exchange the signing secret and the headers of each subscription."""
    world.rows(
        "update outbox.secrets a set secret = b.secret from outbox.secrets b"
        " where a.subscription_id = b.subscription_id and a.kind <> b.kind"
    )


def make_due(world: World) -> None:
    """Let the minute pass."""
    world.rows("update outbox.deliveries set due_at = now() - interval '1 s' where lease is null")


async def test_sealed_secrets_sign_and_go_along(world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, identity, seen = new_secret(), subscribe(world, "/a"), []
    store(world, identity, "signing", seal(secret, PUBLIC, identity, "signing"))
    send = far_end.send

    async def note(endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        seen.append((dict(line.split(": ", 1) for line in headers.decode().splitlines()), body))
        return await send(endpoint, headers, body, timeout_seconds)

    monkeypatch.setattr(far_end, "send", note)
    world.record()
    async with running(world.url, far_end, keyring=RING):
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 1)
    ((headers, body),) = seen
    assert outbox.verify(secret, headers, body).body == body
    assert headers["x-token"] == "t0ken"


@pytest.mark.case("B13")
@pytest.mark.parametrize("swap", [swap_subscriptions, swap_kinds])
async def test_swapped_ciphertexts_are_refused_and_nothing_is_sent_until_they_are_swapped_back(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture, swap
) -> None:
    names = [text_id("sub", UUID(bytes=subscribe(world, path))) for path in ("/a", "/b")]
    swap(world)
    world.record(count=3)
    with caplog.at_level(logging.WARNING, "relay.engine"):
        async with stepping(world.url, far_end, keyring=RING) as relay:
            for _ in range(3):
                await relay.look()
                await relay.settled()
                assert world.count("deliveries", "lease is null and attempts = 0") == 6
                make_due(world)
            assert far_end.requests == []
            assert world.count("attempts") == 0
            swap(world)
            make_due(world)
            await relay.look()
            await relay.settled()
    assert sorted(far_end.paths()) == ["/a"] * 3 + ["/b"] * 3
    assert world.rows("select distinct verdict, number from outbox.attempts") == [("delivered", 1)]
    lines = [record.getMessage() for record in caplog.records if "secret of sub_" in record.getMessage()]
    assert len(lines) == 2, "one line a subscription in ten seconds"
    assert all(any(name in line for line in lines) for name in names)
    assert all(
        "another subscription or kind; store it again; what is due is tried again every minute" in line
        for line in lines
    )


@pytest.mark.case("B13")
async def test_a_key_that_is_rotated_away_parks_its_own_subscriptions_only(world: World, far_end: FarEnd) -> None:
    lost = subscribe(world, "/lost", key=new_private_key()[1])
    subscribe(world, "/held")
    world.record(count=2)
    async with stepping(world.url, far_end, keyring=RING) as relay:
        await relay.look()
        await relay.settled()
        assert far_end.paths() == ["/held"] * 2
        assert world.count("deliveries", f"{WAITING} and subscription_id = %s", UUID(bytes=lost)) == 2
        for kind, text in (("signing", new_secret()), ("headers", HEADERS)):
            store(world, lost, kind, seal(text, PUBLIC, lost, kind))
        make_due(world)
        await relay.look()
        await relay.settled()
    assert far_end.paths() == ["/held"] * 2 + ["/lost"] * 2


@pytest.mark.case("B13")
async def test_a_relay_that_comes_with_the_key_delivers_what_another_could_not(world: World, far_end: FarEnd) -> None:
    subscribe(world, "/a")
    world.record()
    async with stepping(world.url, far_end) as without:
        await without.look()
        await without.settled()
    assert far_end.requests == []
    make_due(world)
    async with running(world.url, far_end, keyring=RING):
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 1)


async def test_a_new_secret_that_cannot_be_opened_stops_what_went_before(world: World, far_end: FarEnd) -> None:
    """It must not go on with the secret that was replaced."""
    identity = subscribe(world, "/a")
    world.record()
    async with stepping(world.url, far_end, keyring=RING) as relay:
        await relay.look()
        await relay.settled()
        store(world, identity, "signing", f"sealed:1:{PUBLIC.id}:AAAA")
        world.record()
        await relay.look()
        await relay.settled()
        assert world.count("deliveries", WAITING) == 1
    assert far_end.paths() == ["/a"]
