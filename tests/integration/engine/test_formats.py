"""A subscription's format, from its row to the wire and from the answer to the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

from outbox import subscriptions
from relay.http.sender import Endpoint
from relay.model.outcome import Outcome, OutcomeKind
from tests.integration.engine.world import FarEnd, World, running
from tests.support.presets import broken_rules
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.case("B13"), pytest.mark.case("B14"), pytest.mark.case("B15")]

ROUTING_KEY = "canary0canary0canary0canary04711"
SLACK = "https://hooks.slack.com/services/T0/B0/canary-canary-canary"


class Wire(FarEnd):
    """A far end that keeps the header lines as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[dict[str, str]] = []
        self.user_agents: list[str] = []

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        lines = headers.decode("ascii").split("\r\n")[:-1]
        names = [line.split(": ", 1)[0].lower() for line in lines]
        assert len(names) == len(set(names)), "no header twice"
        self.headers.append({name: line.split(": ", 1)[1] for name, line in zip(names, lines, strict=True)})
        self.user_agents.append((endpoint.fixed or b"").decode())
        return await super().send(endpoint, headers, body, timeout_seconds)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def add(world: World, url: str = "https://hooks.example.com/", types: Sequence[str] = ("*",), **fields: Any) -> Any:
    engine = create_engine(make_url(world.url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        made = subscriptions.add(connection, url, types, schedule_seconds=[3600], **fields)
    engine.dispose()
    return made


async def deliver(world: World, wire: Wire, payload: str = '{"n": 1.50}') -> tuple[dict[str, str], bytes]:
    known = len(wire.requests)
    world.record(payload=payload)
    await await_until(lambda: len(wire.requests) > known)
    return wire.headers[-1], wire.requests[-1][2]


async def test_structured_and_binary_cloudevents_go_out(world: World, wire: Wire) -> None:
    told = {"source": "/shop", "extensions": {"region": "eu", "attempt": 3}}
    one = add(world, format="cloudevents", format_settings=told)
    async with running(world.url, wire):
        headers, body = await deliver(world, wire)
        assert headers["content-type"] == "application/cloudevents+json"
        event = json.loads(body)
        assert (event["source"], event["region"], event["attempt"]) == ("/shop", "eu", 3)
        assert event["id"] == headers["webhook-id"]
        assert b'"data":{"n": 1.50}' in body
        engine = create_engine(make_url(world.url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            subscriptions.update(connection, one.id, format="cloudevents-binary")
        engine.dispose()
        headers, body = await deliver(world, wire)
        assert (headers["content-type"], headers["ce-source"], headers["ce-attempt"]) == (
            "application/json",
            "/shop",
            "3",
        )
        assert body == b'{"n": 1.50}'


async def test_old_applications_get_their_headers_signed_or_not(world: World, wire: Wire) -> None:
    add(world, format="fulfil", scheme="none")
    async with running(world.url, wire):
        headers, body = await deliver(world, wire)
        assert not [name for name in headers if "signature" in name]
        assert headers["x-webhook-event"] == "a.b"
        assert headers["webhook-id"].startswith("evt_")
        assert "user-agent: FulFil-Webhook/1.0\r\n" in wire.user_agents[-1]
        assert list(json.loads(body)) == ["event", "timestamp", "data"]
        world.rows("update outbox.subscriptions set removed_at = now()")
        add(world, format="fulfil", scheme="fulfil", secret="inv-secret-123", headers={"User-Agent": "Own/2"})
        headers, _ = await deliver(world, wire)
        assert headers["x-webhook-signature"].startswith("sha256=")
        assert headers["x-webhook-event"] == "a.b"
        assert "user-agent: Own/2\r\n" in wire.user_agents[-1]


async def test_an_event_without_a_body_in_the_format_is_a_dead_letter_that_says_why(world: World, wire: Wire) -> None:
    add(world, format="pagerduty", format_secret=ROUTING_KEY, format_settings={"action": "resolve"})
    add(world, format="raw")
    async with running(world.url, wire):
        await deliver(world, wire)
        await await_until(lambda: world.count("dead_letters") == 1 and world.count("attempts") == 2)
    ((reason, error),) = world.rows("select reason, error from outbox.dead_letters")
    assert reason == "unformatted"
    assert error.startswith("key: is empty")
    assert world.count("deliveries") == 0, "the other subscription got its body"


async def test_slack_says_in_the_body_what_its_status_does_not(world: World, wire: Wire) -> None:
    add(world, SLACK, format="slack")
    path = "/services/T0/B0/canary-canary-canary"
    wire.script[path] = Outcome(
        OutcomeKind.HTTP_4XX, 400, 1, headers="", excerpt=b"invalid_blocks canary-canary-canary"[:14]
    )
    async with running(world.url, wire):
        _, body = await deliver(world, wire)
        assert not broken_rules("slack", json.loads(body))
        await await_until(lambda: world.count("dead_letters") == 1)
        wire.script[path] = Outcome(OutcomeKind.DELIVERED, 200, 1, headers="", excerpt=b'{"ok":false}')
        await deliver(world, wire)
        await await_until(lambda: world.count("attempts", "outcome = 'not_taken' and verdict = 'retry'") == 1)
        wire.script[path] = Outcome(OutcomeKind.DELIVERED, 200, 1, headers="", excerpt=b"ok")
        await deliver(world, wire)
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 1)


async def test_a_receiver_that_asks_for_time_after_a_success_is_held(world: World, wire: Wire) -> None:
    add(world, "https://discord.com/api/webhooks/1/t", format="discord")
    head = "HTTP/1.1 204 No Content\r\nX-RateLimit-Remaining: 0\r\nX-RateLimit-Reset-After: 50\r\n"
    wire.script["/api/webhooks/1/t"] = Outcome(OutcomeKind.DELIVERED, 204, 1, headers=head)
    async with running(world.url, wire):
        await deliver(world, wire)
        await await_until(lambda: world.count("subscriptions", "held_until > now() + interval '30 s'") == 1)
    assert world.count("attempts", "verdict = 'delivered'") == 1


@pytest.mark.parametrize("known", [True, False], ids=["known before", "made meanwhile"])
async def test_a_ban_of_the_address_holds_every_discord_webhook_and_no_other(
    world: World, wire: Wire, *, known: bool
) -> None:
    def hook(number: int) -> None:
        url, mine = f"https://discord.com/api/webhooks/{number}/t", {"payload": {"to": {"$in": [number, 0]}}}
        add(world, url, format="discord", filter=mine)

    add(world, "https://hooks.example.com/plain")
    add(world, "https://relay.example.com/elsewhere", format="discord")  # whoever answers there bans nobody
    hook(1)
    banned = Outcome(OutcomeKind.HTTP_4XX, 429, 1, headers="", excerpt=b"<html>error 1015</html>")
    async with running(world.url, wire):
        if known:
            hook(2)
            world.record(payload='{"to": 0}')
            await await_until(lambda: len(wire.requests) == 4)
        wire.script["/api/webhooks/1/t"] = banned
        world.record(payload='{"to": 1}')
        await await_until(lambda: world.count("attempts", "status = 429") == 1)
        if not known:
            hook(2)
        asked = wire.paths().count("/api/webhooks/2/t")
        for _ in range(3):
            world.record(payload='{"to": 2}')
        plain, elsewhere = wire.paths().count("/plain"), wire.paths().count("/elsewhere")
        await await_until(lambda: wire.paths().count("/plain") >= plain + 3)
        await await_until(lambda: wire.paths().count("/elsewhere") >= elsewhere + 3)
        await asyncio.sleep(0.5)
        assert wire.paths().count("/api/webhooks/2/t") == asked
    second = "subscription_id = (select id from outbox.subscriptions where url like '%%/2/t')"
    assert world.count("deliveries", f"lease is null and attempts = 0 and {second}") == 3, "nothing is charged"


@pytest.mark.parametrize(
    ("name", "url", "settings"),
    [
        ("slack", "https://hooks.slack.com/services/T0/B0/alarm", {"text": "{data.host}: {type}"}),
        ("teams", "https://prod-1.westeurope.logic.azure.com/workflows/alarm", {"text": "{data.host}: {type}"}),
        ("zapier", "https://hooks.zapier.com/hooks/catch/1/alarm/", {}),
    ],
)
async def test_what_the_relay_tells_of_an_endpoint_is_a_message_for_people(
    world: World, wire: Wire, name: str, url: str, settings: dict[str, str]
) -> None:
    add(world, url, ["relay.*"], format=name, format_settings=settings)
    add(world, "https://customer.example/failing")
    wire.script["/failing"] = Outcome(OutcomeKind.HTTP_5XX, 500, 1, headers="")
    world.record(count=10)
    async with running(world.url, wire):
        await await_until(lambda: any("alarm" in path for path in wire.paths()))
    (body,) = [request[2] for request, path in zip(wire.requests, wire.paths(), strict=True) if "alarm" in path]
    message = json.loads(body)
    assert not broken_rules(name, message)
    shown = json.dumps(message).replace("\\", "")
    assert "customer.example" in shown
    assert "relay.breaker.opened" in shown


async def test_no_credential_of_a_preset_is_in_a_row_of_history(world: World, wire: Wire) -> None:
    add(world, SLACK, format="slack")
    add(world, "https://events.pagerduty.com/v2/enqueue", format="pagerduty", format_secret=ROUTING_KEY)
    repeated = f"no: {ROUTING_KEY} and canary-canary-canary".encode()
    for path in ("/services/T0/B0/canary-canary-canary", "/v2/enqueue"):
        wire.script[path] = Outcome(OutcomeKind.HTTP_5XX, 500, 1, headers="x: y", excerpt=repeated)
    async with running(world.url, wire):
        world.record()
        await await_until(lambda: world.count("attempts") == 2)
    rows = world.rows("select url, error, headers, convert_from(excerpt, 'UTF8') from outbox.attempts order by url")
    assert ROUTING_KEY.encode() in b"".join(body for _, _, body in wire.requests), "it was sent"
    urls = [row[0] for row in rows]
    assert urls == ["https://events.pagerduty.com/v2/enqueue", "https://hooks.slack.com/services/***"]
    assert ROUTING_KEY not in str(rows[0])
    assert "canary-canary-canary" not in str(rows[1])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("format", "unheard-of"),
        ("format_settings", json.dumps({"sources": "/a"})),
        ("format_settings", json.dumps({"datacontenttype": "a/b\r\nX-Injected: 1"})),
    ],
)
async def test_a_bad_format_in_a_row_fails_the_attempt_not_the_relay(
    world: World, wire: Wire, column: str, value: str
) -> None:
    add(world, format="cloudevents")
    add(world, "https://hooks.example.com/fine", format="thin")
    world.rows(f"update outbox.subscriptions set {column} = %s where format = 'cloudevents'", value)
    world.record()
    async with running(world.url, wire):
        await await_until(lambda: world.count("attempts") == 2)
    assert wire.paths() == ["/fine"]
    ((outcome, error),) = world.rows("select outcome, error from outbox.attempts where verdict = 'retry'")
    assert outcome == "unsendable"
    assert error.startswith("format")


async def test_a_plain_subscription_has_the_standard_body_beside_formats(world: World, wire: Wire) -> None:
    world.subscribe(path="/plain")
    add(world, "https://hooks.example.com/thin", format="thin")
    async with running(world.url, wire):
        world.record(payload='{"n": 1.50}')
        await await_until(lambda: len(wire.requests) == 2)
    bodies = {path: body for path, _, body in wire.requests}
    assert bodies["/plain"].startswith(b'{"type":"a.b","timestamp":"')
    assert list(json.loads(bodies["/thin"])) == ["id", "type"]


async def test_a_resume_ends_what_is_held_with_others_for_that_one(world: World, wire: Wire) -> None:
    hooks = [
        add(world, f"https://discord.com/api/webhooks/{n}/t", format="discord", filter={"payload": {"to": n}})
        for n in (1, 2, 3)
    ]
    banned = Outcome(OutcomeKind.HTTP_4XX, 429, 1, headers="", excerpt=b"<html>error 1015</html>")
    wire.script["/api/webhooks/1/t"] = banned
    async with running(world.url, wire) as relay:
        world.record(payload='{"to": 1}')
        await await_until(lambda: world.count("subscriptions", "held_until is not null") == 3)
        await relay.settled()  # it knows that it is written
        engine = create_engine(make_url(world.url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            subscriptions.resume(connection, hooks[1].id)
        engine.dispose()
        world.record(payload='{"to": 3}')
        world.record(payload='{"to": 2}')
        await await_until(lambda: wire.paths().count("/api/webhooks/2/t") == 1)
        await asyncio.sleep(0.5)
    assert wire.paths().count("/api/webhooks/3/t") == 0
