"""Lock all that a migration changes before it begins, so that nobody waits for it in a circle.

Migrations change tables in their own order. Recording, sending and looking lock the same tables in orders of theirs, so
that two of them could each hold what the other wants. PostgreSQL ends one of the two, which may be a transaction of the
application. Nobody waits in a circle for who holds nothing yet: either all tables are had at once, or none.

So one table is waited for while none is held: until a transaction of the application has ended, and long enough for
PostgreSQL to end an autovacuum, which it does after deadlock_timeout. The others are given much less than that, all in
all: whoever waits for us looks for a circle after it. The one that was in use is the first of the next try. Whoever
records or sends waits behind us meanwhile, so a pause follows, in which all of them go on.

A transaction that locked something before (one of Alembic) may have others who wait for it from the beginning. As long
as somebody does, it waits for nobody, and takes only tables that are free.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = ["lock_tables", "script_to_lock", "tables_changed_by"]

PATIENCE_SECONDS = 5.0
PAUSE_SECONDS = (0.02, 0.1)  # between two tries, for those who waited for what the last one held
LONG_PAUSE_SECONDS = (0.3, 0.5)  # the same after a wait for one table, which stopped all who use it

# Of a function that is a text; a body that is none (begin atomic) changes no table.
_BODIES = re.compile(
    r"\bcreate\s+(?:or\s+replace\s+)?(?:function|procedure)\b(?:(?!begin\s+atomic).)*?\$(\w*)\$.*?\$\1\$",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES = re.compile(
    r"\b(?:alter\s+(?:table|view)(?:\s+if\s+exists)?(?:\s+only)?"
    r"|drop\s+(?:table|view)(?:\s+if\s+exists)?"
    r"|create\s+or\s+replace\s+view"
    r"|create\s+(?:unique\s+)?index\s+(?:\w+\s+)?on(?:\s+only)?"
    r"|create\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger\s[^;]*?\son"
    r"|drop\s+trigger\s[^;]*?\son"
    r"|references"
    r"|lock\s+table(?:\s+only)?)\s+outbox\.(\w+)",
    re.IGNORECASE,
)
_OF_ITS_OWN = {"schema_migrations"}  # locked already, in a mode that lets it be read
# Among them may be a table of somebody else's with a name that has to be quoted (runner.py: without_identity).
_THERE = """
select pg_catalog.format('outbox.%%I', name) from pg_catalog.unnest(%s::text[]) name
where pg_catalog.to_regclass(pg_catalog.format('outbox.%%I', name)) is not null"""
_WAS = "select pg_catalog.current_setting('lock_timeout')"
_RESTORE = "select pg_catalog.set_config('lock_timeout', %s, true)"
# Milliseconds for the first table, and for all others. A transaction that locked something before holds what others may
# wait for: it has the second alone.
_WAITS = """
select case when exists (
           select from pg_catalog.pg_locks where pid = pg_catalog.pg_backend_pid() and locktype = 'relation'
               and mode <> 'AccessShareLock' and relation <> 'outbox.schema_migrations'::pg_catalog.regclass)
       then others else first end, others
