"""Write events in a savepoint, so that the server's refusal costs the caller nothing.

An idempotency key is claimed inside the savepoint, by a constraint that otherwise waits for the commit: there its
refusal would roll the caller's rows back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy import Connection, text

from outbox.ids import text_id
from outbox.recording.insert import check, write
from outbox.recording.named_errors import name_errors
from outbox.recording.refusals import note_refusal
from outbox.recording.statements import Row

__all__ = ["CLAIM", "CLAIM_LATER", "attempt", "write_each_kind"]

CLAIM, CLAIM_LATER = "set constraints outbox.claim immediate", "set constraints outbox.claim deferred"


def attempt(connection: Connection, rows: Sequence[Row]) -> None:
    """Write the rows in a savepoint of a SQLAlchemy connection; after an error, none of them."""
    with name_errors:
        check(connection)
        with connection.begin_nested():
            write(connection, rows)
            if any(row.idempotency_key is not None for row in rows):
                connection.execute(text(CLAIM))
                connection.execute(text(CLAIM_LATER))


def write_each_kind(connection: Connection, rows: Sequence[Row], may_refuse: Sequence[bool]) -> list[bool]:
    """Write rows in their order, of which some may be refused without harm. Return for each whether it was written."""
    written: list[bool] = []
    for lenient, run in groupby(zip(rows, may_refuse, strict=True), itemgetter(1)):
        same = [row for row, _ in run]
        if lenient:
            written += _write_or_refuse(connection, same)
        else:
            write(connection, same)
            written += [True] * len(same)
    return written


def _write_or_refuse(connection: Connection, rows: Sequence[Row]) -> list[bool]:
    """Write the rows that can be, in savepoints; log and count the others. Return which were written.

    Where some are refused, halves of them are tried, so that one bad row among many costs few statements. A connection
    that is lost raises: nothing of the caller's transaction is left to save.
    """
    try:
        attempt(connection, rows)
    except Exception as error:
        if connection.closed or connection.invalidated:
            raise
        if len(rows) == 1:
            note_refusal(rows[0].type, text_id("evt", rows[0].id), error)
            return [False]
    else:
        return [True] * len(rows)
    middle = len(rows) // 2
    return _write_or_refuse(connection, rows[:middle]) + _write_or_refuse(connection, rows[middle:])
