"""The database that operations are asked of: connections opened when they are needed, the schema checked once."""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event

from outbox import act_as
from outbox.schema.runner import require_current
from relay.operations.denied_rights import name_denied_rights
from relay.store.nearest_time import NearestTime
from relay.store.row_security import ANY_POLICY, SET_ROW_SECURITY
from relay.store.turns import COMMAND, LIMITS, SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Dialect

    from relay.config.options import Config

__all__ = ["SCHEMA_SECONDS", "Database", "begin", "make_engine"]

SCHEMA_SECONDS = 5.0
"""How long what runs for long relies on a check of the schema."""

# The driver reads no other style of date or interval, and seconds would be rounded. It reads no year 10000, which the
# last day of 9999 is in a time zone east of UTC. jit is off since compiling a plan takes longer than a bounded
# statement runs. A command that is stopped in the middle (Ctrl-Z) keeps what it has locked for a bounded time. All of
# it is of the transaction alone: for the session it would be for others too, through a pooler.
_SETTINGS = (
    "select set_config('datestyle', 'ISO', true), set_config('timezone', 'UTC', true), set_config('jit', 'off', true),"
    " set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true),"
    f" {LIMITS}, set_config('row_security', 'off', true), {ANY_POLICY} as has_policy"
)
# Of a connection that is kept for others: nobody holds it for longer, and nobody waits for a lock for longer.
_BOUNDS = ", set_config('statement_timeout', '30s', true), set_config('lock_timeout', '10s', true)"


def make_engine(config: Config, *, kept: int = 0) -> Engine:
    """Return an engine that opens a connection when asked, at READ COMMITTED, also through PgBouncer.

    The server ends each of its transactions that waits for this process for too long; relay/store/turns.py says how.
    Where row level security hides rows of a table from us, the server refuses to read it.
    For a server, up to `kept` connections stay open, each for half an hour at most; whoever finds none free waits for
    ten seconds. A time that Python has no datetime for (infinity, before Christ, year 10000) is read as the nearest
    one that it has.
    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if kept:
        pool = {"pool_size": kept, "max_overflow": 0, "pool_timeout": 10, "pool_pre_ping": True, "pool_recycle": 1800}
    engine = create_engine(
        config.sqlalchemy_url(fallback_application_name=COMMAND),
        **pool,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        connect_args={"prepare_threshold": None},
    )
    event.listen(engine, "connect", _prepare)
    settings = _SETTINGS + (_BOUNDS if kept else "")

    @event.listens_for(engine, "begin")
    def begin_with(connection: Connection) -> None:
        if connection.exec_driver_sql(settings).one().has_policy:
            connection.exec_driver_sql(f"select {SET_ROW_SECURITY}")

    @event.listens_for(engine, "do_connect")
    def read_the_address_again(dialect: Dialect, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
        parameters.update(dialect.create_connect_args(config.sqlalchemy_url(fallback_application_name=COMMAND))[1])

    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.adapters.register_loader("timestamptz", NearestTime)
    connection.autocommit = True
    connection.execute(SESSION)
    connection.autocommit = False


class Database:
    """Connections to one database. The first is checked against the schema, and in servers one from time to time."""

    def __init__(
        self, config: Config, actor: str | None = None, *, kept: int = 0, check_again_seconds: float = float("inf")
    ) -> None:
        """Keep what a connection needs; the first transaction opens one.

        Args:
            config: the relay's; it names the database.
            actor: who changes what is changed; None where nothing is.
            kept: how many connections may be open at once, and stay so; 0 opens each anew.
            check_again_seconds: how long a check of the schema holds, for what outlives a migration.
        """
        self.config = config
        self.actor = actor
        self._kept = kept
        self._check_again_seconds = check_again_seconds
        self._check_at = 0.0

    @contextmanager
    def transaction(self, actor: str | None = None) -> Iterator[Connection]:
        """Yield a connection in a transaction, and commit it. An `actor` named here goes before the database's.

        Raises:
            SchemaError: the schema does not fit.
            RightsError: the server denied a right.
        """
        with self._engine.begin() as connection:
            self._check(connection)
            named = self.actor if actor is None else actor
            if named is not None:
                act_as(connection, named)
            with name_denied_rights(connection):
                yield connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection without a transaction, for work in several. Raises as `transaction` does."""
        with self._engine.connect() as connection:
            self._check(connection)
            connection.rollback()
            with name_denied_rights(connection):
                yield connection

    def close(self) -> None:
        """Close the connections that are kept and not in use."""
        self._engine.dispose()

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(self.config, kept=self._kept)

    def _check(self, connection: Connection) -> None:
        if time.monotonic() >= self._check_at:
            require_current(connection)
            self._check_at = time.monotonic() + self._check_again_seconds


@contextmanager
def begin(connection: Connection, actor: str | None) -> Iterator[None]:
    """Begin a transaction by this actor on a connection without one, and commit it."""
    with connection.begin():
        if actor is not None:
            act_as(connection, actor)
        yield
