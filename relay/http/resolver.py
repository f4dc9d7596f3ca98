"""Names to addresses, with the machine's own resolver, in threads that nothing else waits for.

getaddrinfo() cannot be cancelled: while a name server is silent, its thread hangs for as long as resolv.conf says, by
default ten seconds and more. So names are kept apart by how they behaved the last time, each kind with threads of its
own. A name waits for a thread only behind its like: those that answered at once never stand behind those that did not.
The threads are daemons: a lookup that hangs does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outbox.subscriptions.addresses import is_private_name

if TYPE_CHECKING:
    from collections.abc import Callable

    LookUp = Callable[[str], list[str] | OSError]

__all__ = ["MAX_THREADS", "LookupClass", "Resolver", "ask_machine"]

SLOW_SECONDS = 1.0
"""A lookup that takes longer was slow if an answer came, and silent if none did."""

MAX_NAMES_KNOWN = 100_000


@dataclass(frozen=True)
class LookupClass:
    """A class of names by how they behaved: how many are looked up at once, and how long a caller waits for one."""

    name: str
    threads: int
    patience_seconds: float


NEW = LookupClass("new", 256, 5.0)
QUICK = LookupClass("quick", 256, 5.0)
SLOW = LookupClass("slow", 32, 30.0)
SILENT = LookupClass("silent", 32, 2.0)
CLASSES = (NEW, QUICK, SLOW, SILENT)

MAX_THREADS = sum(one.threads for one in CLASSES)


class Resolver:
    """Call it with a host name for its addresses as text; raises OSError (socket.gaierror) as getaddrinfo does.

    Nothing is cached: an answer serves those who asked while its lookup was under way. A lookup that outlasts its
    callers goes on, and is how a name whose server answers again is found out. A public name is looked up as absolute,
    so that search domains never apply; only a name of a private network is looked up as the machine does.

    `look_up` is called in a thread of its own; it is exchangeable.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or ask_machine
        self._under_way: dict[str, asyncio.Task[list[str] | OSError]] = {}
        self._classes: dict[str, LookupClass] = {}
        self._free = {one.name: asyncio.Semaphore(one.threads) for one in CLASSES}

    async def __call__(self, host: str) -> list[str]:
        """Return the addresses of a host; cancelling one caller leaves the lookup to the others."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._learn_of(host))
        try:
            async with asyncio.timeout(self.class_of(host).patience_seconds):
                found = await asyncio.shield(lookup)
        except TimeoutError:
            self._classes[host] = SILENT  # until its lookup ends: who asks meanwhile need not wait as long
            raise socket.gaierror(socket.EAI_AGAIN, "its name server does not answer") from None
        if isinstance(found, OSError):
            raise found
        return found

    async def close(self) -> None:
        """Stop waiting for what is under way."""
        lookups = list(self._under_way.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    @property
    def under_way(self) -> int:
        """Return how many names are being looked up."""
        return len(self._under_way)

    def class_of(self, host: str) -> LookupClass:
        """Return the class in which this name would be looked up now."""
        return self._classes.get(host, NEW)

    def note(self, host: str, found: list[str] | OSError, seconds: float) -> None:
        """Remember how a lookup went, for the next one of this name."""
        if len(self._classes) >= MAX_NAMES_KNOWN:
            self._classes.clear()
        if seconds <= SLOW_SECONDS:
            self._classes[host] = QUICK
        else:
            self._classes[host] = SILENT if isinstance(found, OSError) else SLOW

    async def _learn_of(self, host: str) -> list[str] | OSError:
        loop = asyncio.get_running_loop()
        try:
            async with self._free[self.class_of(host).name]:
                started = loop.time()
                found = await _in_thread(self._look_up, host)
                self.note(host, found, loop.time() - started)
            return found
        finally:
            del self._under_way[host]


def _in_thread(look_up: LookUp, host: str) -> asyncio.Future[list[str] | OSError]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str] | OSError] = loop.create_future()

    def report(result: list[str] | OSError) -> None:
        if not found.done():
            found.set_result(result)

    def run() -> None:
        result = look_up(host)
        try:
            loop.call_soon_threadsafe(report, result)
        except RuntimeError:  # the loop was closed while the lookup hung
            return

    try:
        threading.Thread(target=run, name="outbox-relay lookup", daemon=True).start()
    except RuntimeError as error:
        found.set_result(OSError(errno.ENOMEM, f"no thread for a lookup: {error}"))
    return found


def ask_machine(host: str) -> list[str] | OSError:
    """Return the addresses that this machine's resolver has for a name, or why it has none. Blocks."""
    name = host if is_private_name(host) else f"{host}."
    try:
        # Bytes, not text: Python would pass text through IDNA 2003.
        answers = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))
