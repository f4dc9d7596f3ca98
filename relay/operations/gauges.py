"""How the database stands, in numbers that a monitor asks for again and again: bounded work at any backlog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from relay.operations.connection import SCHEMA_SECONDS, Database
from relay.operations.status.delivery_counts import oldest_since
from relay.operations.status.outstanding import oldest_pending_seconds
from relay.operations.status.running import ALIVE_SECONDS
from relay.store.postgres_errors import one_line
from relay.store.subscriptions import SENDABLE
from relay.telemetry.gauges import COUNTED_UP_TO, Gauges, KeptGauges
from relay.telemetry.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from relay.config.options import Config

__all__ = ["keep_gauges", "read_gauges"]

_STATES = ("active", "paused", "disabled", "held", "broken")
# Along indexes, whatever the statistics of the tables say.
_SETTINGS = text("""
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('statement_timeout', '5s', true)
""")
# What is due waits in two ways: for subscriptions that may be sent to, which counts, and for those that may not.
_ALIVE = f"seen_at >= clock_timestamp() - make_interval(secs => {ALIVE_SECONDS})"
_GAUGES = text(f"""
with sendable as materialized (select id from outbox.subscriptions where {SENDABLE}),
due as materialized (
    select d.since from sendable s cross join lateral ({oldest_since("lease is null")}) d),
counted as materialized (
    select from sendable s cross join lateral (
        select from outbox.deliveries where subscription_id = s.id and due_at <= statement_timestamp() and lease is null
        order by due_at limit :bound) d
    limit :bound)
select (select count(*) from counted) as due,
       (select coalesce(extract(epoch from statement_timestamp() - min(since)), 0)::double precision from due)
           as oldest_due_seconds,
       (select count(*) from (select from outbox.pending order by event_seq limit :bound) p) as pending,
       (select count(*) from (select from outbox.dead_letters order by died_at limit :bound) l) as dead_letters,
       (select coalesce(sum(leased), 0) from outbox.relays r where {_ALIVE}) as leased,
       (select count(*) from outbox.relays r where {_ALIVE}) as relays,
       (select paused_at is not null from outbox.sending) as sending_paused
""")  # noqa: S608 - the parts are constants
_SUBSCRIPTIONS = text("""
select case when disabled_at is not null then 'disabled' when paused_at is not null then 'paused'
            when held_until > statement_timestamp() then 'held'
            when exists (select from outbox.health h where h.subscription_id = s.id and opened_at is not null)
            then 'broken' else 'active' end as state, count(*) as n
from outbox.subscriptions s where removed_at is null group by 1
""")


def read_gauges(connection: Connection, tenant: str | None) -> Gauges:
    """Return how the database stands. For the operator only; it changes settings of the transaction."""
    operator_only(tenant, "gauges")
    connection.execute(_SETTINGS)
    row = connection.execute(_GAUGES, {"bound": COUNTED_UP_TO}).one()
    states = {found.state: found.n for found in connection.execute(_SUBSCRIPTIONS)}
    return Gauges(
        due=row.due,
        oldest_due_seconds=max(0.0, row.oldest_due_seconds),
        pending=row.pending,
        oldest_pending_seconds=oldest_pending_seconds(connection) or 0.0,
        dead_letters=row.dead_letters,
        leased=int(row.leased),
        relays=row.relays,
        sending_paused=bool(row.sending_paused),
        subscriptions={state: states.get(state, 0) for state in _STATES},
    )


def keep_gauges(config: Config) -> KeptGauges:
    """Return the gauges of this configuration's database, read when they are asked for and kept for a while."""
    database = Database(config, check_again_seconds=SCHEMA_SECONDS)

    def read() -> Gauges:
        with database.transaction() as connection:
            return read_gauges(connection, None)

    return KeptGauges(read, _told)


def _told(error: Exception) -> str:
    return redact(one_line(getattr(error, "orig", None) or error))
