"""The status that the pages show. Where it is dear to read, one reading serves every page for a while.

Under a great backlog a status takes a second, and each open page reads itself anew every two seconds. So a dear one is
kept; the first page that finds it old has it read anew beside, and is shown the old one, as the others are. Only where
it is too old to be shown, or everything stands since, or goes on again, a page waits for the reading.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock, Thread

from fastapi import Request
from sqlalchemy import Connection

from outbox.control.tenancy import operator_only
from relay.operations.sending_switch import read_sending
from relay.operations.status.disk import full_disk
from relay.operations.status.documents import Status
from relay.operations.status.running import any_alive
from relay.operations.status.status import status
from relay.telemetry.redaction import redact

__all__ = ["KeptStatus", "kept_status", "read_anew"]

log = logging.getLogger("relay.web.pages.kept_status")

CHEAP_SECONDS = 0.2
"""A status that took less is never kept."""
KEPT_TIMES = 20
LONGEST_SECONDS = 30.0
SHOWN_SECONDS = 60.0
"""How much longer an old one is shown while it is read anew; the page says how old it is."""
RENEW_AGAIN_SECONDS = 5.0  # after one that failed: it costs, and logs a line
LOOK_SECONDS = 3.0
"""How often it is looked, for a page that is shown a kept one, whether everything stands: that hurts at once."""


def _start(work: Callable[[], None]) -> None:
    Thread(target=work, name="status", daemon=True).start()


def _all_changed(connection: Connection, kept: Status) -> bool:
    """Tell whether all stands still now, or goes on again: by the switch, without a relay, or on a full disk."""
    return (
        read_sending(connection, None).is_paused != kept.sending.is_paused
        or any_alive(connection, None) != bool(kept.running.alive)
        or (full_disk(connection, None) is None) != (kept.running.full_disk is None)
    )


class KeptStatus:
    """The operator's status of one database, read at most for a twentieth of the time; `Status.at` is when."""

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[Connection]],
        read: Callable[[Connection], Status] = lambda connection: status(connection, None),
        *,
        changed: Callable[[Connection, Status], bool] = _all_changed,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _start,
    ) -> None:
        """Keep nothing yet.

        Args:
            begin: opens a transaction, to read beside the pages.
            read: reads the status.
            changed: tells, at little cost, whether a kept one misses what must not wait.
            clock: seconds.
            start: does work beside.
        """
        self._begin, self._read, self._clock, self._start, self._changed = begin, read, clock, start, changed
        self._lock = Lock()
        self._kept: Status | None = None
        self._until = self._renew_from = self._look_from = 0.0
        self._is_dear = self._renewing = False
        self._changes = 0

    def read(self, connection: Connection) -> Status:
        """Return the status that is kept, or read it. Others wait for the reading, and get the same."""
        with self._lock:
            began = self._clock()
            too_old = began >= self._until + (SHOWN_SECONDS if self._is_dear else 0)
            if self._kept is None or too_old or self._misses(connection, self._kept, began):
                self._keep(self._read(connection), began)
            elif began >= max(self._until, self._renew_from) and not self._renewing:
                self._start(self._renew)
                self._renewing = True
            assert self._kept is not None
            return self._kept

    def _misses(self, connection: Connection, kept: Status, now: float) -> bool:
        """Look, now and then, whether the kept status misses what must not wait."""
        if now < self._look_from:
            return False
        self._look_from = now + LOOK_SECONDS
        return self._changed(connection, kept)

    def forget(self) -> None:
        """Read it anew the next time: somebody changed something."""
        with self._lock:
            self._kept = None
            self._changes += 1

    def _keep(self, found: Status, began: float) -> None:
        ended = self._clock()
        took = ended - began
        self._is_dear = took > CHEAP_SECONDS
        self._kept = found
        self._look_from = ended + LOOK_SECONDS
        self._until = ended + min(LONGEST_SECONDS, KEPT_TIMES * took) if self._is_dear else ended

    def _renew(self) -> None:
        """Read it beside, and keep it unless somebody changed something meanwhile."""
        began, changes, found = self._clock(), self._changes, None
        try:
            with self._begin() as connection:
                found = self._read(connection)
        except Exception as error:  # noqa: BLE001 - the page that asks next reads it itself, and tells
            cause = getattr(error, "orig", None) or error
            said = redact(str(cause).strip().partition("\n")[0])
            log.warning("the status could not be read anew: %s: %s", type(cause).__name__, said)
        finally:
            with self._lock:
                self._renewing = False
                if found is None:
                    self._renew_from = self._clock() + RENEW_AGAIN_SECONDS
                if found is not None and changes == self._changes:
                    self._keep(found, began)


def kept_status(request: Request, connection: Connection, tenant: str | None) -> Status:
    """Return the status, of a minute and a half ago at most. For the operator only."""
    operator_only(tenant, "status")
    kept: KeptStatus = request.app.state.kept_status
    return kept.read(connection)


def read_anew(request: Request) -> None:
    """Let the next page show what was changed just now."""
    request.app.state.kept_status.forget()
