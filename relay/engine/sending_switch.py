"""Whether anything may be sent: not while a person has paused all sending, nor from a copy of a database.

A copy (production's dump, restored as staging) has all that production had to send, and would send it to production's
customers. It is told by its place, cluster and name, which is another one than the schema noted where it was at home.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.engine.sending import Sending
    from relay.store.rows import Poll
    from relay.store.store import Store

__all__ = ["Halt"]

log = logging.getLogger("relay.engine")


class Halt:
    """What one engine knows of it. `is_on`: nothing may be leased; false before the first poll, which comes first."""

    def __init__(self) -> None:
        self._paused = False
        self._copied = False
        self._here = ""
        self.is_on = False

    async def note_place(self, store: Store) -> None:
        """Ask where the database is that we are connected to: at the start, and whenever it is another one."""
        self._here = await store.note_home()

    def heed(self, seen: Poll, sending: Sending) -> None:
        """Obey what a poll saw: claim nothing, and give back what has not begun. Log what changed.

        fan_out goes on, since who gets an event is decided when it is resolved; nothing is born leased by it. The due
        map is kept up, so that all of it can go on at once.
        """
        if seen.paused != self._paused:
            log.warning("sending is paused until `relay resume-all`" if seen.paused else "sending goes on")
        others = [place for place in seen.homes if place != self._here]
        if bool(others) != self._copied:
            self._say(others)
        self._paused, self._copied = seen.paused, bool(others)
        self.is_on = self._paused or self._copied
        if self.is_on and sending.has_unbegun:
            sending.release_unbegun()

    def _say(self, others: list[str]) -> None:
        if others:
            log.error(
                "this database is a copy, and nothing is sent from it until `relay adopt`: it was at home as %s, and is"
                " %s now",
                " and ".join(others),
                self._here,
            )
        else:
            log.warning("this database is at home as %s now: sending goes on", self._here)
