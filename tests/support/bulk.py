"""Bulk operations of a test's application, and a past that they put back."""

from __future__ import annotations

from typing import Any

from relay.operations.bulk import operations
from relay.operations.bulk.request import BulkRequest
from tests.support.application import Application


def start(app: Application, kind: Any, subscription: str, **asked: Any) -> str:
    with app.engine.begin() as connection:
        rate = asked.pop("rate", 100_000)
        request = BulkRequest(kind=kind, subscription=subscription, **asked)
        made = operations.add_bulk(connection, None, request, rate=rate)
        operations.start_bulk(connection, None, made.id)
        return str(made.id)


def show(app: Application, operation: str) -> operations.BulkOperation:
    with app.engine.begin() as connection:
        return operations.show_bulk(connection, None, operation)


def history(app: Application, count: int) -> None:
    """Record events that were delivered to /old, as if long ago: without a relay, since that is not the point."""
    app.rows(
        "insert into outbox.events (type, payload) select 'order.placed', json_build_object('number', n)::text"
        " from generate_series(1, :count) n",
        count=count,
    )
    app.rows(
        "with gone as (delete from outbox.pending returning event_seq), seqs as (select array_agg(event_seq order by 1)"
        " s from gone) insert into outbox.resolutions (first_seq, seqs, matches)"
        " select s[1], s, array_fill(1, array[cardinality(s)]) from seqs"
    )
    app.rows(
        "insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status,"
        " milliseconds) select gen_random_uuid(), e.seq, s.id, 1, 'delivered', 'delivered', 200, 1"
        " from outbox.events e, outbox.subscriptions s where s.url like '%/old'"
    )
