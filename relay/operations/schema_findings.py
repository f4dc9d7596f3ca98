"""What the database finds in its own schema: collations, rights, sequences, replica identities, orphaned deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.findings import Finding
from outbox.control.tenancy import operator_only
from outbox.schema.settings import printed_alike

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["find_in_schema"]

_FINDINGS = text("select code, subject, seen, mend from outbox.findings() order by code, subject, seen")


def find_in_schema(connection: Connection, tenant: str | None) -> tuple[Finding, ...]:
    """Return what is not as it should be, as `relay migrate --check` names it too. Operator only.

    It reads no large table whole.
    """
    operator_only(tenant, "status")
    with printed_alike(connection):
        return tuple(Finding(**row) for row in connection.execute(_FINDINGS).mappings())
