"""What is found in the schema itself: collations, rights, sequences, replica identities, orphans, hidden rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.findings import Finding
from outbox.control.tenancy import operator_only
from outbox.schema.settings import printed_alike
from relay.store.row_security import SHOWS_ALL

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["find_in_schema"]

# Whoever reads a status may see each row, as a superuser does, where relays and applications do not.
_HIDING = text(f"""
select 'outbox.' || c.relname as subject from pg_catalog.pg_class c
where c.relnamespace = pg_catalog.to_regnamespace('outbox') and c.relkind in ('r', 'p') and c.relrowsecurity
  and not exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid and p.polpermissive and p.polcmd = '*'
                  and {SHOWS_ALL})
order by 1
""")  # noqa: S608 - the parts are constants

_FINDINGS = text("select code, subject, seen, mend from outbox.findings() order by code, subject, seen")


def find_in_schema(connection: Connection, tenant: str | None) -> tuple[Finding, ...]:
    """Return what is not as it should be, as `relay migrate --check` names it too. Operator only.

    It reads no large table whole.
    """
    operator_only(tenant, "status")
    with printed_alike(connection):
        found = [Finding(**row) for row in connection.execute(_FINDINGS).mappings()]
        return (*found, *(_hiding(table) for table in connection.execute(_HIDING).scalars()))


def _hiding(table: str) -> Finding:
    seen = f"row level security is on for {table}: who may not see each row there is refused, relays too"
    mend = f"alter table {table} disable row level security"
    return Finding(code="rows.hidden", subject=table, seen=seen, mend=mend)
