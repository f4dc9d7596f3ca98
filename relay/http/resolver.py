"""Names to addresses, with the machine's own resolver, in threads that nothing else waits for."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading

from relay.http.addresses import is_private_name

__all__ = ["Resolver"]

MAX_LOOKUPS = 32
MAX_SLOW_LOOKUPS = 4
SLOW_SECONDS = 2.0


class Resolver:
    """Call it with a host name for its addresses as text; raises OSError (socket.gaierror) as getaddrinfo does.

    Nothing is cached: an answer serves those who asked while its lookup was under way. A public name is looked up as
    absolute, so that search domains never apply; only a name of a private network is looked up as the machine does.
    Names that were slow the last time share a few threads, so that dead name servers hold up nobody else. The threads
    are daemons: a lookup that hangs does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[list[str] | OSError]] = {}
        self._slow_names: set[str] = set()
        self._threads = asyncio.Semaphore(MAX_LOOKUPS)
        self._slow_threads = asyncio.Semaphore(MAX_SLOW_LOOKUPS)

    async def __call__(self, host: str) -> list[str]:
        """Return the addresses of a host; cancelling one caller leaves the lookup to the others."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.create_task(self._look_up(host))
        found = await asyncio.shield(lookup)
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
            async with self._slow_threads if host in self._slow_names else self._threads:
                started = loop.time()
                found = await _in_thread(host)
                is_slow = loop.time() - started > SLOW_SECONDS
            (self._slow_names.add if is_slow else self._slow_names.discard)(host)
            return found
        finally:
            del self._under_way[host]


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
