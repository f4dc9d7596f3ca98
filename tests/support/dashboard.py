"""The dashboard on a port of this machine, over a database as an operator finds it on an ordinary bad day."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import uvicorn
from sqlalchemy import Connection, text

from outbox import Catalogue, EventType, act_as, catalogue, subscriptions
from outbox.ids import parse_id
from relay.config.options import Config
from relay.operations import tokens
from relay.operations.bulk.operations import add_bulk
from relay.operations.bulk.request import BulkRequest
from relay.web.app import create_app
from relay.web.forwarding import Forwarding
from tests.support import seeding

ALL_RIGHTS = ("read", "write", "operate", "admin")


@dataclass(frozen=True)
class Scene:
    """What a test names of the scene: tokens as text, and ids of things of each kind."""

    operator: str
    tenant: str
    reader: str
    subscription: str
    failing: str
    disabled: str
    event: str
    dead_event: str
    dead_delivery: str
    waiting_delivery: str
    delivered_delivery: str
    bulk: str


_ENDPOINTS = (
    ("acme", "https://hooks.acme.example/orders", ["order.*"], "Warehouse of Acme", 0.002),
    ("acme", "https://billing.acme.example/webhooks/outbox", ["invoice.*", "order.paid"], "", 0.01),
    ("globex", "https://api.globex.example/v2/events", ["*"], "All that Globex does", 0.0),
    ("globex", "https://legacy.globex.example/in.php", ["order.created"], "To be moved in December", 0.55),
    ("initech", "https://tps.initech.example/reports", ["report.*", "order.*"], "", 0.03),
    ("umbrella", "https://n8n.umbrella.example/webhook/9c1f77d0", ["order.*", "user.created"], "n8n of the lab", 1.0),
)
_TYPES = ("order.created", "order.paid", "order.shipped", "invoice.issued", "user.created", "report.filed")
_ATTEMPTS = text("""
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, status,
                             milliseconds, error, url, address, headers, excerpt)
select outbox.uuid7(), :seq, :subscription, 1, clock_timestamp() - make_interval(secs => ago), verdict, outcome,
       status, took, error, :url, '203.0.114.7', headers, excerpt
from unnest(cast(:agos as float8[]), cast(:verdicts as text[]), cast(:tooks as integer[])) a(ago, verdict, took),
lateral (select case verdict when 'delivered' then 'delivered' else 'http_5xx' end as outcome,
                case verdict when 'delivered' then 200 else 502 end as status,
                case verdict when 'delivered' then null else '502 Bad Gateway' end as error,
                case verdict when 'delivered' then null else 'content-type: text/html' end as headers,
                case verdict when 'delivered' then null else cast('<h1>Bad gateway</h1>' as bytea) end as excerpt) o
