"""The application of `record_cost`: many clients, each a process with one connection, committing as fast as they can.

    python -m benchmarks.clients DATABASE_URL WAY CLIENTS SECONDS

Prints the commits a second of all clients together. Each transaction holds one event, written in one of four ways: by
`outbox.record()` on a SQLAlchemy Session (session-record), by an INSERT of the same row into a plain table through
the same Session (session-plain), and by psycopg and one INSERT into outbox.events (sql-record) or the plain table
(sql-plain).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Session

import outbox
from benchmarks.server import engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Barrier

PLAIN = """
create sequence plain_events_seq;
create table plain_events (
    seq bigint not null default nextval('plain_events_seq') primary key, id uuid not null default gen_random_uuid(),
    tenant text not null default '', type text not null, key text, payload text not null,
    recorded_at timestamptz not null default clock_timestamp(), available_at timestamptz);
"""
plain_events = sa.Table(
    "plain_events",
    sa.MetaData(),
    sa.Column("id", UUID),
    *(sa.Column(name, sa.Text) for name in ("type", "key", "payload")),
)
DATA = {"order": 7, "currency": "EUR", "note": "x" * 400}


def session_record(url: str) -> Callable[[], None]:
    made = engine(url)

    def commit() -> None:
        with Session(made) as session:
            outbox.record(session, "order.created", DATA, key="order-7")
            session.commit()

    return commit


def session_plain(url: str) -> Callable[[], None]:
    made, insert = engine(url), sa.insert(plain_events)

    def commit() -> None:
        with Session(made) as session:
            session.execute(insert, {"type": "order.created", "key": "order-7", "payload": json.dumps(DATA)})
            session.commit()

    return commit


def sql(table: str) -> Callable[[str], Callable[[], None]]:
    def connected(url: str) -> Callable[[], None]:
        connection = psycopg.connect(url)
        insert = f"insert into {table} (type, key, payload) values (%s, %s, %s)"

        def commit() -> None:
            connection.execute(insert, ("order.created", "order-7", json.dumps(DATA)))
            connection.commit()

        return commit

    return connected


WAYS = {
    "session-record": session_record,
    "session-plain": session_plain,
    "sql-record": sql("outbox.events"),
    "sql-plain": sql("plain_events"),
}


def client(url: str, way: str, seconds: float, start: Barrier, done: SimpleQueue[float]) -> None:
    commit, count = WAYS[way](url), 0
    commit()
    start.wait()
    began = now = time.monotonic()
    while now < began + seconds:
        commit()
        count, now = count + 1, time.monotonic()
    done.put(count / (now - began))


def main() -> None:
    url, way, clients, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    fork = multiprocessing.get_context("fork")  # what is imported is shared; no connection is open yet
    start, done = fork.Barrier(clients), fork.SimpleQueue()
    children = [fork.Process(target=client, args=(url, way, seconds, start, done)) for _ in range(clients)]
    for child in children:
        child.start()
    print(sum(done.get() for _ in children))
    for child in children:
        child.join()


if __name__ == "__main__":
    main()
