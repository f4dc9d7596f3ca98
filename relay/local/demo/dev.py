"""What `relay dev` runs on: a directory, a server that keeps its port, a subscription while it runs."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from outbox import EVERY_TENANT, allow_endpoints, schema, subscriptions
from relay.config.database_url import RELAY_NAME, sqlalchemy_url_of
from relay.config.option import ConfigError
from relay.local import embedded
from relay.local.children import ChildError
from relay.local.demo.stage import relay_environment

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

__all__ = [
    "environment",
    "for_sqlalchemy",
    "make_directory",
    "migrate_and_subscribe",
    "start_server",
    "unsubscribe",
    "users_of",
]

_MARK = "relay dev, "
_TIMEOUT_SECONDS = 5
_SCHEDULE_SECONDS = (1, 5, 15, 60, 300)


def make_directory(directory: Path) -> None:
    """Make the directory, ignored by git. Raises ConfigError when it cannot be written."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / ".gitignore").write_text("*\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"--directory: cannot write {directory}: {error.strerror}; choose another") from None


def start_server(directory: Path) -> embedded.EmbeddedServer:
    """Start the embedded server, on the port of the last time where that is free. Raises ChildError."""
    kept = directory / "port"
    port = int(kept.read_text(encoding="ascii")) if kept.exists() else 0
    try:
        server = embedded.start(directory, port=port if _is_free(port) else None)
    except embedded.EmbeddedServerError as error:
        raise ChildError(f"{error}; or give --database-url") from None
    kept.write_text(str(server.port), encoding="ascii")
    return server


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port > 0


def environment(url: str) -> dict[str, str]:
    """Return our own environment, changed so that the relay finds this database and may call this machine."""
    own = relay_environment(url)
    networks = os.environ.get("RELAY_ALLOW_NETWORKS", "")
    own["RELAY_ALLOW_NETWORKS"] += f",{networks}" if networks else ""
    inherited = {key: value for key, value in os.environ.items() if key != "RELAY_DATABASE_URL_FILE"}
    return {**inherited, **own}


def for_sqlalchemy(url: str) -> str:
    """Return the address as an application gives it to create_engine(): SQLAlchemy 2.0 takes psycopg2 otherwise."""
    return "postgresql+psycopg://" + url.partition("://")[2]


def users_of(url: str) -> list[str]:
    """Return in words who else uses the database: subscriptions that a relay would send to for real, a relay."""
    with _connect(url) as connection:
        if connection.execute(text("select to_regclass('outbox.subscriptions') is null")).scalar_one():
            return []
        found = connection.execute(text(_USERS), {"ours": f"{_MARK}%", "relay_name": RELAY_NAME}).one()
    words = [f"{found.active} active subscriptions"] if found.active else []
    return words + (["a relay that runs"] if found.relays else [])


_USERS = """
select (select count(*) from outbox.subscriptions
        where paused_at is null and disabled_at is null and removed_at is null
          and description not like :ours) as active,
       (select count(*) from pg_catalog.pg_stat_activity
        where datname = current_database() and application_name = :relay_name) as relays
"""


def migrate_and_subscribe(url: str, endpoint: str, directory: Path) -> subscriptions.NewSubscription:
    """Bring the schema up to date, and subscribe the endpoint to every event."""
    with _connect(url) as connection:
        schema.migrate(connection)
        allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
        _remove_ours(connection, directory)
        subscription = subscriptions.add_for_every_tenant(
            connection,
            endpoint,
            ["*"],
            description=_description(directory),
            timeout_seconds=_TIMEOUT_SECONDS,
            schedule_seconds=_SCHEDULE_SECONDS,
        )
        connection.commit()
    return subscription


def unsubscribe(url: str, directory: Path) -> None:
    """Remove our subscription: nobody listens there any more, and another relay would go on sending to it."""
    with _connect(url) as connection:
        _remove_ours(connection, directory)
        connection.commit()


def _connect(url: str) -> Connection:
    return create_engine(sqlalchemy_url_of(url), poolclass=NullPool).connect()


def _remove_ours(connection: Connection, directory: Path) -> None:
    """Remove what a `relay dev` in this directory subscribed, one that was killed too."""
    for known in subscriptions.list(connection, tenant=EVERY_TENANT, limit=1000):
        if known.description == _description(directory):
            subscriptions.remove(connection, known.id, tenant=EVERY_TENANT)


def _description(directory: Path) -> str:
    return f"{_MARK}{socket.gethostname()}:{directory.resolve()}"
