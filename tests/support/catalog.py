"""Write outbox/schema/migrations/catalog.txt anew after a change of the schema: python -m tests.support.catalog"""

from __future__ import annotations

from pathlib import Path

from outbox.schema import comparison
from outbox.schema import runner as schema
from tests.support import databases

CATALOG = Path(schema.__file__).parent / "migrations" / "catalog.txt"


_MADE_AGAIN = """
do $$
declare
    definition text;
begin
    for definition in select pg_get_functiondef(oid) from pg_proc
                      where pronamespace = 'outbox'::regnamespace and prosqlbody is not null loop
        execute definition;
    end loop;
end $$
"""


def listing(server_url: str) -> list[str]:
    """Return the listing of a freshly migrated database on this server, and as it is after a dump and a restore.

    A function that was made from what the server printed of it is printed in another way: some have two lines.
    """
    with databases.database(server_url) as url:
        databases.migrate(url)
        with databases.engine_on(url) as engine, engine.connect() as connection:
            fresh = comparison.catalog(connection)
            connection.exec_driver_sql(_MADE_AGAIN)
            return sorted({*fresh, *comparison.catalog(connection)})


if __name__ == "__main__":
    with databases.server() as server_url:
        CATALOG.write_text("\n".join(listing(server_url)) + "\n", encoding="utf-8")
