"""What a command that fails prints: one line on stderr that names the mend, without a secret; and its exit code.

0 done · 1 not so, or failed · 2 usage, configuration or schema · 3 could not find out (database unreachable) · 4 a dry
run would change something (`subscription_file.py`).
"""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from typing import Any

from outbox.control.filters import FilterError
from outbox.errors import ActorError, ArgumentError, OutboxError, SchemaError, SubscriptionError
from relay.client.call import ApiError, ApiUnreachableError
from relay.config.option import ConfigError
from relay.operations.denied_rights import RightsError
from relay.telemetry.redaction import redact

__all__ = ["explain"]

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line for an error that a command raised."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    if isinstance(
        error, ActorError | ArgumentError | ConfigError | SchemaError | SubscriptionError | RightsError | FilterError
    ):
        return 2, str(error)
    if isinstance(error, ApiUnreachableError):
        return 3, redact(str(error))
    if isinstance(error, ApiError):
        return _code_of_status(error.status), str(error)
    if isinstance(error, OutboxError):
        return 1, str(error)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and not error.filename:
        return 1, f"output: {error.strerror}"
    import psycopg
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, DBAPIError):
        return _explain_database(error, error.orig)
    if isinstance(error, psycopg.Error):  # of a cursor of the driver's own, as of `relay migrate`
        return _explain_database(error, error)
    return _unexpected(error)


def _code_of_status(status: int) -> int:
    """Return 3 where the API could not find out, 2 where the call or its token was wrong, 1 where it is not so."""
    if status >= 500 or status == 429:
        return 3
    return 1 if status in (404, 409, 412) else 2


def _explain_database(error: BaseException, cause: Any) -> tuple[int, str]:
    """Return code and line for what the driver raised, `cause`; `error` is what came of it."""
    import psycopg

    from relay.store.postgres_errors import TOO_LONG, mend_of

    state = getattr(cause, "sqlstate", None) or ""
    mend = mend_of(cause)
    reason = redact(str(cause).strip().splitlines()[0]) if str(cause).strip() else "no reason given"
    if state in TOO_LONG:
        return 1, f"database: took too long ({reason}); narrow it with --since, --subscription or --limit"
    if state == "25P03" or (
        isinstance(cause, psycopg.OperationalError) and (state in ("", "53300") or state[:2] in ("08", "57"))
    ):
        return 3, "; ".join(filter(None, (f"database: unreachable: {redact(_last_reason(str(cause)))}", mend)))
    if state in ("42P01", "3F000", "42883", "42703"):
        return 2, f"schema: {reason}; {mend}"
    if state == "25006":
        return 1, f"database: {reason}; it is read-only, a standby perhaps: give the primary's URL"
    if state[:2] in ("53", "55", "40"):
        return 1, f"database: {reason}; {mend or 'try again'}"
    return _unexpected(error)


def _last_reason(message: str) -> str:
    """Return the most telling line of libpq's answer, which repeats itself for each address tried."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "failed" in line or "error" in line), lines[-1])


def _unexpected(error: BaseException) -> tuple[int, str]:
    report = redact("".join(traceback.format_exception(error)))
    name = type(error).__name__
    try:
        handle, path = tempfile.mkstemp(prefix="relay-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(report)
    except OSError as unwritable:
        return 1, f"unexpected: {name}; no traceback could be written: {unwritable.strerror}"
    return 1, f"unexpected: {name}; the traceback is in {path}"