from (select least(5 * setting::integer / 4, 5000) as first, least(setting::integer / 4, 250) as others
      from pg_catalog.pg_settings where name = 'deadlock_timeout') bounds"""
# Whether somebody waits for what we hold. Whoever migrates too, and waits for the turn to do so, does not count.
_IS_WAITED_FOR = """
exists (select from pg_catalog.pg_locks
        where not granted and relation is distinct from 'outbox.schema_migrations'::pg_catalog.regclass
            and pg_catalog.pg_backend_pid() = any (pg_catalog.pg_blocking_pids(pid)))"""


def tables_changed_by(sql: str) -> set[str]:
    """Return the names of the tables and views of the schema that a migration locks against reading or writing.

    Some may be its own, or of a migration before. What a function that it makes would lock when called is left out.
    """
    return set(_CHANGES.findall(_BODIES.sub("", sql))) - _OF_ITS_OWN


def lock_tables(cursor: DBAPICursor, names: Iterable[str], is_in_use: Callable[[Exception], bool]) -> None:
    """Lock those of these tables that exist, all at once, until the transaction ends.

    Raises the server's error where a table is in use each time for PATIENCE_SECONDS.
    """
    cursor.execute(_THERE, (sorted(names),))
    tables = [name for (name,) in cursor.fetchall()]
    cursor.execute(_WAS)
    (was,) = cursor.fetchone() or ("0",)
    cursor.execute(_WAITS)
    first, others = cursor.fetchone() or (0, 0)
    give_up = time.monotonic() + PATIENCE_SECONDS
    cursor.execute("savepoint before_locks")
    while tables:
        held: list[str] = []
        try:
            cursor.execute(f"select {_IS_WAITED_FOR}")
            if (cursor.fetchone() or (True,))[0]:
                _lock_free(cursor, tables, held)
            else:
                _lock(cursor, tables, held, first / 1000, others / 1000)
            break
        except Exception as error:  # the driver's own
            cursor.execute("rollback to savepoint before_locks")
            if not is_in_use(error) or time.monotonic() > give_up:
                raise
            tables.insert(0, tables.pop(len(held)))
            time.sleep(random.uniform(*PAUSE_SECONDS if held else LONG_PAUSE_SECONDS))
    cursor.execute("release savepoint before_locks")
    cursor.execute(_RESTORE, (was,))


def _lock(cursor: DBAPICursor, tables: Sequence[str], held: list[str], first: float, others: float) -> None:
    """Lock each, the first one within so many seconds, and the others within so many together; note them as held."""
    end = time.monotonic() + first
    for table in tables:
        milliseconds = max(1, round((end - time.monotonic()) * 1000))  # none at all would be for ever
        cursor.execute(f"set local lock_timeout = {milliseconds}; lock table {table} in access exclusive mode")
        if not held:
            end = time.monotonic() + others
        held.append(table)


def _lock_free(cursor: DBAPICursor, tables: Sequence[str], held: list[str]) -> None:
    """Lock each table, and note it as held; the driver's error at the first one that is not free."""
    for table in tables:
        cursor.execute(f"lock table {table} in access exclusive mode nowait")
        held.append(table)


# As above, in a script: a block that ends with an error gives back what it locked.
_SCRIPT = """
do $$
declare
    former text := pg_catalog.current_setting('lock_timeout');
    most integer := (
        select least(setting::integer / 4, 250) from pg_catalog.pg_settings where name = 'deadlock_timeout');
    give_up timestamptz := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => {patience});
    waited_for boolean;
    until timestamptz;
    one regclass;
begin
    loop
        begin
            waited_for := {is_waited_for};
            until := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => most / 1000.0);
            for one in select c.oid from pg_catalog.pg_class c
                       where c.relnamespace = pg_catalog.to_regnamespace('outbox') and c.relkind in ('r', 'p', 'v')
                           and c.relname = any (array[{names}]) order by c.relname loop
                perform pg_catalog.set_config('lock_timeout', greatest(1, pg_catalog.round(1000 * extract(
                    epoch from until - pg_catalog.clock_timestamp())))::text, true);
                execute pg_catalog.format(
                    'lock table %s in access exclusive mode%s', one, case when waited_for then ' nowait' else '' end);
            end loop;
            exit;
        exception when lock_not_available or deadlock_detected then
            if pg_catalog.clock_timestamp() > give_up then
                raise exception using errcode = 'lock_not_available', message =
                    'a table of the schema outbox is in use by another transaction (pg_stat_activity lists it):'
                    ' run the script again when that has ended';
            end if;
        end;
        perform pg_catalog.pg_sleep(0.02 + 0.08 * pg_catalog.random());
    end loop;
    perform pg_catalog.set_config('lock_timeout', former, true);
end $$;
"""


def script_to_lock(names: Iterable[str]) -> str:
    """Return SQL that does as `lock_tables` does, for a transaction that may hold other locks; empty for no names."""
    listed = ", ".join(f"'{name}'" for name in sorted(names))
    if not listed:
        return ""
    return _SCRIPT.format(patience=PATIENCE_SECONDS, names=listed, is_waited_for=_IS_WAITED_FOR.strip())
