"""What a subscription's requests carry, from its rows to the wire, and what happens when the rows change."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import create_engine, make_url

from outbox import subscriptions
from outbox.subscriptions.authentication import BearerToken, OAuth2ClientCredentials
from relay.http.sender import Endpoint
from relay.model.outcome import Outcome
from tests.integration.engine.world import FarEnd, World, running, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

CANARY = "canary-4711"


class Wire(FarEnd):
    """A far end that keeps the header lines, and issues tokens under /token."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[dict[str, str]] = []

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        if endpoint.url.target == "/token":
            document = json.dumps({"access_token": CANARY, "token_type": "bearer"})
            return Outcome("delivered", 200, 1, excerpt=document.encode())
        self.headers.append(dict(line.split(": ", 1) for line in headers.decode("ascii").split("\r\n")[:-1]))
        return await super().send(endpoint, headers, body, timeout_seconds)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def change(world: World, identity: bytes, **fields) -> None:
    engine = create_engine(make_url(world.url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        subscriptions.update(connection, str(uuid_of(identity)), **fields)
    engine.dispose()


async def deliver(world: World, wire: Wire) -> dict[str, str]:
    known = len(wire.headers)
    world.record()
    await await_until(lambda: len(wire.headers) > known)
    return wire.headers[-1]


async def test_what_changes_takes_effect_at_the_next_request(world: World, wire: Wire) -> None:
    identity = world.subscribe()
    async with running(world.url, wire):
        plain = await deliver(world, wire)
        assert plain["content-type"] == "application/json"
        assert "authorization" not in plain
        change(world, identity, headers={"X-Api-Key": "one"}, authentication=BearerToken("first"))
        sent = await deliver(world, wire)
        assert (sent["X-Api-Key"], sent["authorization"]) == ("one", "Bearer first")
        change(world, identity, headers=None, authentication=BearerToken("second"))
        sent = await deliver(world, wire)
        assert ("X-Api-Key" in sent, sent["authorization"]) == (False, "Bearer second")
        token_url = "http://127.0.0.1/token"
        change(world, identity, authentication=OAuth2ClientCredentials(token_url, "i", "s"))
        assert (await deliver(world, wire))["authorization"] == f"Bearer {CANARY}"
        change(world, identity, authentication=None)
        assert "authorization" not in await deliver(world, wire)


@pytest.mark.case("B21")
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("headers", json.dumps({"X-Key": f"{CANARY}\r\nX-Injected: 1"})),
        ("headers", json.dumps({"Transfer-Encoding": "chunked"})),
        ("headers", f"not JSON {CANARY}"),
        ("authentication", json.dumps({"type": "bearer", "token": f"{CANARY}\n"})),
        ("authentication", "null"),
        ("tls", json.dumps({"ca": CANARY})),
    ],
)
async def test_a_stored_bad_value_fails_the_attempt_not_the_relay(world: World, wire: Wire, kind, text) -> None:
    broken = world.subscribe(path="/broken")
    world.subscribe(path="/fine")
    world.rows(
        "insert into outbox.secrets (subscription_id, kind, secret) values (%s, %s, %s)", uuid_of(broken), kind, text
    )
    world.record()
    async with running(world.url, wire):
        await await_until(lambda: world.count("attempts") == 2)
    assert wire.paths() == ["/fine"]
    ((outcome, error),) = world.rows("select outcome, error from outbox.attempts where verdict = 'retry'")
    assert outcome == "unsendable"
    assert error.startswith(kind)
    assert CANARY not in error


async def test_without_a_token_the_attempt_fails_and_is_retried_by_schedule(world: World, wire: Wire) -> None:
    identity = world.subscribe(schedule=(3600,))
    change(world, identity, authentication=OAuth2ClientCredentials("http://127.0.0.1/other", "i", CANARY))

    async def send(endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        assert endpoint.url.target == "/other"
        return Outcome("http_4xx", 401, 1, excerpt=b'{"error":"invalid_client"}')

    wire.send = send  # type: ignore[method-assign]
    world.record()
    async with running(world.url, wire):
        await await_until(lambda: world.count("attempts") == 1)
    ((outcome, status, verdict, error),) = world.rows("select outcome, status, verdict, error from outbox.attempts")
    assert (outcome, status, verdict) == ("authorization", None, "retry")
    assert error == "no access token from http://127.0.0.1: it answered 401 (invalid_client)"
    assert world.deliveries("due_at > now() + interval '50 minutes', attempts") == [(True, 1)]
