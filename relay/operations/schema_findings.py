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

# It asks about every role, not about the one that reads the status: a superuser sees rows that relays do not see.
_HIDING = text(f"""
select 'outbox.' || c.relname as subject from pg_catalog.pg_class c
where c.relnamespace = pg_catalog.to_regnamespace('outbox') and c.relkind in ('r', 'p') and c.relrowsecurity
  and not exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid and p.polpermissive and p.polcmd = '*'
                  and {SHOWS_ALL})
order by 1
""")  # noqa: S608 - the parts are constants

_FINDINGS = text("select code, subject, seen, mend from outbox.findings() order by code, subject, seen")

# With it no trigger runs: what is recorded then is not pending, and nobody sends it.
_WITHOUT_TRIGGERS = text("""
select case when s.setrole = 0 then 'database ' || pg_catalog.quote_ident(pg_catalog.current_database())
            else 'role ' || pg_catalog.quote_ident(r.rolname)
                 || case when s.setdatabase = 0 then ''
                         else ' in database ' || pg_catalog.quote_ident(pg_catalog.current_database()) end end
from pg_catalog.pg_db_role_setting s left join pg_catalog.pg_roles r on r.oid = s.setrole
where s.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
  and exists (select from unnest(s.setconfig) one where one = 'session_replication_role=replica')
order by 1
""")


def find_in_schema(connection: Connection, tenant: str | None) -> tuple[Finding, ...]:
    """Return what is not as it should be, as `relay migrate --check` names it too. Operator only.

    It reads no large table whole.
    """
    operator_only(tenant, "status")
    with printed_alike(connection):
        found = [Finding(**row) for row in connection.execute(_FINDINGS).mappings()]
        found += map(_hiding, connection.execute(_HIDING).scalars())
        return (*found, *map(_without_triggers, connection.execute(_WITHOUT_TRIGGERS).scalars()))


def _hiding(table: str) -> Finding:
    seen = f"row level security is on for {table}: who may not see each row there is refused, relays too"
    mend = f"alter table {table} disable row level security"
    return Finding(code="rows.hidden", subject=table, seen=seen, mend=mend)


def _without_triggers(whose: str) -> Finding:
    seen = f"session_replication_role is replica for {whose}: no trigger runs, and what it records is not sent"
    mend = f"alter {whose} reset session_replication_role; then relay reconcile prints the SQL that sends it"
    return Finding(code="settings.triggers", subject=whose, seen=seen, mend=mend)
