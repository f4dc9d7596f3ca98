"""A slow database is not one that is down: work goes on at its speed, and the log names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.integration.engine.world import FarEnd, World, running
from tests.support.serving import serving
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

SLEEP = """
create function outbox.sleep() returns trigger language plpgsql as $$ begin perform pg_sleep(3.5); return null; end $$;
create trigger sleep before insert or update or delete on outbox.deliveries
    for each statement execute function outbox.sleep();
"""


@pytest.mark.field("F110")
async def test_statements_that_take_longer_than_the_time_to_begin(
    own_world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture
) -> None:
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

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        try:
            while data := await reader.read(16_384):
                if slow:
                    await asyncio.sleep(delay + len(data) / bytes_per_second)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
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


@pytest.mark.field("F62")
async def test_a_link_that_takes_one_megabyte_a_second(world: World, far_end: FarEnd) -> None:
    for number in range(6):
        world.subscribe(path=f"/{number}")
    world.record(count=20, payload='"' + "x" * 200_000 + '"')
    async with link(world.url, bytes_per_second=1e6) as url, running(url, far_end):
        await await_until(lambda: len(far_end.requests) >= 24, timeout_seconds=60)
