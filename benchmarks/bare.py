"""The bare loop: what is possible on this machine, as the yardstick of `throughput`.

    python -m benchmarks.bare DATABASE_URL ENDPOINT_URL

The same rows, the same signature, the same POST and the same durability, and nothing else. One statement takes a
batch and inserts its deliveries already leased, every delivery is signed and sent over a kept-alive connection, one
statement deletes what was answered and appends its attempts. No matching, retries, fairness, address policy,
deadlines of a schedule, partitions or recovery. It prints `ready` once its connections are open and then drains
whatever comes until it is terminated. Several of it share the work.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import httptools
import psycopg
import uvloop

BATCH = 500
IN_FLIGHT = 64
IDLE_SECONDS = 0.010
LINGER_SECONDS = 0.005
ANSWER_SECONDS = 15
KEY = hmac.new(bytes(range(32)), digestmod=hashlib.sha256)

SCHEMA = """
create schema bare;
create table bare.events (
    seq bigint generated always as identity primary key, id uuid not null default gen_random_uuid(),
    tenant text not null default '', type text not null, key text, payload text not null,
    recorded_at timestamptz not null default clock_timestamp());
create table bare.pending (event_seq bigint primary key);
create table bare.subscriptions (id integer primary key);
create table bare.deliveries (
    id bigint generated always as identity primary key, event_seq bigint not null, subscription_id integer not null,
    due_at timestamptz not null, attempts smallint not null, lease bigint);
create index on bare.deliveries (subscription_id, due_at, id);
create table bare.attempts (
    delivery_id bigint not null, event_seq bigint not null, subscription_id integer not null, number smallint not null,
    at timestamptz not null default clock_timestamp(), verdict text not null, outcome text not null,
    status smallint not null, milliseconds integer not null);
create index on bare.attempts (event_seq);
"""

TAKE = """
with taken as materialized (
    select event_seq from bare.pending order by event_seq
    limit %s / greatest(1, (select count(*) from bare.subscriptions)) for update skip locked),
gone as (delete from bare.pending where event_seq = any(array(select event_seq from taken)) returning event_seq),
born as (
    insert into bare.deliveries (event_seq, subscription_id, due_at, attempts, lease)
    select gone.event_seq, s.id, now() + interval '21 s', 1, 1 from gone cross join bare.subscriptions s
    returning id, event_seq)
select b.id, convert_to('evt_' || e.id, 'UTF8'), convert_to(e.payload, 'UTF8')
from born b cross join lateral (select id, payload from bare.events where seq = b.event_seq limit 1) e
"""

SETTLE = """
with r as materialized (select * from unnest(%s::bigint[], %s::smallint[], %s::integer[]) r(id, status, milliseconds)),
done as (
    delete from bare.deliveries where id = any(array(select id from r)) and lease = 1
    returning id, event_seq, subscription_id, attempts)
insert into bare.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds)
select d.id, d.event_seq, d.subscription_id, d.attempts, 'delivered', 'delivered', r.status, r.milliseconds
from r join done d on d.id = r.id
"""


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionError("the receiver closed the connection"))

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.answer.set_result(self.parser.get_status_code())

    def send(self, request: bytes) -> asyncio.Future[int]:
        self.answer = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)
        return self.answer


class Loop:
    """take → send → settle, with a queue between each."""

    def __init__(self, database_url: str, endpoint_url: str) -> None:
        self._database_url = database_url
        self._endpoint = urlsplit(endpoint_url)
        self._to_send: asyncio.Queue[tuple[int, bytes, bytes]] = asyncio.Queue()
        self._answered: asyncio.Queue[tuple[int, int, int]] = asyncio.Queue()
        self._under_way = 0

    async def run(self) -> None:
        reader, writer = [await self._database() for _ in range(2)]
        connections = [await self._connect() for _ in range(IN_FLIGHT)]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as tasks:
            for connection in connections:
                tasks.create_task(self._send(connection))
            tasks.create_task(self._settle(writer))
            tasks.create_task(self._take(reader))

    async def _database(self) -> psycopg.AsyncConnection[Any]:
        # Nothing prepared and no sequential scans: plans made on empty tables would make the yardstick too short.
        return await psycopg.AsyncConnection.connect(
            self._database_url, autocommit=True, prepare_threshold=None, options="-c enable_seqscan=off"
        )

    async def _connect(self) -> Connection:
        context = ssl.create_default_context() if self._endpoint.scheme == "https" else None
        host, port = self._endpoint.hostname, self._endpoint.port
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port, ssl=context)
        return connection

    async def _take(self, database: psycopg.AsyncConnection[Any]) -> None:
        while True:
            if self._under_way > 3 * BATCH:
                await asyncio.sleep(0.001)
                continue
            rows = await (await database.execute(TAKE, (BATCH,), binary=True)).fetchall()
            self._under_way += len(rows)
            for row in rows:
                self._to_send.put_nowait(row)
            if not rows:
                await asyncio.sleep(IDLE_SECONDS)

    async def _send(self, connection: Connection) -> None:
        head = (
            f"POST {self._endpoint.path} HTTP/1.1\r\nhost: {self._endpoint.netloc}\r\nuser-agent: bare-loop\r\n"
            "content-type: application/json\r\n"
        ).encode()
        while True:
            delivery, message_id, body = await self._to_send.get()
            began = time.monotonic()
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await connection.send(head + signed(message_id, body))
            self._answered.put_nowait((delivery, status, int((time.monotonic() - began) * 1000)))

    async def _settle(self, database: psycopg.AsyncConnection[Any]) -> None:
        while True:
            rows = [await self._answered.get()]
            await asyncio.sleep(LINGER_SECONDS)
            while not self._answered.empty() and len(rows) < BATCH:
                rows.append(self._answered.get_nowait())
            await database.execute(SETTLE, [list(column) for column in zip(*rows, strict=True)], binary=True)
            self._under_way -= len(rows)


def signed(message_id: bytes, body: bytes) -> bytes:
    """Return the Standard Webhooks headers, the end of the head, and the body."""
    now = b"%d" % time.time()
    mac = KEY.copy()
    mac.update(b"%b.%b.%b" % (message_id, now, body))
    return b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: v1,%b\r\ncontent-length: %d\r\n\r\n%b" % (
        message_id, now, base64.b64encode(mac.digest()), len(body), body)  # fmt: skip


if __name__ == "__main__":
    uvloop.run(Loop(sys.argv[1], sys.argv[2]).run())
