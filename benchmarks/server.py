"""The PostgreSQL to measure on: the one of OUTBOX_BENCH_DATABASE_URL, or the embedded one with fsync on."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy
from sqlalchemy.engine import make_url

from outbox import schema
from relay.local import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Server", "engine", "server"]

# Durable as in production; the prefix of the log lines differs, so that statements can be told apart, and 32 relays
# have some hundred connections.
_SETTINGS = {"fsync": "on", "synchronous_commit": "on", "log_line_prefix": "%d|%a|", "max_connections": "200"}


@dataclass(frozen=True)
class Server:
    """A running server; `log` is its log file where it is ours."""

    url: str
    log: Path | None = None

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Yield the URL of a fresh database, after a checkpoint; drop it afterwards."""
        name = f"outbox_bench_{secrets.token_hex(4)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"create database {name} template {template}")
            connection.execute("checkpoint")
        try:
            yield make_url(self.url).set(database=name).render_as_string(hide_password=False)
        finally:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(f"drop database {name} with (force)")

    @contextmanager
    def outbox(self) -> Iterator[str]:
        """Yield the URL of a fresh database that has the outbox schema."""
        with self.database() as url:
            made = engine(url)
            with made.connect() as connection:
                schema.migrate(connection)
            made.dispose()
            yield url

    def described(self) -> str:
        """Return version and durability, as the server tells them."""
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        with psycopg.connect(self.url) as connection:
            version, fsync, commit, buffers = (
                connection.execute("select current_setting(%s)", (name,)).fetchone()[0] for name in names
            )
        return f"PostgreSQL {version.split()[0]} (fsync {fsync}, synchronous_commit {commit}, shared_buffers {buffers})"


@contextmanager
def server() -> Iterator[Server]:
    """Yield the given server, or start an embedded one for this run."""
    if given := os.environ.get("OUTBOX_BENCH_DATABASE_URL"):
        yield Server(make_url(given).set(drivername="postgresql").render_as_string(hide_password=False))
        return
    directory = Path(tempfile.mkdtemp(prefix="outbox-benchmarks-"))
    try:
        with embedded.start(directory, settings=_SETTINGS) as running:
            yield Server(running.url(), running.log)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def engine(url: str, **options: object) -> sqlalchemy.Engine:
    """Return a SQLAlchemy engine on psycopg."""
    return sqlalchemy.create_engine(make_url(url).set(drivername="postgresql+psycopg"), **options)
