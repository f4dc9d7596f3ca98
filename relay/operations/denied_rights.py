"""What to say when PostgreSQL denies a right: the GRANT that is missing."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from outbox._row_security import is_row_security, mend_row_security
from outbox.control.findings import Finding
from outbox.errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["RightsError", "missing_grant", "name_denied_rights"]

_INSUFFICIENT_PRIVILEGE = "42501"
_DENIED = re.compile(r"permission denied for (\w+)(?: \w+)*? (\w+)\s*$")
_VERBS = (("insert into", "insert"), ("update", "update"), ("delete from", "delete"))


class RightsError(OutboxError):
    """The database denied a right; `finding` and the message have the GRANT."""

    def __init__(self, seen: str, mend: str) -> None:
        super().__init__(f"database: {seen}; {mend}")
        self.finding = Finding(code="rights.denied", subject="database", seen=seen, mend=mend)


@contextmanager
def name_denied_rights(connection: Connection) -> Iterator[None]:
    """Turn the server's "permission denied", and its refusal where rows are hidden, into a RightsError."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        reason = str(error.orig).strip().splitlines()[0]
        role = connection.engine.url.username or "the relay's role"
        if is_row_security(error.orig):
            raise RightsError(reason, mend_row_security(reason, role)) from error
        raise RightsError(reason, missing_grant(reason, error.statement or "", role)) from error


def missing_grant(reason: str, statement: str, role: str) -> str:
    """Return the GRANT that is missing, as far as the server's message and the statement tell."""
    match = _DENIED.search(reason)
    if not match:
        return "run it as the owner of the schema outbox"
    kind, name = match.groups()
    right = {"schema": f"usage on schema {name}", "sequence": f"usage on sequence outbox.{name}",
             "function": f"execute on function outbox.{name}"}.get(kind)  # fmt: skip
    if right is None:
        lowered = statement.lower()
        verbs = [verb for words, verb in _VERBS if re.search(rf"\b{words}\s+outbox\.{name}\b", lowered)]
        right = f"{', '.join(['select', *verbs])} on outbox.{name}"
    return f"grant {right} to {role} (or make it a member: grant outbox_operator to {role})"
