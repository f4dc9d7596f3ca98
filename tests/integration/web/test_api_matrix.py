"""Every route × tenant × right: who may do what. A route without a row here fails."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, make_url

from outbox.control.portal_links import make_portal_link
from relay.config.options import Config
from relay.operations import tokens
from relay.operations.bulk import operations
from relay.operations.bulk.request import BulkRequest
from relay.operations.connection import Database
from relay.operations.erase.erasure import request_erasure
from relay.operations.erase.request import EraseRequest
from relay.operations.tokens import RIGHTS
from tests.support import seeding

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class World:
    """What tenant acme has; the names are those in the paths below."""

    sub: str
    evt: str
    waiting: str
    outstanding: str
    dead: str
    tok: str
    bulk: str
    ers: str
    link: str


@dataclass(frozen=True)
class Row:
    """Which right a route wants, and what it is asked with.

    `own`: what it answers to acme, whose things it is about. `other`: to globex, with the same right; 404 where it is
    about one thing, and of lists nothing is in it. `operator`: to a token of every tenant.
    """

    right: str | None
    own: int = 200
    other: int = 404
    operator: int | None = None
    query: str = ""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


LIST = {"own": 200, "other": 200}
FOR_THE_OPERATOR = {"own": 404, "other": 404, "operator": 200}
MATCH = {"If-Match": "*"}
KEY = {"Idempotency-Key": "once"}
DRAFT = {"type": "order.created", "data": {"id": 7}}
HOOK = {"url": "http://127.0.0.1:9009/hooks", "types": ["*"]}
IDS = {"ids": ["{waiting}"]}
BULK = {"kind": "redrive", "subscription": "{sub}"}
ERASE = {"kind": "key", "value": "somebody's"}
DEAD = {"ids": ["{dead}"]}

ROWS = {
    "GET /event-types/{name}": Row("read"),  # before anybody but acme has recorded an event
    "GET /subscriptions": Row("read", **LIST),
    "POST /subscriptions": Row("write", 201, 201, body=HOOK),
    "GET /subscriptions/{subscription_id}": Row("read"),
    "PATCH /subscriptions/{subscription_id}": Row("write", headers=MATCH, body={"description": "new"}),
    "DELETE /subscriptions/{subscription_id}": Row("write", headers=MATCH),
    "POST /subscriptions/{subscription_id}/pause": Row("write"),
    "POST /subscriptions/{subscription_id}/disable": Row("write", body={"reason": "by hand"}),
    "POST /subscriptions/{subscription_id}/resume": Row("write"),
    "POST /subscriptions/{subscription_id}/rotate-secret": Row("write"),
    "GET /subscriptions/{subscription_id}/health": Row("read"),
    "POST /subscriptions/{subscription_id}/test": Row("write"),
    "POST /subscriptions/{subscription_id}/check": Row("write"),
    "POST /subscriptions/{subscription_id}/preview": Row("read", body={"event_id": "{evt}"}),
    "POST /subscriptions/{subscription_id}/filter-test": Row("read", body={"event_id": "{evt}"}),
    "POST /filter-test": Row("read", body={"filter": {"type": "a"}, "event_id": "{evt}"}),
    "GET /events": Row("read", **LIST),
    "POST /events": Row("write", 201, 201, body=DRAFT, headers=KEY),
    "POST /events/explain": Row("read", **LIST, body=DRAFT),
    "GET /events/{event_id}": Row("read"),
    "GET /events/{event_id}/explanation": Row("read"),
    "GET /events/{event_id}/track": Row("read"),
    "GET /events/{event_id}/deliveries": Row("read", **LIST),
    "GET /events/{event_id}/attempts": Row("read", **LIST),
    "GET /events/{event_id}/dead-letters": Row("read", **LIST),
    "GET /deliveries": Row("read", **LIST),
    "GET /deliveries/{delivery_id}": Row("read"),
    "GET /deliveries/{delivery_id}/attempts": Row("read", **LIST),
    "POST /deliveries/retry": Row("operate", body=IDS),
    "POST /deliveries/cancel": Row("operate", body=IDS),
    "POST /deliveries/{delivery_id}/retry": Row("operate"),
    "POST /deliveries/{delivery_id}/cancel": Row("operate"),
    "POST /replays": Row("operate", 201, body=DEAD),
    "GET /dead-letters": Row("read", **LIST),
    "GET /dead-letters/{delivery_id}": Row("read"),
    "DELETE /dead-letters/{delivery_id}": Row("operate"),
    "POST /dead-letters/{delivery_id}/redrive": Row("operate", 201),
    "POST /dead-letters/redrive": Row("operate", 201, body=DEAD),
    "POST /dead-letters/purge": Row("operate", body=DEAD),
    "GET /attempts": Row("read", **LIST),
    "GET /statistics": Row("read", **LIST),
    "GET /statistics/ranking": Row("read", **LIST, query="?by=subscription"),
    "GET /statistics/series": Row("read", **LIST),
    "POST /bulk-operations/plan": Row("operate", body=BULK),
    "POST /bulk-operations": Row("operate", 201, body=BULK),
    "GET /bulk-operations": Row("read", **LIST),
    "GET /bulk-operations/{operation_id}": Row("read"),
    "PUT /bulk-operations/{operation_id}/rate": Row("operate", body={"rate": 5}),
    "POST /bulk-operations/{operation_id}/start": Row("operate"),
    "POST /bulk-operations/{operation_id}/pause": Row("operate", 409),
    "POST /bulk-operations/{operation_id}/resume": Row("operate", 409),
    "POST /bulk-operations/{operation_id}/cancel": Row("operate"),
    "POST /erasures/plan": Row("admin", **LIST, body=ERASE),
    "POST /erasures": Row("admin", 201, 201, body=ERASE),
    "GET /erasures": Row("admin", **LIST),
    "GET /erasures/{erasure_id}": Row("admin"),
    "GET /erasures/{erasure_id}/receipt": Row("admin", 409),
    "POST /erasures/{erasure_id}/resume": Row("admin", 409),
    "POST /erasures/{erasure_id}/cancel": Row("admin"),
    "GET /tenant-retention": Row("read", **FOR_THE_OPERATOR),
    "PUT /tenant-retention": Row("admin", **FOR_THE_OPERATOR, body={"tenant": "acme", "events_days": 5}),
    "GET /status": Row("read", **FOR_THE_OPERATOR),
    "GET /findings": Row("read", **FOR_THE_OPERATOR),
    "GET /sending": Row("read", **FOR_THE_OPERATOR),
    "POST /sending/pause": Row("operate", **FOR_THE_OPERATOR),
    "POST /sending/resume": Row("operate", **FOR_THE_OPERATOR),
    "GET /tenant-limits": Row("read", **FOR_THE_OPERATOR),
    "PUT /tenant-limits": Row("admin", **FOR_THE_OPERATOR, body={"tenant": "acme", "rate_limit": "5/s"}),
    "GET /audit": Row("read", **LIST),
    "GET /token": Row(None, **LIST),
    "GET /tokens": Row("admin", **LIST),
    "POST /tokens": Row("admin", 201, 201, body={"name": "new", "rights": ["admin"]}),
    "DELETE /tokens/{token_id}": Row("admin"),
    "GET /portal-links": Row("admin", **LIST),
    "POST /portal-links": Row("admin", 201, 422, body={"tenant": "acme", "url": "https://hooks.example/portal"}),
    "POST /portal-links/revoke": Row("admin", 200, 422, body={"tenant": "acme"}),
    "DELETE /portal-links/{link_id}": Row("admin"),
    "GET /event-types": Row("read", **LIST),
    "GET /schemes": Row("read", **LIST),
    "GET /schemes/{name}": Row("read", **LIST),
    "GET /formats": Row("read", **LIST),
}
NAMES = {"{subscription_id}": "{sub}", "{event_id}": "{evt}", "{token_id}": "{tok}", "{name}": "standard",
         "{operation_id}": "{bulk}", "{erasure_id}": "{ers}", "{link_id}": "{link}"}  # fmt: skip


def make_world(connection) -> World:
    sub = seeding.subscribe(connection, url=HOOK["url"], tenant="acme")
    evt = seeding.record(connection, tenant="acme")
    waiting, outstanding, dead = seeding.resolve(connection, evt, sub, sub, sub)
    seeding.attempt(connection, waiting, "retry")
    seeding.attempt(connection, dead, "dead")
    made = tokens.create(connection, None, name="other", rights=["read"], whose="acme")
    bulk = operations.add_bulk(connection, "acme", BulkRequest(kind="redrive", subscription=sub)).id
    erasure = request_erasure(connection, "acme", EraseRequest(kind="key", value="nobody's")).id
    link = make_portal_link(connection, "acme", "https://hooks.example/portal").link.id
    return World(sub, evt, waiting, outstanding, dead, str(made.token.id), str(bulk), str(erasure), str(link))


def filled(text: str, world: World) -> str:
    """Put the names of acme's things into a path or a body's text."""
    for name, value in vars(world).items():
        text = text.replace(f"{{{name}}}", value)
    return text


def body_for(row: Row, world: World) -> Any:
    if row.body is None:
        return None
    return json.loads(filled(json.dumps(row.body), world))


async def answered(ask, route: str, world: World, by: str) -> Any:
    row, path = ROWS[route], route.replace("/event-types/{name}", "/event-types/order.created")
    for name, value in NAMES.items():
        path = path.replace(name, value)
    path = path.replace("{delivery_id}", "{dead}" if "dead-letters/" in route else "{waiting}")
    more = {} if row.body is None else {"json": body_for(row, world)}
    return await ask(filled(path, world) + row.query, by, headers=dict(row.headers), **more)


def test_every_route_has_a_row(app: FastAPI) -> None:
    described = app.openapi()["paths"]
    routes = {f"{method.upper()} {path.removeprefix('/api/v1')}" for path in described for method in described[path]}
    assert set(ROWS) == routes


async def test_each_route_wants_its_right_and_no_other(ask, connection, token) -> None:
    world, by = make_world(connection), {right: token(right, tenant="globex") for right in RIGHTS}
    for route, row in ROWS.items():
        for right in RIGHTS:
            answer = await answered(ask, route, world, by[right])
            assert (answer.status_code == 403) is (row.right is not None and right != row.right), (route, answer.text)
        assert (await answered(ask, route, world, "rtk_" + "A" * 43)).status_code == 401, route


async def test_what_is_anothers_is_not_found(ask, connection, token) -> None:
    world, by = make_world(connection), token(tenant="globex")
    for route, row in ROWS.items():
        answer = await answered(ask, route, world, by)
        assert answer.status_code == row.other, (route, answer.text)
        assert_nothing_of(answer.text, world, route)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROWS)
async def test_ones_own_is_there_and_the_operator_has_all(route, ask, connection, token) -> None:
    row = ROWS[route]
    for tenant, expected in (("acme", row.own), (None, row.operator or row.own)):
        answer = await answered(ask, route, make_world(connection), token(tenant=tenant))
        assert answer.status_code == expected, answer.text


@pytest.fixture
def least_url(engine: Engine, database_url: str) -> Iterator[str]:
    """The URL of a login that is a member of outbox_operator and outbox_app, and nothing else."""
    name = f"outbox_test_{secrets.token_hex(6)}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"create role {name} login password '{name}'")
        connection.exec_driver_sql(f"grant outbox_operator, outbox_app to {name}")
    yield make_url(database_url).set(username=name, password=name).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"drop owned by {name} cascade; drop role {name}")


async def test_a_role_with_least_right_does_it_all(ask, app, connection, token, least_url) -> None:
    app.state.database.close()
    app.state.database = Database(
        Config(database_url=least_url, allow_networks=["127.0.0.0/8"], allow_http=True), kept=2
    )
    for route, row in ROWS.items():
        answer = await answered(ask, route, make_world(connection), token(tenant=None))
        assert answer.status_code == (row.operator or row.own), (route, answer.text)


def assert_nothing_of(text: str, world: World, route: str) -> None:
    """Fail where an answer holds the id of something that the question did not name."""
    named = filled(route, world) + json.dumps(body_for(ROWS[route], world))
    named += "".join(getattr(world, name) for name, path in IN_PATHS.items() if path in route)
    assert [value for value in vars(world).values() if value not in named and value in text] == [], route


IN_PATHS = {"sub": "{subscription_id}", "evt": "{event_id}", "tok": "{token_id}", "waiting": "{delivery_id}",
            "dead": "{delivery_id}", "bulk": "{operation_id}", "ers": "{erasure_id}", "link": "{link_id}"}  # fmt: skip
