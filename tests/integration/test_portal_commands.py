"""Links into the portal: by command, in every kind of session, and only where a tenant is one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import subscriptions
from outbox.control.event_types import example_of_type, seen_types
from outbox.control.portal_links import (
    end_portal_session,
    open_portal_link,
    portal_link_of_session,
)
from outbox.subscriptions.rows import hold_tenant
from relay.cli import cli

BASE = "https://hooks.example.com/portal"


@pytest.fixture
def run(database_url: str) -> Callable[..., Any]:
    def run(*arguments: str, **environ: str) -> str:
        given = {"RELAY_DATABASE_URL": database_url, "RELAY_ACTOR": "alice", **environ}
        ended = CliRunner().invoke(cli, ["portal", *arguments], env=given, standalone_mode=False)
        if ended.exception is not None:
            raise ended.exception
        return ended.stdout

    return run


def test_a_link_is_made_listed_opened_and_revoked(run: Callable[..., Any], engine: Engine) -> None:
    made = json.loads(run("link", "--tenant", "acme", "--url", BASE, "--expires", "15m", "--person", "carol", "--json"))
    assert made["url"].startswith(f"{BASE}/open?link=ptl_")
    assert (made["tenant"], made["rights"], made["person"], made["created_by"]) == ("acme", "read", "carol", "alice")
    by_setting = run("link", "--tenant", "acme", "--rights", "manage", RELAY_PORTAL_URL=f"{BASE}/").strip()
    assert by_setting.startswith(f"{BASE}/open?link=ptl_")
    listed = [json.loads(line) for line in run("list", "--tenant", "acme", "--json").splitlines()]
    assert [one["rights"] for one in listed] == ["manage", "read"]
    assert "ptl_" not in str(listed)
    assert "carol" in run("list")
    with engine.begin() as connection:
        assert open_portal_link(connection, by_setting.partition("=")[2]) is not None
    run("revoke", made["id"], "--yes")
    assert json.loads(run("revoke", "--tenant", "acme", "--yes", "--json")) == {"revoked": 1}
    assert run("list", "--json") == ""
    assert len(run("list", "--ended", "--json").splitlines()) == 2
    with engine.begin() as connection:
        assert open_portal_link(connection, made["url"].partition("=")[2]) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("link", "--tenant", "acme"), "--url"),
        (("link", "--tenant", "acme", "--url", "hooks.example.com"), "base_url: "),
        (("link", "--tenant", "*", "--url", BASE), "tenant: "),
        (("link", "--tenant", "acme", "--url", BASE, "--expires", "8d"), "expires: "),
        (("link", "--tenant", "acme", "--url", BASE, "--expires", "2030-01-01"), "--expires"),
        (("revoke", "--yes"), "lnk_"),
        (("revoke", "lnk_01m8k6j7ree3jvvj1xzjtnag40", "--tenant", "acme", "--yes"), "lnk_"),
    ],
)
def test_a_wrong_command_is_refused_by_what_is_wrong(
    run: Callable[..., Any], engine: Engine, arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises((outbox.OutboxError, click.UsageError), match=re.escape(said)):
        run(*arguments)
    with engine.begin() as connection:
        assert connection.execute(text("select count(*) from outbox.portal_links")).scalar_one() == 0


def test_a_link_that_is_not_there_is_not_revoked(run: Callable[..., Any]) -> None:
    with pytest.raises(outbox.NotFoundError, match="link: no lnk_"):
        run("revoke", "lnk_01m8k6j7ree3jvvj1xzjtnag40", "--yes")


def test_a_session_makes_links_in_its_own_transaction(engine: Engine) -> None:
    with Session(engine) as session:
        outbox.portal_url(session, "acme", BASE)
        session.rollback()
        url = outbox.portal_url(session, "", f"{BASE}/", rights="manage", expires=timedelta(minutes=5))
        session.commit()
        assert outbox.revoke_portal_urls(session, "acme") == 0
        opened = open_portal_link(session.connection(), url.partition("=")[2])
        assert opened is not None
        assert (opened[0].tenant, opened[0].rights) == ("", "manage")


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_asynchronous_code_makes_and_revokes_them_likewise(database_url: str, driver: str) -> None:
    async def make_and_revoke() -> tuple[str, int]:
        engine = create_async_engine(make_url(database_url).set(drivername=f"postgresql+{driver}"))
        async with AsyncSession(engine) as session:
            url = await session.run_sync(outbox.portal_url, "acme", BASE, person="carol")
            ended = await session.run_sync(outbox.revoke_portal_urls, "acme")
            await session.commit()
        await engine.dispose()
        return url, ended

    url, ended = asyncio.run(make_and_revoke())
    assert url.startswith(f"{BASE}/open?link=ptl_")
    assert ended == 1


def test_by_psycopg2_too(database_url: str) -> None:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    with Session(engine) as session:
        assert outbox.portal_url(session, "acme", BASE, person="carol").startswith(BASE)
        assert outbox.revoke_portal_urls(session, "acme") == 1
    engine.dispose()


def test_whoever_manages_subscriptions_has_the_rights_for_all_of_it_and_an_application_has_none(engine: Engine) -> None:
    with engine.begin() as connection:
        subscriptions.add(connection, "https://example.com/h", ["*"], tenant="acme")
        outbox.record(connection, "order.paid", {"n": 1}, tenant="acme")
    with engine.begin() as connection:
        connection.execute(text("set local role outbox_operator"))
        given = outbox.portal_url(connection, "acme", BASE).partition("=")[2]
        opened = open_portal_link(connection, given)
        assert opened is not None
        link, session = opened
        assert portal_link_of_session(connection, session, begun_by=given) == link
        assert portal_link_of_session(connection, session, begun_by="ptl_" + "A" * 43) is None
        hold_tenant(connection, "acme")
        assert [one.type for one in seen_types(connection, "acme")] == ["order.paid"]
        assert seen_types(connection, "globex") == []
        example = example_of_type(connection, "acme", "order.paid")
        assert example is not None
        assert example.shape == (("n", "number"),)
        assert example_of_type(connection, "globex", "order.paid") is None
        end_portal_session(connection, link)
        assert portal_link_of_session(connection, session) is None
    with engine.begin() as connection:
        connection.execute(text("set local role outbox_app"))
        with pytest.raises(ProgrammingError, match="permission denied"):
            outbox.portal_url(connection, "acme", BASE)
        connection.rollback()


def test_of_two_who_open_a_link_at_once_one_begins_a_session(engine: Engine) -> None:
    with engine.begin() as connection:
        given = outbox.portal_url(connection, "acme", BASE).partition("=")[2]
    with engine.connect() as first, engine.connect() as second:
        assert open_portal_link(first, given) is not None
        second.execute(text("set local lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            open_portal_link(second, given)
        first.commit()
        second.rollback()
        assert open_portal_link(second, given) is None
