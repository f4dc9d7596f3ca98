"""A PostgreSQL to test on, databases with the outbox schema, and what empties them."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text

from outbox.errors import ArgumentError

__all__ = ["database", "empty", "install_schema", "postgres", "url_of"]

# Nothing here has to survive a crash.
_SETTINGS = {
    **dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit"), "off"),
    "shared_buffers": "64MB",
    "max_connections": "200",
}
# What a database is, and not what happened in it; and the audit, which nobody may empty.
_KEPT = (
    *("schema_migrations", "settings", "rights", "home", "sealing_keys"),
    *("poller", "rollup_state", "sending", "turns", "audit"),
)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL of its own in a temporary directory; yield its URL, for SQLAlchemy. Needs the extra `demo`.

    It takes a second, so have one for a whole test run. Any other server will do as well. Raises RuntimeError where
    the server is not installed, or does not start.
    """
    from relay.local import embedded

    directory = Path(tempfile.mkdtemp(prefix="outbox-tests-"))
    try:
        with _start(embedded, directory) as running:
            yield _text_of(url_of(running.url()))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start(embedded: Any, directory: Path) -> Any:
    try:
        return embedded.start(directory, settings=_SETTINGS)
    except embedded.EmbeddedServerError as error:
        raise RuntimeError(f"{error}; or test on a PostgreSQL of yours") from None


@contextmanager
def database(server_url: str | URL | Engine) -> Iterator[str]:
    """Make a new database with the outbox schema on a server; yield its URL, for SQLAlchemy. Drop it afterwards.

    Args:
        server_url: of any database of the server, as a role that may create databases.
    """
    server, name = url_of(server_url), f"outbox_test_{secrets.token_hex(6)}"
    with _connect(server, autocommit=True) as connection:
        connection.execute(text(f"create database {name} template template0 encoding 'UTF8'"))
    try:
        url = server.set(database=name)
        install_schema(url)
        yield _text_of(url)
    finally:
        with _connect(server, autocommit=True) as connection:
            connection.execute(text(f"drop database if exists {name} with (force)"))


def install_schema(database: str | URL | Engine) -> None:
    """Bring a database's outbox schema up to date, as `relay migrate` does; harmless where it is."""
    from outbox.schema import migrate

    with _connect(url_of(database)) as connection:
        migrate(connection)


def empty(database: str | URL | Engine) -> None:
    """Take every event, subscription, delivery and attempt away, and what else happened; settings and audit stay.

    For tests that commit. It waits for transactions that are open on these tables; close your sessions before.
    """
    with _connect(url_of(database)) as connection:
        tables = connection.execute(_TABLES, {"kept": list(_KEPT)}).scalar_one()
        connection.execute(text(f"truncate {tables}"))
        connection.commit()


_TABLES = text("""
select string_agg(oid::regclass::text, ', ') from pg_class
where relnamespace = 'outbox'::regnamespace and relkind in ('r', 'p') and not relispartition and relname <> all(:kept)
""")


def url_of(database: Any) -> URL:
    """Return the URL of a database for SQLAlchemy on psycopg. Raises ArgumentError."""
    given = getattr(database, "sync_engine", database)
    if isinstance(given, Engine):
        url = given.url
    elif isinstance(given, str | URL):
        url = make_url(given)
    else:
        kind = type(given).__qualname__
        raise ArgumentError(f"database: pass a URL or an Engine, not a {kind}: other connections have to see its rows")
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ArgumentError(f"database: the outbox lives in PostgreSQL, not in {url.get_backend_name()}")
    return url.set(drivername="postgresql+psycopg")


def _text_of(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@contextmanager
def _connect(url: URL, *, autocommit: bool = False) -> Iterator[Connection]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT") if autocommit else connection
