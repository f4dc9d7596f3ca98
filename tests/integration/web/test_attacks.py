"""What somebody tries who has a token, or none: to outlive it, to stop the process, to have data taken for others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import text

from outbox.errors import ArgumentError
from relay.client import Client
from relay.config.options import Config
from relay.operations import sessions
from relay.web.app import create_app

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded"}


async def post(client: httpx.AsyncClient, path: str, page: str = "/sign-in", **fields: str) -> httpx.Response:
    """Post a form as its page has it."""
    found = re.search(r'name="csrf" value="(\w+)"', (await client.get(page)).text)
    assert found
    return await client.post(path, content=urlencode({"csrf": found[1], **fields}), headers=FORM)


async def test_a_token_cannot_be_named_like_a_session(ask, token):
    """Its name would say who began it, and so for how long what it makes may hold."""
    forever = (await ask("GET /token", token("read"))).json()["id"]
    short = token(expires=timedelta(hours=1))
    end = (await ask("GET /token", short)).json()["expires_at"]
    for name in (f"browser session by link {forever}", "browser session of tok_01jd3v00000000000000000000"):
        answer = await ask("POST /tokens", short, json={"name": name, "rights": ["admin"], "expires_at": end}, code=422)
        assert answer.json()["field"] == "name"


async def test_a_session_that_names_nobody_is_none(client, engine):
    """Written by hand, since no token can be made so."""
    with engine.begin() as connection:
        connection.execute(
            text("insert into outbox.tokens (name, hash, tenant, rights) values"
                 " ('browser session of tok_01jd3v00000000000000000000', sha256('rtk_x'), 'acme', '{read,admin}')")
        )  # fmt: skip
    client.cookies.set("relay_session", "rtk_x")
    assert (await client.get("/events")).status_code in (303, 401)


async def test_the_text_of_a_session_is_no_token(client, token, ask):
    shown = token()
    assert (await post(client, "/sign-in", token=shown)).status_code == 303
    session = client.cookies["relay_session"]
    assert (await client.get("/events")).status_code == 200
    await ask("GET /token", session, code=401)
    await ask("POST /tokens", session, json={"name": "more", "rights": ["admin"]}, code=401)
    await ask(f"DELETE /tokens/{(await ask('GET /token', shown)).json()['id']}", shown, code=200)
    assert (await client.get("/events")).status_code == 303


async def test_a_token_has_a_bounded_number_of_sessions(app, client, token, engine):
    shown = token("read")
    for _ in range(sessions.SESSIONS_EACH + 3):
        client.cookies.clear()
        assert (await post(client, "/sign-in", token=shown)).status_code == 303
    assert (await client.get("/events")).status_code == 200, "the newest lives"
    with engine.begin() as connection:
        living = "select count(*) from outbox.tokens where name like 'browser session%' and revoked_at is null"
        assert connection.scalar(text(living)) == sessions.SESSIONS_EACH


async def test_a_token_that_may_not_look_begins_no_session_and_a_link_stays(client, token, engine):
    shown = token("write")
    for more in ({}, {"once": "1"}):
        assert (await post(client, "/sign-in", token=shown, **more)).status_code == 403
    with engine.begin() as connection:
        assert connection.scalar(text("select count(*) from outbox.tokens where revoked_at is null")) == 1


async def test_more_requests_at_once_than_connections_are_all_answered(ask, token):
    """Each keeps a connection while it waits for a thread: they must not wait for each other."""
    reading = token("read")
    answers = await asyncio.gather(*[ask("GET /events?limit=1", reading) for _ in range(120)])
    assert {answer.status_code for answer in answers} == {200}


async def test_a_slow_body_holds_no_connection(ask, token, app):
    operating = token("operate", "read")
    await ask("GET /events", operating, code=200)
    done = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await done.wait()
        yield b"}"

    path = "POST /dead-letters/dlv_01jd3v00000000000000000000/redrive"
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    waiting = [asyncio.ensure_future(ask(path, operating, content=slow(), headers=headers)) for _ in range(12)]
    for _ in range(200):
        await asyncio.sleep(0.005)
    assert app.state.database._engine.pool.checkedout() == 0  # noqa: SLF001 - what is held
    await ask("GET /events", operating, code=200)
    done.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {404}


async def test_a_body_of_nobody_is_not_read(client):
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"[" * 100_000

    for token in ("", "Bearer rtk_" + "x" * 43):
        headers = {"Content-Type": "application/json", "Authorization": token}
        assert (await client.post("/api/v1/filter-test", content=body(), headers=headers)).status_code == 401
    assert read == []


@pytest.mark.parametrize("number", ["9" * 5000, "1e999999999", "-0.0000000000000000000000000000000001"])
async def test_data_are_recorded_as_written_or_refused(ask, engine, number):
    written = f'{{"type":"a.b","data":{{"big":{number}}}}}'
    headers = {"Content-Type": "application/json", "Idempotency-Key": number[:100]}
    answer = await ask("POST /events", content=written, headers=headers)
    with engine.begin() as connection:
        payloads = connection.scalars(text("select payload from outbox.events")).all()
    assert (answer.status_code, payloads) in [(201, [f'{{"big":{number}}}']), (422, [])]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
async def test_what_is_nested_too_deep_is_refused(ask, headers):
    body = b'{"type":"a.b","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    answer = await ask("POST /events", content=body, headers={"Idempotency-Key": "k", **headers})
    assert answer.status_code in (400, 415, 422)


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [("http://relay", None, 303), ("http://evil.relay", None, 403), ("null", None, 403), (None, None, 303),
     ("http://evil.relay", "same-origin", 303), ("http://relay", "cross-site", 403)],
)  # fmt: skip
async def test_a_form_of_another_origin_is_refused(client, token, origin, site, status):
    """Its token may be tossed into the cookie by a sibling of the host, where there is no https."""
    page = (await client.get("/sign-in")).text
    csrf = re.search(r'name="csrf" value="(\w+)"', page)
    assert csrf
    said = {name: value for name, value in (("origin", origin), ("sec-fetch-site", site)) if value is not None}
    content = urlencode({"csrf": csrf[1], "token": token("read")})
    answer = await client.post("/sign-in", content=content, headers={**FORM, **said})
    assert answer.status_code == status


async def test_odd_forms_and_filters_are_refused_and_no_fault_of_ours(client, token):
    assert (await post(client, "/sign-in", token=token())).status_code == 303

    async def large() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"a" * 65_536

    assert (await client.post("/preferences", content="csrf=%C3%A9", headers=FORM)).status_code == 403
    assert (await client.post("/preferences", content=large(), headers=FORM)).status_code == 413
    for query in ("subject=%00", "actor=%00", "action=%00"):
        assert (await client.get(f"/audit?{query}")).status_code in (200, 400, 422)


async def test_a_peer_that_is_no_address_signs_nobody_in(database_url):
    app = create_app(
        Config(
            database_url=database_url, sign_in_header="x-user", sign_in_proxies=["10.0.0.0/8"], sign_in_rights=["read"]
        )
    )
    for peer, status in (("unix", 303), (None, 303), ("::ffff:10.0.0.5", 200), ("10.0.0.5", 200), ("11.0.0.5", 303)):

        async def called(scope, receive, send, peer=peer):
            await app({**scope, "relay.peer": peer}, receive, send)

        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="http://relay") as client:
            assert (await client.get("/events", headers={"x-user": "ann"})).status_code == status
    app.state.database.close()


@pytest.mark.parametrize("wrong", ["", "rtk_a\nX-Evil: 1", "rtk_é", "rtk_a b", "rtk_\x00"])
def test_a_wrong_token_of_a_client_is_refused_and_not_shown(wrong):
    with pytest.raises(ArgumentError, match=r"^token: is no token; ") as refused:
        Client("https://relay.example", wrong)
    assert "rtk_a" not in str(refused.value)
