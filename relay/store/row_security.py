"""Row level security: no row of ours is hidden from us without an error.

Somebody may switch it on for a table of the schema outbox, and a policy may show us a part of its rows. Then a relay
would resolve events for nobody, housekeeping would clear a part of what is old, and `relay status` would say that all
is well. So all our transactions run with row_security off, under which the server refuses such a query and names the
table.

A policy that shows and takes each row hides nothing. Where each table with row level security has one, for whatever we
may do with it, row_security is on. That is asked anew in each transaction, as policies change.
"""

from __future__ import annotations

__all__ = ["ANY_POLICY", "FIND_POLICY", "HIDING", "SET_ROW_SECURITY", "SHOWS_ALL"]

SHOWS_ALL = """
coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'true') = 'true'
and coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), 'true') = 'true'"""
"""Whether the policy p shows, and takes, each row."""

_OF_US = """
p.polrelid = c.oid and p.polcmd in ('*', verb.cmd)
and (0 = any(p.polroles)
     or exists (select from unnest(p.polroles) r(oid) where r.oid <> 0 and pg_catalog.pg_has_role(r.oid, 'usage')))"""
_HIDES = f"""
from pg_catalog.pg_class c
where c.relnamespace = pg_catalog.to_regnamespace('outbox') and c.relkind in ('r', 'p') and c.relrowsecurity
  and pg_catalog.row_security_active(c.oid)
  and exists (
    select from (values ('r'::"char", 'select'), ('a', 'insert'), ('w', 'update'), ('d', 'delete')) verb(cmd, name)
    where case verb.name when 'delete' then pg_catalog.has_table_privilege(c.oid, verb.name)
                         else pg_catalog.has_any_column_privilege(c.oid, verb.name) end
      and (not exists (select from pg_catalog.pg_policy p where {_OF_US} and p.polpermissive and {SHOWS_ALL})
           or exists (select from pg_catalog.pg_policy p where {_OF_US} and not p.polpermissive
                      and not ({SHOWS_ALL}))))"""

HIDING = f"""select 'table "' || min(c.relname) || '"' {_HIDES}"""
"""Reads which table may hide rows from us, the first of them; null where none does."""

FIND_POLICY = """
exists (select from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid
        where c.relnamespace = pg_catalog.to_regnamespace('outbox') and pg_catalog.row_security_active(c.oid))"""
"""Whether a table of ours with row level security has a policy. Nearly always none has; then nothing more is asked."""

ANY_POLICY = "exists (select from pg_catalog.pg_policy)"
"""Whether the database has a policy at all, which is quicker to ask."""

SET_ROW_SECURITY = f"""
set_config('row_security', case when {FIND_POLICY} and not exists (select {_HIDES}) then 'on' else 'off' end, true)"""
"""The call that sets it for a transaction, to be selected in it."""
