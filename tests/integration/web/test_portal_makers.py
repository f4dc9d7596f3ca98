"""Links into the portal by a token: no right that it has not, no end after its own, none beyond its revocation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection

from outbox.control.portal_links import make_portal_link, open_portal_link, portal_link_of_session
from relay.operations import tokens
from tests.integration.web.conftest import Ask

pytestmark = pytest.mark.anyio
PORTAL = "http://localhost/portal"


async def make(ask: Ask, by: str, **more: Any) -> Any:
    return (await ask("POST /portal-links", by, json={"url": PORTAL, **more}, code=201)).json()


async def enters(client: httpx.AsyncClient, made: Any) -> int:
    """Open a link as a browser does; the cookie stays with the client."""
    return (await client.get(made["url"].removeprefix("http://localhost"))).status_code


@pytest.mark.parametrize(
    ("rights", "wanted", "lacking"),
    [
        (("admin",), "read", "read"),
        (("admin",), "manage", "read, write, operate"),
        (("read", "admin"), "manage", "write, operate"),
        (("read", "write", "admin"), "manage", "operate"),
    ],
)
async def test_a_link_gives_no_right_that_its_token_has_not(
    ask: Ask, token: Callable[..., str], rights: tuple[str, ...], wanted: str, lacking: str
) -> None:
    answer = await ask("POST /portal-links", token(*rights), json={"url": PORTAL, "rights": wanted}, code=422)
    assert answer.json()["detail"].startswith(f"rights: this token has no right {lacking} itself")


async def test_a_link_is_made_with_the_rights_that_it_gives(ask: Ask, token: Callable[..., str]) -> None:
    assert (await make(ask, token("read", "admin")))["rights"] == "read"
    assert (await make(ask, token(), rights="manage"))["rights"] == "manage"


async def test_link_and_session_end_no_later_than_their_token(
    ask: Ask, client: httpx.AsyncClient, token: Callable[..., str]
) -> None:
    by = token(expires=timedelta(minutes=5))
    end = (await ask("GET /token", by)).json()["expires_at"]
    made = await make(ask, by, rights="manage", expires_seconds=604_800)
    assert made["expires_at"] == end
    assert await enters(client, made) == 303
    listed = (await ask("GET /portal-links", by)).json()["items"]
    assert [one["session_expires_at"] for one in listed] == [end]


async def test_revoking_a_token_ends_its_links_and_their_sessions(
    ask: Ask, client: httpx.AsyncClient, token: Callable[..., str]
) -> None:
    by = token()
    opened, unopened = await make(ask, by), await make(ask, by)
    assert await enters(client, opened) == 303
    assert (await client.get("/portal/")).status_code == 200
    await ask(f"DELETE /tokens/{(await ask('GET /token', by)).json()['id']}", token(), code=200)
    assert (await client.get("/portal/")).status_code == 401
    client.cookies.clear()
    assert await enters(client, unopened) == 403


def test_the_maker_in_a_text_cannot_be_changed_or_left_out(connection: Connection) -> None:
    maker = tokens.create(connection, None, name="maker", rights=["read", "admin"], whose="acme").token.id
    given = make_portal_link(connection, "acme", PORTAL, maker=maker).url.partition("=")[2]
    other = str(tokens.create(connection, None, name="other", rights=["read"], whose="acme").token.id)[4:]
    assert open_portal_link(connection, given[:-26]) is None
    assert open_portal_link(connection, given[:-26] + other) is None
    opened = open_portal_link(connection, given)
    assert opened is not None
    session = opened[1]
    assert portal_link_of_session(connection, session[:-26]) is None
    assert portal_link_of_session(connection, session) == opened[0]
