"""Delete by age what is done. Nothing undelivered is ever deleted here, however old, and no dead letter.

The rules stand in the database's own functions (migrations/0003_partitions.sql); this calls them, in short transactions
of their own. That attempts and resolutions are kept at least as long as events is checked by `relay.config.options`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from relay.operations import audit
from relay.operations.connection import begin
from relay.operations.tenancy import operator_only

if TYPE_CHECKING:
    from sqlalchemy import Connection, TextClause

__all__ = ["BATCH_ROWS", "Pruned", "count_prunable", "prune"]

BATCH_ROWS = 5_000
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_LOCK_NOT_AVAILABLE = "55P03"

_RETIRE_EVENTS = text(
    "select leaf, gone from outbox.retire_event_leaf(clock_timestamp() - make_interval(days => :days))"
)
_PRUNE_EVENTS = text(
    "select reached, gone from outbox.prune_events(clock_timestamp() - make_interval(days => :days), :after, :batch)"
)
_RETIRE_ATTEMPTS = text(
    "select leaf, gone from outbox.retire_attempt_leaf(clock_timestamp() - make_interval(days => :days))"
)
_PRUNE_ATTEMPTS = text("select outbox.prune_attempts(clock_timestamp() - make_interval(days => :days), :batch)")
_PRUNE_RESOLUTIONS = text("select outbox.prune_resolutions(clock_timestamp() - make_interval(days => :days), :batch)")
_COUNT = text("""
with old as materialized (
    select seq from outbox.events e where recorded_at < clock_timestamp() - make_interval(days => :events_days)
        and not exists (select from outbox.pending where event_seq = e.seq)
        and not exists (select from outbox.deliveries where event_seq = e.seq)),
kept as materialized (select seq from outbox.events where seq not in (select seq from old))
select (select count(*) from old) as events,
       (select count(*) from outbox.attempts
        where at < clock_timestamp() - make_interval(days => :attempts_days)
          and (event_seq in (select seq from kept)) is not true) as attempts,
       (select count(*) from outbox.resolutions
        where at < clock_timestamp() - make_interval(days => :resolutions_days)
          and not exists (select from kept where seq = any(seqs))) as resolutions
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows of each kind went, or would go."""

    events: int
    attempts: int
    resolutions: int


def prune(
    connection: Connection,
    tenant: str | None,
    *,
    events_days: int,
    attempts_days: int,
    resolutions_days: int,
    batch_rows: int = BATCH_ROWS,
    actor: str | None = None,
) -> Pruned:
    """Delete what is done and older than so many days, and return how many rows of each kind went.

    The connection has no transaction open and is left so: every batch is committed by itself. The audit
    notes at the end what went, by whom, also when it did not end well. It is for the operator only.

    Raises:
        NotFoundError: a tenant asks for it.
        sqlalchemy.exc.OperationalError: somebody held a lock for longer than 5 s; what went so far is gone for good.
    """
    operator_only(tenant, "prune")
    days = {"events_days": events_days, "attempts_days": attempts_days, "resolutions_days": resolutions_days}
    batches = _Batches(connection, batch_rows)
    try:
        batches.leaves("events", _RETIRE_EVENTS, events_days)
        batches.events(events_days)
        batches.leaves("attempts", _RETIRE_ATTEMPTS, attempts_days)
        batches.rows("attempts", _PRUNE_ATTEMPTS, attempts_days)
        batches.rows("resolutions", _PRUNE_RESOLUTIONS, resolutions_days)
    except BaseException:
        with suppress(DBAPIError):  # the first error is the one to tell
            _note(connection, batches.gone, days, actor)
        raise
    _note(connection, batches.gone, days, actor)
    return Pruned(**batches.gone)


def _note(connection: Connection, gone: dict[str, int], days: dict[str, int], actor: str | None) -> None:
    with begin(connection, actor):
        audit.note(connection, "pruned", count=sum(gone.values()), more=gone | days)


def count_prunable(
    connection: Connection, tenant: str | None, *, events_days: int, attempts_days: int, resolutions_days: int
) -> Pruned:
    """Return what `prune` would delete now, and delete nothing. Reads every event and attempt. Operator only."""
    operator_only(tenant, "prune")
    days = {"events_days": events_days, "attempts_days": attempts_days, "resolutions_days": resolutions_days}
    return Pruned(**connection.execute(_COUNT, days).mappings().one())


class _Batches:
    """Runs one statement again and again, a transaction each, until nothing is left for it; counts in `gone`."""

    def __init__(self, connection: Connection, batch_rows: int) -> None:
        self._connection = connection
        self._batch_rows = batch_rows
        self.gone = {kind.name: 0 for kind in fields(Pruned)}

    def leaves(self, kind: str, statement: TextClause, days: int) -> None:
        """Empty whole leaves until none is left, or one is in use; its rows are then deleted in batches."""
        try:
            while (row := self._run(statement, days=days)).leaf is not None:
                self.gone[kind] += row.gone
        except OperationalError as error:
            if not _is_lock_timeout(error):
                raise

    def events(self, days: int) -> None:
        """Walk the events from the oldest until a batch is all young."""
        reached: int | None = 0
        while reached is not None:
            reached, deleted = self._run(_PRUNE_EVENTS, days=days, after=reached, batch=self._batch_rows)
            self.gone["events"] += deleted

    def rows(self, kind: str, statement: TextClause, days: int) -> None:
        """Delete batches until one is not full."""
        deleted = self._batch_rows
        while deleted >= self._batch_rows:
            (deleted,) = self._run(statement, days=days, batch=self._batch_rows)
            self.gone[kind] += deleted

    def _run(self, statement: TextClause, **parameters: int | None) -> Any:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self._connection.begin():
                    return self._connection.execute(statement, parameters).one()
            except OperationalError as error:
                if not _is_lock_timeout(error) or time.monotonic() > give_up:
                    raise
            time.sleep(_PAUSE_SECONDS)


def _is_lock_timeout(error: OperationalError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE
