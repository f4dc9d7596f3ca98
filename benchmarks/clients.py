"""The application of `record_cost`: many clients, each a process with one connection, committing as fast as they can.

    python -m benchmarks.clients DATABASE_URL WAY CLIENTS SECONDS

Prints the commits a second of all clients together, and the microseconds of CPU that a commit took in its client and in
its server process. Each transaction holds one event, written in one of four ways: by
`outbox.record()` on a SQLAlchemy Session (session-record), by an INSERT of the same row into a plain table through
the same Session (session-plain), and by psycopg and one INSERT into outbox.events (sql-record) or the plain table
(sql-plain).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
WARM_UP = 20  # commits after which a session has its plans
DATA = {"order": 7, "currency": "EUR", "note": "x" * 400}


class Writer(NamedTuple):
    """What commits one event, and the process id of its server process."""

    commit: Callable[[], None]
    server_pid: int


def session_record(url: str) -> Writer:
    made = engine(url)

    def commit() -> None:
        with Session(made) as session:
            outbox.record(session, "order.created", DATA, key="order-7")
            session.commit()

    return Writer(commit, _server_pid(made))


def session_plain(url: str) -> Writer:
    made, insert = engine(url), sa.insert(plain_events)

    def commit() -> None:
        with Session(made) as session:
            session.execute(insert, {"type": "order.created", "key": "order-7", "payload": json.dumps(DATA)})
            session.commit()

    return Writer(commit, _server_pid(made))


def _server_pid(made: sa.Engine) -> int:
    """Return whom the pool's only connection is connected to."""
    with made.connect() as connection:
        return int(connection.scalar(sa.text("select pg_backend_pid()")))


def sql(table: str) -> Callable[[str], Writer]:
    def connected(url: str) -> Writer:
        connection = psycopg.connect(url)
        insert = f"insert into {table} (type, key, payload) values (%s, %s, %s)"

        def commit() -> None:
            connection.execute(insert, ("order.created", "order-7", json.dumps(DATA)))
            connection.commit()

        return Writer(commit, connection.info.backend_pid)

    return connected


WAYS = {
    "session-record": session_record,
    "session-plain": session_plain,
    "sql-record": sql("outbox.events"),
    "sql-plain": sql("plain_events"),
}


class Done(NamedTuple):
    """What one client did: its commits, in how many seconds, and the seconds of CPU they took."""

    commits: int
    seconds: float
    client_cpu: float
    server_cpu: float


def client(url: str, way: str, seconds: float, start: Barrier, done: SimpleQueue[Done]) -> None:
    """Commit for so long, once all clients are ready."""
    commit, server_pid = WAYS[way](url)
    for _ in range(WARM_UP):
        commit()
    start.wait()
    began = now = time.monotonic()
    client_cpu, server_cpu, count = time.process_time(), cpu_seconds(server_pid), 0
    while now < began + seconds:
        commit()
        count, now = count + 1, time.monotonic()
    done.put(Done(count, now - began, time.process_time() - client_cpu, cpu_seconds(server_pid) - server_cpu))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process of this machine so far, as its scheduler counts it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def main() -> None:
    """Start the clients, and print what they did."""
    url, way, clients, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    fork = multiprocessing.get_context("fork")  # what is imported is shared; no connection is open yet
    start, queue = fork.Barrier(clients), fork.SimpleQueue()
    children = [fork.Process(target=client, args=(url, way, seconds, start, queue)) for _ in range(clients)]
    for child in children:
        child.start()
    done = [queue.get() for _ in children]
    commits = sum(one.commits for one in done) / 1e6
    print(
        sum(one.commits / one.seconds for one in done),
        sum(one.client_cpu for one in done) / commits,
        sum(one.server_cpu for one in done) / commits,
    )
    for child in children:
        child.join()


if __name__ == "__main__":
    main()
