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

from relay.http.addresses import is_private_name

__all__ = ["MAX_THREADS", "Resolver"]

SLOW_SECONDS = 1.0
"""A lookup that takes longer was slow if an answer came, and silent if none did."""

MAX_NAMES_KNOWN = 100_000


@dataclass(frozen=True)
class Manner:
    """How names behaved: how many of these are looked up at once, and how long a caller waits for one."""

    name: str
    threads: int
    patience_seconds: float


NEW = Manner("new", 256, 5.0)
QUICK = Manner("quick", 256, 5.0)
SLOW = Manner("slow", 32, 30.0)
SILENT = Manner("silent", 32, 2.0)
MANNERS = (NEW, QUICK, SLOW, SILENT)

MAX_THREADS = sum(manner.threads for manner in MANNERS)


class Resolver:
    """Call it with a host name for its addresses as text; raises OSError (socket.gaierror) as getaddrinfo does.

    Nothing is cached: an answer serves those who asked while its lookup was under way. A lookup that outlasts its
    callers goes on, and is how a name whose server answers again is found out. A public name is looked up as absolute,
    so that search domains never apply; only a name of a private network is looked up as the machine does.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[list[str] | OSError]] = {}
        self._manner_of: dict[str, Manner] = {}
        self._free = {manner.name: asyncio.Semaphore(manner.threads) for manner in MANNERS}

    async def __call__(self, host: str) -> list[str]:
        """Return the addresses of a host; cancelling one caller leaves the lookup to the others."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._look_up(host))
        try:
            async with asyncio.timeout(self._manner_of.get(host, NEW).patience_seconds):
                found = await asyncio.shield(lookup)
        except TimeoutError:
            self._manner_of[host] = SILENT  # until its lookup ends: who asks meanwhile need not wait as long
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

    async def _look_up(self, host: str) -> list[str] | OSError:
        loop = asyncio.get_running_loop()
        try:
            async with self._free[self._manner_of.get(host, NEW).name]:
                started = loop.time()
                found = await _in_thread(host)
                self._learn(host, found, loop.time() - started)
            return found
        finally:
            del self._under_way[host]

    def _learn(self, host: str, found: list[str] | OSError, seconds: float) -> None:
        if len(self._manner_of) >= MAX_NAMES_KNOWN:
            self._manner_of.clear()
        if seconds <= SLOW_SECONDS:
            self._manner_of[host] = QUICK
        else:
            self._manner_of[host] = SILENT if isinstance(found, OSError) else SLOW


def _in_thread(host: str) -> asyncio.Future[list[str] | OSError]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str] | OSError] = loop.create_future()

    def report(result: list[str] | OSError) -> None:
        if not found.done():
            found.set_result(result)

    def look_up() -> None:
        result = _addresses(host)
        try:
            loop.call_soon_threadsafe(report, result)
        except RuntimeError:  # the loop was closed while the lookup hung
            return

    try:
        threading.Thread(target=look_up, name="outbox-relay lookup", daemon=True).start()
    except RuntimeError as error:
        found.set_result(OSError(errno.ENOMEM, f"no thread for a lookup: {error}"))
    return found


def _addresses(host: str) -> list[str] | OSError:
    name = host if is_private_name(host) else f"{host}."
    try:
        # Bytes, not text: Python would pass text through IDNA 2003.
        answers = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))
