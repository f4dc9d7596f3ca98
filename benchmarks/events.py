"""Subscriptions and events to measure with, and what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy

import outbox
from benchmarks.keys import PUBLIC
from benchmarks.server import engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

__all__ = ["record_many", "settled", "subscribe"]

_SEAL = sqlalchemy.text("insert into outbox.sealing_keys (id, key) values (:id, :key) on conflict do nothing")
_FILL = """
insert into outbox.events (type, key, payload)
select 'order.created', 'order-' || i %% 1000, json_build_object('id', i, 'note', repeat('x', 400))::text
from generate_series(1, %s) i
"""


def subscribe(url: str, endpoints: Sequence[str], types: Sequence[str] = ("order.*",), **settings: Any) -> None:
    """Subscribe each endpoint to events of the database at `url`; its secret is sealed. `settings`: its fields."""
    outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
    made = engine(url)
    with made.begin() as connection:
        connection.execute(_SEAL, {"id": PUBLIC.id, "key": PUBLIC.text})
        for endpoint in endpoints:
            outbox.subscribe(connection, endpoint, types, **settings)
    made.dispose()


def record_many(connection: psycopg.Connection[Any], events: int) -> None:
    """Record events of about 500 bytes on the wire in one transaction, as plain SQL may."""
    connection.execute(_FILL, (events,))


def settled(connection: psycopg.Connection[Any], schema: str = "outbox") -> tuple[int, float]:
    """Return how many attempts the database has taken, and when the last one was, in Unix seconds."""
    counted = f"select count(*), coalesce(extract(epoch from max(at))::double precision, 0) from {schema}.attempts"
    return connection.execute(counted).fetchone()
