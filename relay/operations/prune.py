"""Delete by age what is done. Nothing undelivered is ever deleted here, however old; dead letters only where asked for.

The steps are those of housekeeping (relay/store/retention.py), each call a short transaction of its own; the rules
stand in the database's own functions, bounded by 0009_bounds.sql. That attempts and resolutions are kept at least as
long as events is checked by `relay.config.options`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from outbox.control import audit
from outbox.control.tenancy import operator_only
from outbox.errors import OutboxError
from relay.operations.connection import begin
from relay.store.postgres_errors import is_locked
from relay.store.retention import RETENTION

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.store.retention import RetentionStep

__all__ = ["BATCH_ROWS", "Pruned", "RetentionError", "count_prunable", "prune"]

BATCH_ROWS = 5_000
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.2

# The owner of the schema, who may delete anything, is not bound: outbox.retention_bound() in the database.
_LEAST_DAYS = text(
    "select value from outbox.settings where name = 'least_retention_days'"
    " and outbox.retention_bound('infinity') < 'infinity'"
)
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
          and not exists (select from kept where seq = any(seqs))) as resolutions,
       (select count(*) from outbox.dead_letters
        where :dead_letters_days > 0
          and died_at < clock_timestamp() - make_interval(days => :dead_letters_days)) as dead_letters,
       (select count(*) from outbox.audit
        where :audit_days > 0 and at < clock_timestamp() - make_interval(days => greatest(:audit_days, 30))) as audit
""")


class RetentionError(OutboxError):
    """Younger rows were asked for than the database lets this login delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows of each kind went, or would go."""

    events: int
    attempts: int
    resolutions: int
    dead_letters: int = 0
    audit: int = 0


def prune(
    connection: Connection,
    tenant: str | None,
    *,
    events_days: int,
    attempts_days: int,
    resolutions_days: int,
    dead_letters_days: int = 0,
    audit_days: int = 0,
    batch_rows: int = BATCH_ROWS,
    actor: str | None = None,
) -> Pruned:
    """Delete what is done and older than so many days, and return how many rows of each kind went.

    With 0 days dead letters and the audit are kept.

    The connection has no transaction open and is left so: every batch is committed by itself. The audit
    notes at the end what went, by whom, also when it did not end well. It is for the operator only.

    Raises:
        NotFoundError: a tenant asks for it.
        RetentionError: the database keeps everything for longer; nothing was deleted.
        sqlalchemy.exc.OperationalError: somebody held a lock for longer than 5 s; what went so far is gone for good.
    """
    operator_only(tenant, "prune")
    days = {
        "events_days": events_days, "attempts_days": attempts_days, "resolutions_days": resolutions_days,
        "dead_letters_days": dead_letters_days, "audit_days": audit_days,
    }  # fmt: skip
    with connection.begin():
        _require_kept(connection, days)
    batches = _Batches(connection, batch_rows)
    try:
        for step in RETENTION:
            batches.repeat(step, days[f"{step.kind}_days"])
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
    connection: Connection,
    tenant: str | None,
    *,
    events_days: int,
    attempts_days: int,
    resolutions_days: int,
    dead_letters_days: int = 0,
    audit_days: int = 0,
) -> Pruned:
    """Return what `prune` would delete now, and delete nothing. Reads every event and attempt. Operator only."""
    operator_only(tenant, "prune")
    days = {
        "events_days": events_days, "attempts_days": attempts_days, "resolutions_days": resolutions_days,
        "dead_letters_days": dead_letters_days, "audit_days": audit_days,
    }  # fmt: skip
    _require_kept(connection, days)
    return Pruned(**connection.execute(_COUNT, days).mappings().one())


def _require_kept(connection: Connection, days: dict[str, int]) -> None:
    least = connection.execute(_LEAST_DAYS).scalar()
    for name, given in days.items():
        if least is not None and 0 < given < least:
            raise RetentionError(
                f"{name.removesuffix('_days')}_retention_days: {given} is less than the {least} days for which the"
                " database keeps everything; keep as long, or change least_retention_days in outbox.settings"
            )


class _Batches:
    """Runs one statement again and again, a transaction each, until nothing is left for it; counts in `gone`."""

    def __init__(self, connection: Connection, batch_rows: int) -> None:
        self._connection = connection
        self._batch_rows = batch_rows
        self.gone = {kind.name: 0 for kind in fields(Pruned)}

    def repeat(self, step: RetentionStep, days: int) -> None:
        """Repeat a step to its end, or up to a leaf that is in use: its rows are then deleted in batches."""
        after: int | None = 0
        try:
            while after is not None:
                after, deleted = self._run(step.statement, {"days": days, "after": after, "batch": self._batch_rows})
                self.gone[step.kind] += deleted
        except OperationalError as error:
            if step.unit == "rows" or not (error.orig and is_locked(error.orig)):
                raise

    def _run(self, statement: str, parameters: dict[str, int]) -> Any:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self._connection.begin():
                    return self._connection.exec_driver_sql(statement, parameters).one()
            except OperationalError as error:
                if not (error.orig and is_locked(error.orig)) or time.monotonic() > give_up:
                    raise
            time.sleep(_PAUSE_SECONDS)
