"""Whether the disk of the database's server is full: what it writes now, and what housekeeping could not write."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox.control.findings import Finding
from outbox.control.tenancy import operator_only
from relay.store.postgres_errors import one_line, sqlstate_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from relay.operations.status.running import FailingRound

__all__ = ["findings_of_disk", "full_disk", "is_full", "is_of_disk"]

_FULL = "53100"
_NO_MORE_FILES = "53400"  # temp_file_limit: the server may not, so nothing is learnt
_NAME = "DiskFull:"

# What does not fit into work_mem, the server writes to a temporary file: no right is needed, nothing is left behind,
# and a standby does it too. set_config comes first, since a lateral function begins when its row is there.
WRITE = text("""
select count(*) from (select set_config('work_mem', '64kB', true), set_config('temp_tablespaces', '', true) offset 0) s
cross join lateral generate_series(1, 8000 + 0 * length(s::text)) written
""")


def full_disk(connection: Connection, tenant: str | None) -> str | None:
    """Let the server write a few hundred kilobytes, and return its error where its disk is full; None where it is not.

    The settings and the error end with a savepoint: the transaction goes on as it was. For the operator only.
    """
    operator_only(tenant, "status")
    alone = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"  # no savepoint, none is needed
    savepoint = None if alone else connection.begin_nested()
    try:
        with savepoint or nullcontext():
            connection.execute(WRITE)
            if savepoint:
                savepoint.rollback()
    except OperationalError as error:
        state = sqlstate_of(error.orig) if error.orig else None
        if error.orig is None or state not in (_FULL, _NO_MORE_FILES):
            raise
        return one_line(error.orig) if state == _FULL else None
    return None


def is_of_disk(found: FailingRound) -> bool:
    """Tell whether a round failed since the disk is full: that is said once, by the finding of the disk."""
    return found.error.startswith(_NAME)


def is_full(now: str | None, rounds: Iterable[FailingRound]) -> bool:
    """Tell whether the disk is full, or was when a round failed a moment ago."""
    return now is not None or any(map(is_of_disk, rounds))


def findings_of_disk(now: str | None, rounds: Iterable[FailingRound]) -> Iterator[Finding]:
    """Yield that the disk is full, by the error that the server gives now, or that a round got a moment ago."""
    failed = [one for one in rounds if is_of_disk(one)]
    if now is None and not failed:
        return
    is_or_was = "is" if now else "was a moment ago"
    said = (now or failed[0].error).removeprefix(_NAME).strip()
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    rest = f"; housekeeping: '{failed[0].name}'{more} cannot be done" if failed else ""
    yield Finding(
        code="disk.full",
        subject="server",
        seen=f"the disk of the database's server {is_or_was} full: {said}{rest}",
        mend="free space on the server's disk, such as old logs, or WAL that a replication slot keeps"
        " (pg_replication_slots); relays go on by themselves",
    )
