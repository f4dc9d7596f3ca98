"""Name the few errors of the server that a user can mend, and redact the payload from every other one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import InvalidRequestError, StatementError

from outbox._row_security import is_row_security, mend_row_security
from outbox.errors import OutboxError, PayloadTooLarge, RecordError, SchemaError, TransactionError

__all__ = ["ABORTED", "READ_ONLY", "name_errors"]

READ_ONLY = "the transaction is read-only: record the event in one that can write"
ABORTED = "the transaction has failed and takes no more commands: roll it back first"


class _NameErrors:
    """Raises an error of ours for the few causes that a user can fix. Every other error passes, without the payload."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, InvalidRequestError):
            raise TransactionError(f"no transaction can carry the event: {error}") from error
        if isinstance(error, Exception):
            _redact_payload(error)
            cause = getattr(error, "orig", None) or _below_django(error)
            if isinstance(cause, UnicodeEncodeError):  # it holds the payload, so it must not be the cause
                raise RecordError(f"the connection's encoding, {cause.encoding}, lacks a character: use UTF8") from None
            if (ours := _our_error(cause)) is not None:
                raise ours from cause


def _below_django(error: BaseException) -> BaseException:
    """Return the driver's error that Django's own error was raised from; any other error as it is."""
    return error.__cause__ or error if type(error).__module__ == "django.db.utils" else error


name_errors = _NameErrors()  # a context manager made from a generator takes three times as long


def _redact_payload(error: BaseException) -> None:
    """Redact what prints the payload in an error and its causes: the parameters, and PostgreSQL's "Failing row"."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    details = [detail for link in chain if (detail := _detail(link))]
    for link in chain:
        if isinstance(link, StatementError):
            link.hide_parameters = True
        if getattr(link, "detail", None):
            link.detail = None  # type: ignore[attr-defined] # asyncpg's
        link.args = tuple(_redact(details, part) for part in link.args)


def _detail(error: BaseException) -> str | None:
    """Return the server's DETAIL from an error of psycopg, psycopg2 or asyncpg."""
    return getattr(getattr(error, "diag", None), "message_detail", None) or getattr(error, "detail", None)


def _redact(details: Sequence[str], part: Any) -> Any:
    for detail in details:
        part = part.replace(detail, "(redacted)") if isinstance(part, str) else part
    return part


def _constraint(error: BaseException) -> str | None:
    """Return the constraint that was broken, from an error of psycopg, psycopg2 or asyncpg."""
    return getattr(getattr(error, "diag", None), "constraint_name", None) or getattr(error, "constraint_name", None)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _our_error(error: BaseException) -> OutboxError | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state in ("42P01", "3F000", "42703"):
        return SchemaError("the outbox schema is missing or old in this database: run `relay migrate`")
    if state == "23514" and _constraint(error) == "payload_is_not_too_large":
        return PayloadTooLarge(
            "data: the database takes no payload of this size, though this Outbox's max_payload_bytes allows it;"
            " raise the database's own bound, which holds for SQL too: update outbox.settings set value = …"
            " where name = 'max_payload_bytes'"
        )
    if is_row_security(error):
        return SchemaError(f"the database takes no event: {_first_line(error)}: {mend_row_security(error)}")
    if state == "25006":
        return TransactionError(READ_ONLY)
    if state == "25P02":
        return TransactionError(ABORTED)
    return None
