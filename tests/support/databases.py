"""Where the tests' PostgreSQL comes from, and the databases made on it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy.engine import make_url

from outbox.schema import runner as schema
from relay.local import embedded

# Nothing here has to survive a crash of the machine.
_EMBEDDED_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "max_connections": "200",
    "max_prepared_transactions": "10",
}
LEAVES_SINCE = {"make_key_leaf": 10, "make_inbox_leaf": 30}  # the versions that brought these functions
_MEMORY_BYTES = 4 * 1024**3


_relay_login: dict[str, str] = {}
_kept: dict[str, psycopg.Connection[Any]] = {}  # server's URL: the connection that makes and drops databases


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a server: the given one, a container's when asked for, or an embedded one."""
    with contextmanager(_found)() as url, psycopg.connect(url, autocommit=True) as connection:
        _kept[url] = connection
        try:
            yield url
        finally:
            del _kept[url]


def _found() -> Iterator[str]:
    if given := os.environ.get("OUTBOX_TEST_DATABASE_URL"):
        yield plain(given)
    elif os.environ.get("OUTBOX_TEST_CONTAINERS") and _docker_answers():
        yield from _container()
    else:
        yield from _embedded()


def _docker_answers() -> bool:
    import docker

    try:
        client = docker.from_env()
    except docker.errors.DockerException:
        return False
    client.close()
    return True


def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    image = os.environ.get("OUTBOX_TEST_IMAGE", "postgres:18-alpine")
    with PostgresContainer(image, username="postgres", driver=None) as container:
        yield plain(container.get_connection_url())


def _embedded() -> Iterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="outbox-tests-", dir=_memory()))
    try:
        with embedded.start(directory, settings=_EMBEDDED_SETTINGS) as running:
            yield running.url()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> Path | None:
    """Where files live in memory, if there is room: copying a database takes 12 ms there, on a busy disk 400."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > _MEMORY_BYTES else None


def plain(url: str) -> str:
    """Return `url` as psycopg and libpq read it: postgresql://…"""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)


def named(server_url: str, database: str) -> str:
    """Return the URL of another database on the same server."""
    return make_url(server_url).set(database=database).render_as_string(hide_password=False)


@contextmanager
def relay_login(server_url: str) -> Iterator[None]:
    """Make a login role that is a member of outbox_relay only, for the relays of the tests until the block ends."""
    name, password = f"outbox_test_{secrets.token_hex(6)}", secrets.token_hex(16)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create role {name} login password '{password}' in role outbox_relay")
    _relay_login.update(username=name, password=password)
    try:
        yield
    finally:
        _relay_login.clear()
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"drop role {name}")


def as_relay(url: str) -> str:
    """Return the URL for a relay: with the rights of outbox_relay, and with no others.

    A conninfo string (`host=… user=…`) is a test's own choice, and stays.
    """
    if "://" not in url:
        return url
    made = make_url(url)
    if _relay_login:
        return made.set(**_relay_login).render_as_string(hide_password=False)
    return made.update_query_dict({"options": "-crole=outbox_relay"}).render_as_string(hide_password=False)


@contextmanager
def engine_on(url: str) -> Iterator[sqlalchemy.Engine]:
    """Yield a SQLAlchemy engine on psycopg; dispose of it afterwards."""
    engine = sqlalchemy.create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        yield engine
    finally:
        engine.dispose()


def _strategy(connection: psycopg.Connection[Any]) -> str:
    """Copying files takes half of the time, unless each has to reach a disk."""
    (fsync,) = connection.execute("show fsync").fetchone() or ()
    return "FILE_COPY" if fsync == "off" else "WAL_LOG"


@contextmanager
def _administering(server_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield the connection that is kept to `server()`, which does not end under it; to another server a new one."""
    if server_url in _kept:
        yield _kept[server_url]
    else:
        with psycopg.connect(server_url, autocommit=True) as connection:
            yield connection


@contextmanager
def database(server_url: str, *, template: str = "template0") -> Iterator[str]:
    """Yield the URL of a fresh copy of `template`; drop it afterwards, whoever is still connected."""
    name = f"outbox_test_{secrets.token_hex(6)}"
    with _administering(server_url) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {_strategy(connection)} ENCODING 'UTF8'"
        )
    try:
        yield named(server_url, name)
    finally:
        with _administering(server_url) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def migrate(url: str) -> list[schema.Migration]:
    """Bring a database's outbox schema up to date; return what was missing."""
    with engine_on(url) as engine, engine.connect() as connection:
        return schema.migrate(connection)


def compact(url: str) -> None:
    """Leave no room free in the catalog: migrations write its rows anew, and each copy would carry that along."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum full")
    psycopg.connect(url).close()  # writes what each first connection to a copy would work out about the catalog


def migrate_to(url: str, version: int) -> None:
    """Make the schema as it was at this version, with its leaves."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"{schema.SCHEMA_SQL}{schema.VERSIONS_SQL}")
        for migration in schema.migrations():
            if migration.version <= version:
                connection.execute(f"set search_path = pg_catalog, pg_temp; {migration.sql}; {migration.record}")
        leaves = (Path(schema.__file__).parent / "migrations" / "leaves.sql").read_text(encoding="utf-8")
        for statement in leaves.splitlines():
            if all(name not in statement or version >= since for name, since in LEAVES_SINCE.items()):
                connection.execute(statement)
