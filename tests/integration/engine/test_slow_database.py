"""A slow database is not one that is down: work goes on at its speed, and the log names it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from sqlalchemy.engine import make_url

from relay.engine import pace
from relay.engine.pace import Pace
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World, running, stepping
from tests.support.serving import serving
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

SLEEP = """
create function outbox.sleep() returns trigger language plpgsql as $$ begin perform pg_sleep(1.2); return null; end $$;
create trigger sleep before insert or update or delete on outbox.deliveries
    for each statement execute function outbox.sleep();
"""


@pytest.mark.slow
@pytest.mark.field("F110")
async def test_statements_that_take_longer_than_the_time_to_begin(
    own_world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "START_WITHIN_SECONDS", 1.0)
    monkeypatch.setattr(pace, "LEASE_SLACK_SECONDS", 2.0)
    monkeypatch.setattr(pace, "SAID_AFTER_SECONDS", 1.0)
    own_world.subscribe()
    own_world.record(count=3)
    own_world.rows(SLEEP)
    async with running(own_world.url, far_end):
        await await_until(lambda: own_world.count("attempts", "verdict = 'delivered'") == 3, timeout_seconds=60)
        own_world.rows("drop trigger sleep on outbox.deliveries")
    assert len(far_end.requests) == 3
    assert "database: slow: fan_out has taken" in caplog.text


@asynccontextmanager
async def link(url: str, *, bytes_per_second: float = 1e9, delay: float = 0.0) -> AsyncIterator[str]:
    """The URL of a slow way to the database: what the server says comes late, and so many bytes a second."""
    at = make_url(url)

    async def late(writer: asyncio.StreamWriter, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        while data := (sent := await under_way.get())[
            1
        ]:  # one after the other: timers that are close may change places
            await asyncio.sleep(sent[0] - time.monotonic())
            writer.write(data)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(late(writer, under_way))
        try:
            while data := await reader.read(16_384):
                if slow and not delay:
                    await asyncio.sleep(len(data) / bytes_per_second)
                if slow and delay:  # what is under way does not wait for what is before it
                    under_way.put_nowait((time.monotonic() + delay, data))
                else:
                    writer.write(data)
                    await writer.drain()
            under_way.put_nowait((0.0, b""))
            await writing
        except OSError:
            pass
        finally:
            writing.cancel()
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await _connect(url)
        await asyncio.gather(pump(reader, forth, slow=False), pump(back, writer, slow=True))

    async with serving(serve) as port:
        yield at.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    at = psycopg.conninfo.conninfo_to_dict(url)
    host, port = str(at.get("host") or "127.0.0.1"), int(at.get("port") or 5432)
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


@pytest.mark.slow
@pytest.mark.field("F62")
async def test_a_link_that_takes_one_megabyte_a_second(world: World, far_end: FarEnd) -> None:
    for number in range(6):
        world.subscribe(path=f"/{number}")
    world.record(count=20, payload='"' + "x" * 200_000 + '"')
    async with link(world.url, bytes_per_second=1e6) as url, running(url, far_end):
        await await_until(lambda: len(far_end.requests) >= 24, timeout_seconds=60)


@pytest.mark.field("F62")
async def test_what_is_born_leased_and_comes_too_late_counts_as_late(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = []
    world.subscribe()
    world.record(count=3)
    monkeypatch.setattr(Pace, "note_late", lambda pace: late.append(pace))
    monkeypatch.setattr(Pace, "start_within_seconds", -1.0)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        assert len(late) == 1
        assert not far_end.requests
    assert world.count("deliveries", "lease is null and attempts = 0") == 3


@pytest.mark.slow
@pytest.mark.field("F110")
async def test_a_connection_that_takes_longer_than_its_limit_is_given_more(world: World) -> None:
    async with link(world.url, delay=1.1) as url:
        store = Store(psycopg.conninfo.make_conninfo(url, connect_timeout="2", gssencmode="disable", sslmode="prefer"))
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            await store.connect()
        with suppress(psycopg.errors.ConnectionTimeout):  # a login with a password takes more than twice as long
            await store.connect()
        assert not (await store.connect()).closed
        await store.close()
