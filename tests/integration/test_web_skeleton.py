"""The application answers with a token, and says what is wrong without one."""

from __future__ import annotations

import httpx
import pytest

from outbox import subscriptions
from relay.config.options import Config
from relay.operations import tokens
from relay.web.app import create_app


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_token_reads_what_is_its_tenants(database_url, engine):
    with engine.begin() as connection:
        made = subscriptions.add(connection, "https://example.com/hooks", ["*"], tenant="acme")
        token = tokens.create(connection, None, name="test", rights=["read"], tenant="acme").text
        other = tokens.create(connection, None, name="test", rights=["read"], tenant="other").text
        writer = tokens.create(connection, None, name="test", rights=["write"], tenant="acme").text
    app = create_app(Config(database_url=database_url))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as client:
        path = f"/api/v1/subscriptions/{made.id}"
        answers = [
            await client.get(path, headers={"Authorization": f"Bearer {text}"} if text else {})
            for text in (token, other, writer, "rtk_" + "A" * 43, None)
        ]
    app.state.database.close()
    assert [answer.status_code for answer in answers] == [200, 404, 403, 401, 401]
    assert answers[0].json()["id"] == made.id
    assert answers[1].headers["content-type"] == "application/problem+json"
