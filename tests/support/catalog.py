"""Write outbox/schema/migrations/catalog.txt anew after a change of the schema: python -m tests.support.catalog"""

from __future__ import annotations

from pathlib import Path

from outbox.schema import runner as schema
from tests.support import databases

CATALOG = Path(schema.__file__).parent / "migrations" / "catalog.txt"


def listing(server_url: str) -> list[str]:
    """Return the listing of a freshly migrated database on this server."""
    with databases.database(server_url) as url:
        databases.migrate(url)
        with databases.engine_on(url) as engine, engine.connect() as connection:
            return schema.catalog(connection)


if __name__ == "__main__":
    with databases.server() as server_url:
        CATALOG.write_text("\n".join(listing(server_url)) + "\n", encoding="utf-8")
