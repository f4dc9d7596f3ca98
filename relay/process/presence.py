"""Presence: a relay process signs in to outbox.relays, gives a sign of life every few seconds, and signs out.

`relay status` reads there who runs. The signs go over the connection of housekeeping, between its transactions, so
they cost delivering nothing. A database that refuses them never stops a relay: the log says so once.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import psycopg

from outbox._version import __version__
from relay.process import supervisor
from relay.store.postgres_errors import Meaning, meaning_of
from relay.store.relays import SIGN, SIGN_OUT, SWEEP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from relay.engine.unsent import UnsentTo

__all__ = ["Presence"]

log = logging.getLogger("relay.process.presence")

EVERY_SECONDS = 5.0
SWEEP_EVERY_SECONDS = 60.0
PATIENCE_SECONDS = 1.0


class Presence:
    """The row of this process in outbox.relays."""

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        processes: int,
        key_ids: Iterable[str],
        leased: Callable[[], int],
        unsent: Callable[[], Sequence[UnsentTo]],
    ) -> None:
        """Take what the row says.

        `leased` tells how many deliveries the process holds, `unsent` to which subscriptions it could not send for
        long, the longest first.
        """
        self._conninfo = conninfo
        self._leased = leased
        self._unsent = unsent
        place = supervisor.place()
        self._facts = {
            "id": place.id,
            "run_id": place.run_id,
            "processes": processes,
            "host": platform.node(),
            "pid": os.getpid(),
            "version": __version__,
            "key_ids": list(key_ids),
        }
        self._sign_at = self._sweep_at = 0.0
        self._is_refused = False

    async def sign_in(self) -> None:
        """Sign in before any work is taken. A database that does not answer gets the sign from housekeeping later."""
        with suppress(psycopg.Error, OSError), anyio.move_on_after(PATIENCE_SECONDS):
            async with await self._connect() as connection:
                await self.sign(connection)

    async def sign(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Give a sign of life when it is time, in a transaction of its own."""
        now = time.monotonic()
        if now < self._sign_at:
            return
        self._sign_at = now + EVERY_SECONDS
        try:
            async with connection.transaction():
                await connection.execute(SIGN, self._facts | self._state())
                if now >= self._sweep_at:
                    self._sweep_at = now + SWEEP_EVERY_SECONDS
                    await connection.execute(SWEEP)
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError) or meaning_of(error) is Meaning.AWAY:
                self._sign_at = 0.0
                raise
            self._note_refusal(error)

    def _state(self) -> dict[str, object]:
        unsent = self._unsent()
        longest = UUID(bytes=unsent[0].subscription_id) if unsent else None
        return {"leased": self._leased(), "cannot_send": len(unsent), "cannot_send_to": longest}

    async def sign_out(self) -> None:
        """Delete the row; what fails, or takes longer than a second, leaves it to be swept."""
        with suppress(psycopg.Error, OSError), anyio.move_on_after(PATIENCE_SECONDS):
            async with await self._connect() as connection, connection.transaction():
                await connection.execute(SIGN_OUT, self._facts)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        made = await psycopg.AsyncConnection.connect(self._conninfo(), autocommit=True, prepare_threshold=None)
        await made.set_read_only(False)
        return made

    def _note_refusal(self, error: psycopg.Error) -> None:
        if not self._is_refused:
            self._is_refused = True
            log.warning("relay status will not see this process: %s", str(error).splitlines()[0])
