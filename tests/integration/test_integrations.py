"""The blocks of docs/integrations.md run as they stand, and what each makes is asked to do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import httpx
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi import FastAPI
from sqlalchemy.orm import Session

import outbox
from relay.local.demo import shop
from tests.support import databases, readme
from tests.support.readme import ROOT

BLOCKS = readme.blocks(ROOT / "docs" / "integrations.md")
Names = dict[str, Any]


@pytest.fixture(scope="module")
def engine(server_url: str, migrated_template: str) -> Iterator[sa.Engine]:
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
    ):
        shop.Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def run(engine: sa.Engine) -> Callable[[str], Names]:
    """Runs the first block that has this line, on a database without events."""
    with engine.begin() as connection:
        for table in ("events", "pending", "idempotency_keys"):
            connection.execute(sa.text(f"delete from outbox.{table}"))

    def run(line: str) -> Names:
        block = next(block for block in BLOCKS if line in block.text.splitlines())
        names: Names = {"__name__": __name__, "engine": engine, "Order": shop.Order, "Session": Session}
        exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
        return names

    return run


def events(engine: sa.Engine) -> list[tuple[str, str, str]]:
    """Type, payload and tenant of what was recorded, without the numbers that the database gave."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select type, payload, tenant from outbox.events order by seq")).all()
    return [(row.type, row.payload, row.tenant) for row in rows]


def ask(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", headers={"x-user": "ann"}) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def test_fastapi(run: Callable[[str], Names], engine: sa.Engine) -> None:
    answer = ask(run('@app.post("/orders", status_code=201)')["app"], "POST", "/orders?cents=5")
    assert answer.status_code == 201
    assert events(engine) == [("order.placed", f'{{"id":{answer.json()},"cents":5}}', "ann")]


def test_fastapi_webhooks_and_the_routes_of_the_table(run: Callable[[str], Names], engine: sa.Engine) -> None:
    app: FastAPI = run("from outbox.fastapi import webhooks_router")["app"]
    made = ask(
        app, "POST", "/api/webhooks", json={"url": "https://customer.example/", "event_types": ["order.paid"]}
    ).json()
    with Session(engine) as session:
        assert outbox.subscriptions.get(session, made["id"], tenant="ann").types == ("order.paid",)
    told = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    for path, methods in app.openapi()["paths"].items():
        short = path.removeprefix("/api/webhooks").replace("webhook_id", "id").replace("delivery_id", "delivery") or "/"
        for method in methods:
            assert f"{method.upper()} {short} " in told or f"or {method.upper()} {short} " in told or method == "patch"


def test_the_three_shapes(run: Callable[[str], Names]) -> None:
    names = run("from outbox.fastapi import Shape, webhooks_router")
    app = FastAPI()
    for name in ("notely", "fulfil", "soundhash"):
        app.include_router(names[name], prefix=f"/{name}")
        events = "event_types" if name == "notely" else "events"
        body = {"url": "https://customer.example/", events: ["order.placed"]}
        made = ask(app, "POST", f"/{name}", json=body)
        assert made.status_code == 201, made.text
        assert (made.json()["secret"] == "") is (name == "fulfil")


def test_mounting(run: Callable[[str], Names]) -> None:
    names = run('app.mount("/hooks", web)  # the portal is at /hooks/portal, the API at /hooks/api/v1')
    assert ask(names["app"], "GET", "/hooks/portal").headers["location"] == "/hooks/portal/"
    assert ask(names["app"], "GET", "/hooks/api/v1/events").status_code == 401
    names["web"].state.database.close()


def test_under_ones_own_sign_in(run: Callable[[str], Names]) -> None:
    names = run("from relay.web.mounting import signed_in_router")
    assert ask(names["app"], "GET", "/webhooks/portal/").json() == {"detail": "Sign in first"}
    begun = ask(names["app"], "GET", "/webhooks/portal/", headers={"Cookie": "user=alice"})
    assert (begun.status_code, "relay_portal=" in begun.headers["set-cookie"]) == (303, True)
    names["web"].state.database.close()


def test_flask(run: Callable[[str], Names], engine: sa.Engine) -> None:
    names = run('app = flask.Flask("shop")')
    answer = names["app"].test_client().post("/orders/5").json
    with names["app"].app_context():
        names["db"].engine.dispose()
    assert events(engine) == [("order.placed", f'{{"id":{answer["id"]},"cents":5}}', "")]


def test_sqlmodel(run: Callable[[str], Names], engine: sa.Engine) -> None:
    run("from sqlmodel import Session")
    assert events(engine) == [("order.placed", '{"id":7}', "")]


def test_litestar(run: Callable[[str], Names], engine: sa.Engine) -> None:
    names = run("from litestar import Litestar, post")

    async def place() -> int:
        async with names["app"].lifespan():
            transport = httpx.ASGITransport(names["app"])
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
                return (await client.post("/orders")).status_code

    assert asyncio.run(place()) == 201
    assert events(engine) == [("order.placed", '{"cents":4200}', "")]


def test_celery(run: Callable[[str], Names], engine: sa.Engine) -> None:
    names = run("from celery import Celery, signals")
    names["app"].conf.task_always_eager = True
    for _ in range(2):
        names["ship"].delay(7).get()
    names["app"].close()
    assert events(engine) == [("order.shipped", '{"id":7}', "")]


def test_dramatiq(run: Callable[[str], Names], engine: sa.Engine) -> None:
    names = run("from dramatiq.brokers.stub import StubBroker")
    worker = dramatiq.Worker(names["broker"], worker_timeout=10, worker_threads=1)
    worker.start()
    for _ in range(2):
        names["ship"].send(7)
    names["broker"].join("default", timeout=20_000)
    worker.stop()
    names["broker"].close()
    assert events(engine) == [("order.shipped", '{"id":7}', "")]


def test_psycopg_and_asyncpg(run: Callable[[str], Names], engine: sa.Engine) -> None:
    run("import asyncpg")
    assert events(engine) == [("order.placed", '{"id":7}', ""), ("order.placed", '{"id":8}', "")]


def test_alembic(run: Callable[[str], Names], engine: sa.Engine) -> None:
    """In Alembic's own place; a whole environment is in test_alembic_revisions.py."""
    names = run("import outbox.alembic")
    with engine.begin() as connection:
        names["op"] = Operations(MigrationContext.configure(connection))
        names["upgrade"]()
        with pytest.raises(outbox.SchemaError, match="does not go back"):
            names["downgrade"]()


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == len([name for name in globals() if name.startswith("test_")]) - 1