""")


def seed(connection: Connection) -> Scene:
    """Fill the database; the same on every run but for ids and times."""
    dice = Random(7)
    for days in (1, 2):
        connection.execute(
            text("select outbox.make_attempt_leaf(0, cast(clock_timestamp() as date) - cast(:days as integer))"),
            {"days": days},
        )
    act_as(connection, "alice@shop.example")
    names = [
        subscriptions.add(connection, url, types, tenant=tenant, description=description).id
        for tenant, url, types, description, _ in _ENDPOINTS
    ]
    _declare(connection)
    events: dict[str, str] = {}
    for name, (tenant, url, _, _, share) in zip(names, _ENDPOINTS, strict=True):
        if tenant not in events:
            events[tenant] = _record(connection, tenant, "order.created", dice)
            seeding.resolve(connection, events[tenant])
        _attempts(connection, name, url, seeding.seq_of(connection, events[tenant]), share, dice)
    scene = _trouble(connection, names, dice)
    seeding.sign_in(
        connection, host="relay-a.shop.internal", pid=4711, version="0.9.0", leased=12, started=86_400 * 3, seen=-3_600
    )
    seeding.sign_in(
        connection, host="relay-b.shop.internal", pid=2212, version="0.9.0", leased=9, started=86_400 * 3, seen=-3_600
    )
    return Scene(
        bulk=str(add_bulk(connection, None, BulkRequest(kind="redrive", tenant="globex")).id),
        event=events["globex"],
        subscription=names[0],
        failing=names[3],
        disabled=names[5],
        **scene,
        **_tokens(connection),
    )


_ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "description": "The order's number."},
        "customer": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "vat": {"type": ["string", "null"], "description": "If any."}},
            "required": ["name", "vat"],
        },
        "total": {"type": "number", "description": "With taxes, in euros."},
        "items": {"type": "array", "items": {"type": "string"}, "description": "Article numbers."},
    },
    "required": ["id", "customer", "total"],
}


def _declare(connection: Connection) -> None:
    """Push a catalogue: a type with everything, one that is deprecated, one without events, one that is retired."""
    whole, former = Catalogue("shop"), Catalogue("shop")
    example = {"id": 1, "customer": {"name": "Zoë Ünal", "vat": None}, "total": 129.9, "items": ["A-1"]}
    said = "Somebody has placed an order, and it is not paid yet."
    EventType("order.created", _ORDER, description=said, example=example, version=2, catalogue=whole)
    EventType("order.paid", deprecated="Use invoice.issued: it tells of each part of a payment.", catalogue=whole)
    EventType("order.returned", _ORDER, description="The goods are back.", catalogue=whole)
    EventType("order.put_aside", catalogue=former)
    catalogue.push(connection, former)
    catalogue.push(connection, whole, allow_breaking=True)


def _attempts(connection: Connection, name: str, url: str, seq: int, share: float, dice: Random) -> None:
    count = 12 if share == 1 else 480
    agos = [86_400 * (1 - dice.random() ** 0.8) for _ in range(count)]
    verdicts = ["retry" if dice.random() < share else "delivered" for _ in range(count)]
    tooks = [int(dice.lognormvariate(4.2, 0.55)) + (900 if dice.random() < 0.02 else 0) for _ in range(count)]
    connection.execute(_ATTEMPTS, {
        "seq": seq, "subscription": parse_id("sub", name), "url": url, "agos": agos, "verdicts": verdicts,
        "tooks": tooks,
    })  # fmt: skip


def _record(connection: Connection, tenant: str, type_: str, dice: Random) -> str:
    number = dice.randrange(10_000, 99_999)
    data = f'{{"id":{number},"customer":{{"name":"Zoë Ünal","vat":null}},"total":129.90,"items":["A-1","B-22"]}}'
    return seeding.record(connection, data, type=type_, tenant=tenant, key=f"order-{number}")


def _trouble(connection: Connection, names: list[str], dice: Random) -> dict[str, str]:
    """Make dead letters, retries, deliveries, a breaker that is open, a disabled and a paused subscription."""
    made: dict[str, str] = {}
    for place in range(14):
        event = _record(connection, "globex", _TYPES[place % 3], dice)
        good, bad = seeding.resolve(connection, event, names[2], names[3])
        seeding.attempt(connection, good, "delivered")
        seeding.attempt(connection, bad, ("retry", "dead", "retry")[place % 3], error="502 Bad Gateway")
        kind = ("waiting_delivery", "dead_delivery", "waiting_delivery")[place % 3]
        made |= {kind: bad, "delivered_delivery": good}
        if kind == "dead_delivery":
            made["dead_event"] = event
    for _ in range(6):
        event = _record(connection, "umbrella", "order.created", dice)
        seeding.resolve(connection, event, names[5])
    for _ in range(3):
        seeding.resolve(connection, _record(connection, "acme", "order.refunded", dice))
    _record(connection, "acme", "order.paid", dice)
    connection.execute(_BREAKER, {"id": parse_id("sub", names[3])})
    act_as(connection, "relay")
    subscriptions.disable(connection, names[5], reason="410 Gone: the endpoint says it is gone", tenant="umbrella")
    act_as(connection, "bob@shop.example")
    subscriptions.pause(connection, names[4], tenant="initech")
    subscriptions.update(connection, names[1], tenant="acme", timeout_seconds=30, rate_limit="20/s")
    return made


_BREAKER = text("""
insert into outbox.health (subscription_id, failures, successes, failing_since, opened_at, probe_at, pause_seconds)
values (:id, 31, 4, clock_timestamp() - interval '47 minutes', clock_timestamp() - interval '31 minutes',
        clock_timestamp() + interval '2 minutes', 300)
on conflict (subscription_id) do update set failures = excluded.failures, successes = excluded.successes,
    failing_since = excluded.failing_since, opened_at = excluded.opened_at, probe_at = excluded.probe_at,
    pause_seconds = excluded.pause_seconds
""")


def _tokens(connection: Connection) -> dict[str, str]:
    return {
        name: tokens.create(connection, None, name=f"{name} of the shop", rights=rights, whose=whose).text
        for name, rights, whose in (
            ("operator", ALL_RIGHTS, None), ("tenant", ALL_RIGHTS, "acme"), ("reader", ("read",), None),
        )
    }  # fmt: skip


@contextmanager
def served(database_url: str, **options: object) -> Iterator[str]:
    """Serve the application over this database and yield its address; a thread of this process does."""
    config = Config(
        database_url=database_url,
        allow_http=True,
        allow_networks=("127.0.0.0/8",),
        **options,  # type: ignore[arg-type]
    )
    app = create_app(config)
    server = uvicorn.Server(
        uvicorn.Config(Forwarding(app), port=0, log_config=None, lifespan="off", proxy_headers=False,
                       timeout_graceful_shutdown=1)
    )  # fmt: skip
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        app.state.database.close()


def posts_of(router: object) -> set[str]:
    """Return the paths of every route that takes a POST, also of routers within."""
    found: set[str] = set()
    for route in router.routes:  # type: ignore[attr-defined]
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            found |= posts_of(inner)
        elif "POST" in (getattr(route, "methods", None) or ()):
            found.add(route.path)
    return found
