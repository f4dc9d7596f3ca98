"""Server-sent events: a line says that something changed, or may have, and the page that listens reads itself anew.

One look at the database every two seconds serves every page of a tenant that is open in this process.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from outbox.control.audit import list_audit
from outbox.control.deliveries import list_deliveries
from outbox.control.events import list_events
from outbox.control.filters import Filters
from outbox.errors import OutboxError
from relay.operations.bulk.operations import list_bulk
from relay.operations.connection import Database
from relay.web.pages.rendering import HEADERS
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_RUNNING = Filters(limit=1000)
LOOK_SECONDS = 2.0
QUIET_SECONDS = 10.0
"""A page is read anew after so long though nothing came: ages grow, a relay falls silent, a disk fills up."""
LONGEST_SECONDS = 600.0
"""Then the stream ends, and the browser opens it anew: a session that has ended is noticed."""


class Pulse:
    """What changes when anything does, of one tenant: looked at no more often than every LOOK_SECONDS."""

    def __init__(self, database: Database, tenant: str | None) -> None:
        self._database = database
        self._tenant = tenant
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._seen: tuple[object, ...] = ()

    async def now(self) -> tuple[object, ...]:
        """Return what is newest: event, delivery, attempt, change by a person, progress of a bulk operation."""
        async with self._lock:
            if time.monotonic() - self._read_at >= LOOK_SECONDS:
                self._seen = await to_thread.run_sync(self._read)
                self._read_at = time.monotonic()
        return self._seen

    def _read(self) -> tuple[object, ...]:
        one, tenant = Filters(limit=1), self._tenant
        try:
            with self._database.transaction() as connection:
                return (
                    *(item.id for item in list_events(connection, tenant, one)),
                    *((item.id, item.at, item.attempts) for item in list_deliveries(connection, tenant, one)),
                    *((item.id, item.at) for item in list_deliveries(connection, tenant, one, "delivered")),
                    *(item.id for item in list_audit(connection, tenant, one)),
                    *((item.id, item.state) for item in list_bulk(connection, tenant, one)),
                    *((item.id, item.done) for item in list_bulk(connection, tenant, _RUNNING, state="running")),
                )
        except (OutboxError, SQLAlchemyError):
            return ()


@router.get("/live")
async def live(visit: Visiting) -> Response:
    """Stream a line whenever something of the visitor's changed, and now and then while nothing does.

    What is newest is read before the stream opens. A page that reads itself anew when it has opened misses nothing.
    """
    pulse = _pulse_of(visit.request, visit.tenant)
    seen = await pulse.now()
    headers = {**HEADERS, "X-Accel-Buffering": "no"}
    return StreamingResponse(_beats(visit.request, pulse, seen), media_type="text/event-stream", headers=headers)


def _pulse_of(request: Request, tenant: str | None) -> Pulse:
    state = request.app.state
    if not hasattr(state, "pulses"):
        state.pulses = {}
    pulses: dict[str | None, Pulse] = state.pulses
    return pulses.setdefault(tenant, Pulse(state.database, tenant))


async def _beats(request: Request, pulse: Pulse, seen: tuple[object, ...]) -> AsyncIterator[bytes]:
    began = said = time.monotonic()
    yield b"retry: 3000\n\n"
    while time.monotonic() - began < LONGEST_SECONDS and not await request.is_disconnected():
        await asyncio.sleep(LOOK_SECONDS)
        fresh = await pulse.now()
        if fresh != seen or time.monotonic() - said >= QUIET_SECONDS:
            seen, said = fresh, time.monotonic()
            yield b"event: changed\ndata: 1\n\n"
