"""Write outbox/schema/functions.txt anew after a change of the schema: python -m tests.support.functions

The list says in which file the newest definition of each function stands. What it says is seen, not read: the
migrations are applied one after the other, and after each the server is asked for the definitions. So it also knows the
functions that a migration changes without writing them out, such as those to which one adds a line by `execute`.
"""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from outbox.schema import runner as schema
from outbox.schema.settings import ALIKE
from tests.support import databases

FUNCTIONS = Path(schema.__file__).parent / "functions.txt"
HEAD = """\
# Where each function of the schema outbox has its newest definition, in migrations/.
# Made by `python -m tests.support.functions`, never by hand. "of": the file that has its text, where the newest
# migration changes it without writing it out.
"""
_DEFINITIONS = """
select replace(oid::regprocedure::text, 'outbox.', ''), md5(pg_get_functiondef(oid))
from pg_proc where pronamespace = 'outbox'::regnamespace
"""
_WRITTEN = re.compile(r"create (?:or replace )?(?:function|procedure) outbox\.(\w+)", re.IGNORECASE)


def listing(server_url: str) -> str:
    """Return what the file says of the migrations that there are."""
    with databases.database(server_url) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"{schema.SCHEMA_SQL}{schema.VERSIONS_SQL}")
        known: dict[str, tuple[str, str]] = {}  # signature: the hash of its definition, and where that stands
        texts: dict[str, str] = {}  # name: the newest file that has its text
        for migration in schema.migrations():
            connection.execute(f"{ALIKE}{migration.sql}; {migration.record}")
            file = f"{migration.version:04}_{migration.name}.sql"
            written = set(_WRITTEN.findall(migration.sql))
            texts |= dict.fromkeys(written, file)
            known = {
                signature: (definition, _home(known, signature, definition, file, written))
                for signature, definition in connection.execute(_DEFINITIONS).fetchall()
            }
    lines = (_line(signature, home, texts[signature.partition("(")[0]]) for signature, (_, home) in known.items())
    return HEAD + "".join(f"{line}\n" for line in sorted(lines))


def _home(known: dict[str, tuple[str, str]], signature: str, definition: str, file: str, written: set[str]) -> str:
    """Return where this definition comes from: this file, or where it came from before."""
    before, home = known.get(signature, ("", ""))
    return file if definition != before or signature.partition("(")[0] in written else home


def _line(signature: str, home: str, text: str) -> str:
    return f"{signature}: {home}" if text == home else f"{signature}: {home}, of {text}"


if __name__ == "__main__":
    with databases.server() as server_url:
        FUNCTIONS.write_text(listing(server_url), encoding="utf-8")
