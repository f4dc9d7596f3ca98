"""The API of customers' webhooks with a real relay: tests that are sent, deliveries that arrive, and their history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox.fastapi import Shape, webhooks_router
from tests.support.application import Application

pytestmark = pytest.mark.timeout(60)

SHAPE = Shape(event="event", history_path="/logs", history_is_list=True, first_delay_seconds=0, retry_count=1)
EVENTS = {"product.created": "A product was created"}


@pytest.mark.slow
def test_a_customer_tries_receives_and_looks_back(app: Application) -> None:
    """On either kind of session; the secret is the customer's own, and the receiver verifies each request by it."""
    asynchronous = create_async_engine(app.engine.url)

    def plain() -> Iterator[Session]:
        with Session(app.engine) as session:
            yield session

    async def awaited() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(asynchronous) as session:
            yield session

    api = FastAPI()
    for name, session in (("plain", plain), ("awaited", awaited)):
        router = webhooks_router(
            session=session, owner=lambda: 7, event_types=EVENTS, shape=SHAPE, settings={"format": "standard"}
        )
        api.include_router(router, prefix=f"/{name}")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://shop", timeout=30)
    with start_blocking_portal() as portal:

        def ask(method: str, path: str, body: Any = None) -> Any:
            answer = portal.call(partial(client.request, method, path, json=body))
            assert answer.is_success, answer.text
            return answer.json()

        app.stage.running_relay()
        hooks = {}
        for kind in ("plain", "awaited"):
            given = {"url": app.receiver.url(f"/{kind}"), "events": ["product.created"], "secret": app.receiver.secret}
            hooks[kind] = ask("POST", f"/{kind}", given | {"is_active": False})["id"]
            tried = ask("POST", f"/{kind}/{hooks[kind]}/test", {"event": "product.created", "payload": {"id": "test"}})
            assert (tried["success"], tried["error"]) == (True, None), "it works while the webhook is not active"
            assert 200 <= tried["status_code"] < 300
            ask("PATCH", f"/{kind}/{hooks[kind]}", {"is_active": True})
        app.receiver.plan("/awaited", "503", "503", "200")
        with Session(app.engine) as session:
            outbox.record(session, "product.created", {"id": 1}, tenant="7")
            session.commit()
        app.wait_settled()
        logs = {kind: ask("GET", f"/{kind}/{hook}/logs") for kind, hook in hooks.items()}
        assert [(one["status"], one["payload"]) for one in logs["plain"]] == [("delivered", {"id": 1}), ("test", None)]
        assert [one["status"] for one in logs["awaited"]] == ["dead", "retry", "test"]
        assert [one["status_code"] for one in logs["awaited"][:2]] == [503, 503]
        assert ask("POST", f"/awaited/{hooks['awaited']}/logs/{logs['awaited'][0]['id']}/retry")["id"]
        app.wait_settled()
        counted = ask("GET", f"/awaited/{hooks['awaited']}")
        assert (counted["success_count"], counted["failure_count"], counted["last_error"]) == (1, 1, None)
        app.receiver.plan("/plain", "500")
        failed = ask("POST", f"/plain/{hooks['plain']}/test")
        assert (failed["success"], failed["status_code"], bool(failed["error"])) == (False, 500, True)
        portal.call(client.aclose)
        portal.call(asynchronous.dispose)
    assert len(app.receiver.received()) == 7, "each with a signature that the receiver verified"
