"""Deliver everything that was recorded, for real, in this process, and without waiting for retries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, text

from outbox._payload_value import payload_value
from outbox._text import brief
from outbox.errors import ArgumentError
from outbox.secret import Secret
from outbox.testing.databases import url_of

__all__ = ["DrainedAttempt", "DrainedDelivery", "drain"]

LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainedAttempt:
    """One POST: what the network said (outcome, status, error), and what was concluded (verdict)."""

    number: int
    outcome: str
    status: int | None
    error: str | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainedDelivery:
    """An event for a subscription, and every attempt that `drain()` made of it.

    verdict: delivered, dead, or retry where it would be sent again beyond the time that might pass.
    """

    id: str
    event_id: str
    type: str
    key: str | None
    tenant: str
    data: Any
    subscription_id: str
    verdict: str
    attempts: tuple[DrainedAttempt, ...]

    @property
    def statuses(self) -> list[int | None]:
        """The status of each answer, None where there was none."""
        return [attempt.status for attempt in self.attempts]


def drain(
    database: str | URL | Engine,
    *,
    within: timedelta = timedelta(days=7),
    allow_networks: Iterable[str] = LOOPBACK,
    secret_keys: Iterable[str | Secret] = (),
    timeout_seconds: float = 60.0,
) -> list[DrainedDelivery]:
    """Deliver every committed event as a relay does, and return the deliveries of which it made an attempt.

    The relay runs in a thread of this process, until nothing is left to send. Time does not pass by waiting: retries,
    and events with an `available_at`, are brought nearer in the database. It works inside a running event loop, which
    it blocks; a receiver in that loop needs `await asyncio.to_thread(drain, …)`.

    Args:
        database: its URL, or an Engine. Events that are not committed yet are not seen.
        within: how much time may pass; none at all sends what is due now.
        allow_networks: where requests may go; nothing else is called, whatever is subscribed.
        secret_keys: private keys that open sealed secrets, as the relay's secret_key; without the right one nothing is
            sent to such a subscription.
        timeout_seconds: how long it may take.

    Raises:
        ArgumentError: an argument was refused; a session or connection is none, since the relay has its own.
        SchemaError: the database has no outbox schema, or another version of it.
        TimeoutError: it took too long.
    """
    if not isinstance(within, timedelta) or within < timedelta(0):
        raise ArgumentError(f"within: must be a timedelta from 0 on, not {brief(within)}")
    engine = create_engine(url_of(database), poolclass=NullPool)
    with engine.connect() as connection:
        began = _begin(connection)
    conninfo = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    keys = [Secret(str.__str__(key)) if isinstance(key, str) else key for key in secret_keys]
    work = partial(_run, conninfo, within.total_seconds(), tuple(allow_networks), keys, timeout_seconds)
    with ThreadPoolExecutor(1, thread_name_prefix="outbox-drain") as thread:
        thread.submit(work).result()
    with engine.connect() as connection:
        return _deliveries(connection.execute(_ATTEMPTS, {"began": began}).all())


def _begin(connection: Connection) -> object:
    from outbox.schema import require_current

    require_current(connection)
    return connection.execute(text("select clock_timestamp()")).scalar_one()


def _run(
    conninfo: str, within_seconds: float, networks: Sequence[str], keys: Sequence[Secret], timeout_seconds: float
) -> None:
    import asyncio

    from outbox.testing import _relay

    async def drained() -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await _relay.drain(conninfo, within_seconds, networks, keys)
        except TimeoutError:
            raise TimeoutError(f"drain() was not done after {timeout_seconds:g} s; the log says why") from None

    asyncio.run(drained())


_ATTEMPTS = text("""
select outbox.text_id('dlv', a.delivery_id) as id, a.number, a.outcome, a.status, a.error, a.verdict,
       outbox.text_id('evt', e.id) as event_id, e.type, e.key, e.tenant, e.payload,
       outbox.text_id('sub', a.subscription_id) as subscription_id
from outbox.attempts a join outbox.events e on e.seq = a.event_seq
where a.at >= :began order by a.event_seq, a.subscription_id, a.delivery_id, a.number
""")


def _deliveries(rows: Sequence[Any]) -> list[DrainedDelivery]:
    return [_delivery(list(attempts)) for _, attempts in groupby(rows, lambda row: row.id)]


def _delivery(rows: Sequence[Any]) -> DrainedDelivery:
    last = rows[-1]
    return DrainedDelivery(
        id=last.id,
        event_id=last.event_id,
        type=last.type,
        key=last.key,
        tenant=last.tenant,
        data=payload_value(last.payload),
        subscription_id=last.subscription_id,
        verdict=last.verdict,
        attempts=tuple(map(_attempt, rows)),
    )


def _attempt(row: Any) -> DrainedAttempt:
    return DrainedAttempt(
        number=row.number, outcome=row.outcome, status=row.status, error=row.error, verdict=row.verdict
    )
