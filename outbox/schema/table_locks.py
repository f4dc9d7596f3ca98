"""Lock all that a migration changes before it begins, so that nobody waits for it in a circle.

Migrations change tables in their own order. Recording, sending and looking lock the same tables in orders of theirs, so
that two of them could each hold what the other wants. PostgreSQL ends one of the two, which may be a transaction of the
application. Nobody waits in a circle for who holds nothing yet: either all tables are had at once, or none.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable

from sqlalchemy.engine.interfaces import DBAPICursor

__all__ = ["lock_tables", "tables_changed_by"]

PATIENCE_SECONDS = 5.0
# Much less than PostgreSQL's deadlock_timeout, a second by default, in which whoever waits for us looks for a circle.
WAIT_MILLISECONDS = 50
PAUSE_SECONDS = (0.02, 0.1)  # between two tries, for those who waited for what the last one held

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
_THERE = """
select pg_catalog.to_regclass('outbox.' || name) is not null, name from pg_catalog.unnest(%s::text[]) name"""
_WAS = "select pg_catalog.current_setting('lock_timeout')"
_RESTORE = "select pg_catalog.set_config('lock_timeout', %s, true)"


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
    there = [f"outbox.{name}" for exists, name in cursor.fetchall() if exists]
    if not there:
        return
    cursor.execute(_WAS)
    (was,) = cursor.fetchone() or ("0",)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        cursor.execute("savepoint before_locks")
        cursor.execute(f"set local lock_timeout = {WAIT_MILLISECONDS}")
        try:
            cursor.execute(f"lock table {', '.join(there)} in access exclusive mode")
            break
        except Exception as error:  # the driver's own
            cursor.execute("rollback to savepoint before_locks")
            if not is_in_use(error) or time.monotonic() > give_up:
                raise
            time.sleep(random.uniform(*PAUSE_SECONDS))
    cursor.execute("release savepoint before_locks")
    cursor.execute(_RESTORE, (was,))
