"""A short connection for one command: the schema checked, one transaction, nothing kept open."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from outbox import act_as
from outbox.schema.runner import require_current
from relay.operations.rights import denied_rights_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.config.options import Config

__all__ = ["begun", "checked_connection", "make_engine", "transaction"]

# The driver reads dates of no other style, and no year 10000, which the last days of 9999 are east of UTC. Compiling a
# plan takes longer than a bounded statement runs.
_SETTINGS = text(
    "select set_config('datestyle', 'ISO', true), set_config('timezone', 'UTC', true), set_config('jit', 'off', true)"
)


def make_engine(config: Config) -> Engine:
    """Return an engine that opens a connection when asked, at READ COMMITTED, also through PgBouncer."""
    return create_engine(
        config.sqlalchemy_url(fallback_application_name="relay command"),
        poolclass=NullPool,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        connect_args={"prepare_threshold": None},
    )


@contextmanager
def transaction(config: Config, actor: str | None = None) -> Iterator[Connection]:
    """Yield a connection in a transaction by this actor, and commit it.

    Raises SchemaError when the schema does not fit.
    """
    with make_engine(config).begin() as connection:
        require_current(connection)
        connection.execute(_SETTINGS)
        if actor is not None:
            act_as(connection, actor)
        with denied_rights_named(connection):
            yield connection


@contextmanager
def begun(connection: Connection, actor: str | None) -> Iterator[None]:
    """Begin a transaction by this actor on a connection without one, and commit it."""
    with connection.begin():
        if actor is not None:
            act_as(connection, actor)
        yield


@contextmanager
def checked_connection(config: Config) -> Iterator[Connection]:
    """Yield a connection without a transaction, for work in several. Raises SchemaError as `transaction` does."""
    with make_engine(config).connect() as connection:
        require_current(connection)
        connection.rollback()
        with denied_rights_named(connection):
            yield connection
