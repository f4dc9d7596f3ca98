"""Pages while the database is away, or takes nothing: 503, when to come back, and to the operator what mends it."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

import outbox
from relay.config.options import Config
from relay.web.app import create_app

pytestmark = pytest.mark.anyio
AWAY = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"
MEND = "free space on the server's disk"
FULL = """
create function public.disk_is_full() returns trigger language plpgsql as $$
begin raise exception 'could not extend file "base/5/1249": No space left on device' using errcode = '53100'; end $$;
create trigger full_disk before insert or update on outbox.{} for each row execute function public.disk_is_full();
"""
Page = Callable[..., None]


@asynccontextmanager
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as opened:
        yield opened


async def sign_in(client: httpx.AsyncClient, token: str) -> httpx.Response:
    found = re.search(r'name="csrf" value="(\w+)"', (await client.get("/sign-in")).text)
    assert found
    return await client.post("/sign-in", data={"csrf": found[1], "token": token})


def assert_not_now(answer: httpx.Response, *said: str) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for words in said:
        assert words in answer.text
    for inner in ("127.0.0.1", "base/5", "An error of our"):
        assert inner not in answer.text


def fill_disk(*_args: object, **_more: object) -> None:
    reason = psycopg.errors.DiskFull('could not extend file "base/5/1249": No space left on device')
    raise OperationalError("select 1", None, reason)


async def test_a_database_that_is_away_is_told_on_every_page_and_at_the_sign_in() -> None:
    async with browser(create_app(Config(database_url=AWAY))) as client:
        assert_not_now(await sign_in(client, "rtk_" + "A" * 43), "Not now", "database: is away", "Try again")
        client.cookies.set("relay_session", "rtk_" + "A" * 43)
        for path in ("/", "/events", "/deliveries", "/sign-in", "/live"):
            assert_not_now(await client.get(path), "database: is away")


async def test_a_disk_so_full_that_no_session_begins_is_told_before_anybody_is_known(monkeypatch) -> None:
    """The server ends every new session while it has no room for the file that a session begins with."""

    def refuse(*_args: object, **_more: object) -> None:
        reason = psycopg.OperationalError("connection failed: FATAL:  could not write init file")
        raise OperationalError(None, None, reason)

    monkeypatch.setattr("sqlalchemy.engine.default.DefaultDialect.connect", refuse)
    async with browser(create_app(Config(database_url=AWAY))) as client:
        client.cookies.set("relay_session", "rtk_" + "A" * 43)
        for path in ("/", "/findings"):
            assert_not_now(await client.get(path), "database: is there, but its disk is full", "try again later")


async def test_a_database_that_is_away_is_told_to_a_customer_without_its_name() -> None:
    async with browser(create_app(Config(database_url=AWAY))) as client:
        client.cookies.set("relay_portal", "pts_" + "A" * 43)
        for path in ("/portal/", "/portal/deliveries", "/portal/open?link=ptl_" + "A" * 43):
            answer = await client.get(path)
            assert_not_now(answer, "This cannot be answered at the moment")
            assert "database" not in answer.text


@pytest.mark.parametrize(("tenant", "is_told"), [(None, True), ("acme", False)])
async def test_a_full_disk_is_named_with_its_mend_to_the_operator_only(
    app, token, monkeypatch, caplog, *, tenant: str | None, is_told: bool
) -> None:
    monkeypatch.setattr("relay.web.pages.events.list_events", fill_disk)
    monkeypatch.setattr("relay.web.api.events.list_events", fill_disk)
    given = token(tenant=tenant)
    async with browser(app) as client:
        assert (await sign_in(client, given)).status_code == 303
        with caplog.at_level(logging.ERROR, "relay.web"):
            page = await client.get("/events")
        assert_not_now(page, "its disk is full (SQLSTATE 53100)")
        assert "No space left" in caplog.text
        call = await client.get("/api/v1/events", headers={"Authorization": f"Bearer {given}"})
    assert (call.status_code, call.headers["retry-after"]) == (503, "60")
    assert (MEND.replace("'", "&#39;") in page.text, call.json()["mend"] == MEND) == (is_told, is_told)
    if not is_told:
        assert "try again later" in page.text
        assert call.json()["mend"] == "try again later"


@pytest.mark.parametrize(("tenant", "is_told"), [(None, True), ("acme", False)])
@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (psycopg.errors.QueryCanceled("statement timeout"), "took too long; narrow it with filters"),
        (psycopg.errors.TransactionTimeout("transaction timeout"), "took too long; narrow it with filters"),
        (psycopg.errors.LockNotAvailable("lock timeout"), "another session holds a lock"),
    ],
)
async def test_who_holds_the_lock_that_a_page_waits_for_is_told_to_the_operator_only(
    app, token, monkeypatch, *, reason: psycopg.Error, said: str, tenant: str | None, is_told: bool
) -> None:
    def wait(*_args: object, **_more: object) -> None:
        raise OperationalError("select 1", None, reason)

    monkeypatch.setattr("relay.web.pages.events.list_events", wait)
    given = token(tenant=tenant)
    async with browser(app) as client:
        assert (await sign_in(client, given)).status_code == 303
        page = await client.get("/events")
    assert (page.status_code, said in page.text) == (503, True)
    assert ("pg_blocking_pids(pid)" in page.text) == is_told


async def test_a_full_disk_is_told_to_a_customer_as_a_while_to_wait(app, engine, monkeypatch) -> None:
    monkeypatch.setattr("relay.web.portal.deliveries.list_attempts", fill_disk)
    with engine.begin() as connection:
        link = outbox.portal_url(connection, "acme", "http://127.0.0.1/portal")
    async with browser(app) as client:
        await client.get(link)
        answer = await client.get("/portal/deliveries")
    assert_not_now(answer, "Try again later", "req_")
    assert MEND.replace("'", "&#39;") not in answer.text


@pytest.mark.parametrize(("tenant", "is_told"), [(None, True), ("acme", False)])
async def test_signing_in_inserts_a_row_and_says_so_where_the_disk_is_full(
    app, token, connection: Connection, *, tenant: str | None, is_told: bool
) -> None:
    given = token(tenant=tenant)
    connection.execute(text(FULL.format("tokens")))
    async with browser(app) as client:
        answer = await sign_in(client, given)
    assert_not_now(answer, "SQLSTATE 53100")
    assert (MEND.replace("'", "&#39;") in answer.text) == is_told


async def test_who_is_signed_in_can_look_at_the_findings_while_the_disk_is_full(app, token, engine: Engine) -> None:
    """The last use of a token is noted once a minute, and nobody is locked out where it cannot be."""
    given = token(tenant=None)
    async with browser(app) as client:
        assert (await sign_in(client, given)).status_code == 303
        with engine.begin() as connection:
            connection.execute(text("update outbox.tokens set last_used_at = null"))
            connection.execute(text(FULL.format("tokens")))
        assert (await client.get("/findings")).status_code == 200
        call = await client.get("/api/v1/events", headers={"Authorization": f"Bearer {given}"})
        assert call.status_code == 200


async def test_an_error_of_our_own_statement_is_none_of_the_databases(app, token, monkeypatch, caplog) -> None:
    def ask(connection: Connection, *_args: object, **_more: object) -> None:
        connection.execute(text("select 1 / 0"))

    monkeypatch.setattr("relay.web.pages.events.list_events", ask)
    async with browser(app) as client:
        await sign_in(client, token())
        answer = await client.get("/events")
    assert answer.status_code == 500
    assert "An error of our own. The log has it" in answer.text
