"""One HTTP/1.1 connection: one request at a time, its deadline, and the proof that it may be used again."""

from __future__ import annotations

import asyncio
import random
import select
import ssl
from collections.abc import Callable
from typing import cast

from relay.http.reader import Answer, Lost, ResponseReader
from relay.http.response import ONLY_HTTP2, speaks_http2
from relay.model.outcome import OutcomeKind

__all__ = ["Connection"]

Answered = Callable[["Answer | Lost"], object]

MAX_USES = 10_000
IDLE_SECONDS = 30.0
MAX_AGE_SECONDS = 60.0
"""How long after it was dialled a connection may be used again: until then it leads to where the name once pointed.

An address record lives a minute at the least wherever a name is expected to move. Each connection takes up to a
quarter of it less, so that those which were dialled together are not dialled anew together.
"""

EARLY_BYTES_KEPT = 256
READ_SECONDS = 0.1
"""How long what waits to be read at the deadline may take, once. A loop that was stopped looks at its timers first."""
LEAVE_SECONDS = 1.0
"""How long a connection that is given up may take to read what waits for it: a layer of TLS may have half a record."""


class Connection(asyncio.Protocol):
    """A connected transport and the reader of its answers; `on_end` is called once, when either side has closed it.

    Deadlines are `loop.time()`. One timer a connection serves both the request under way and the idle time
    after it; it is not moved with each request but looks at the deadline when it fires.
    """

    __slots__ = (
        "_answered", "_deadline", "_early", "_is_layered", "_loop", "_on_end", "_poll", "_reader", "_retire_at",
        "_timer", "_timer_at", "_transport", "_uses", "address", "dialled_at", "for_retry", "unasked",
    )  # fmt: skip

    def __init__(
        self,
        address: str | None,
        excerpt_bytes: int,
        on_end: Callable[[Connection], None],
        dialled_at: float,
        *,
        for_retry: bool = False,
    ) -> None:
        self.address = address
        self.dialled_at = dialled_at  # before the name was looked up
        self.for_retry = for_retry
        self._early = b""  # what came before the first request
        self.unasked = False  # whether bytes came that nobody had asked for
        self._retire_at = dialled_at + MAX_AGE_SECONDS * (1 - 0.25 * random.random())
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._reader = ResponseReader(excerpt_bytes)
        self._poll = select.poll()
        self._transport: asyncio.Transport | None = None
        self._is_layered = False  # whether the transport is a layer of our own, which tells what it has not read
        self._answered: Answered | None = None  # of the request under way
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = 0.0
        self._uses = 0

    def exchange(self, request: bytes, deadline: float, answered: Answered) -> None:
        """Write one request; by the deadline `answered` is called with the answer, or with how it was lost.

        It is called once, before this returns where the connection is closed already, and must not raise. Whoever wants
        no answer any more must close the connection.
        """
        self._answered = answered
        self._uses += 1
        self._reader.begin()
        if self._transport is None or self._transport.is_closing():
            self._end(_lost_before(self._early))
            return
        self._wake_by(deadline)
        self._transport.write(request)

    def is_open(self) -> bool:
        """Tell whether neither side has closed the connection."""
        return self._transport is not None and not self._transport.is_closing()

    def is_reusable(self) -> bool:
        """Tell whether another request may be written: alive, not worn out, and nothing at all waiting to be read.

        The kernel is asked right before the request is written: what comes between those two is microseconds old. One
        poll for all resting connections a turn of the loop would save one of fifty microseconds of a delivery, and let
        three to five times as many late extra responses be taken for the next answer.

        What the kernel gave out earlier has ended the connection, or waits in a layer of TLS for the rest of its
        record: our own layers tell of it, those of the loop (TLS without a proxy) cannot.
        """
        return (
            self._transport is not None
            and self._answered is None
            and not self._transport.is_closing()
            and self._uses < MAX_USES
            and self._loop.time() < self._retire_at
            and not self._has_unread()
        )

    def rest(self) -> None:
        """Wait for the next request, but not longer than IDLE_SECONDS, nor beyond the connection's age."""
        self._wake_by(min(self._loop.time() + IDLE_SECONDS, self._retire_at))

    def leave(self) -> None:
        """Close; what waits to be read is read first, since only that tells unasked bytes from a goodbye."""
        if self.is_open() and self._has_unread():
            self._wake_by(self._loop.time() + LEAVE_SECONDS)
        else:
            self.close()

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._answered = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._is_layered = transport.get_extra_info("unread") is not None
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Read on; a byte that nobody asked for ends the connection."""
        if self._answered is None:
            self.unasked = self._uses > 0
            self._early = b"" if self.unasked else data
            self.close()
            return
        result = self._reader.feed(data)
        if result is not None:
            self.unasked = self._reader.has_surplus
            self._end(result)

    def connection_lost(self, error: Exception | None) -> None:
        """End what is under way with what has arrived."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        kind: OutcomeKind = OutcomeKind.TLS if isinstance(error, ssl.SSLError) else OutcomeKind.CONNECTION
        said = f"closed without a complete answer{_because(error)}"
        result = None if self._answered is None else self._reader.give_up(kind, said)
        self._on_end(self)
        self._reader.release()
        if result is not None:
            self._end(result)  # the last, since it calls whoever waits

    def _end(self, result: Answer | Lost) -> None:
        answered = self._answered
        if not result.reusable or self._is_still_writing():
            self.close()
        self._answered = None
        if answered is not None:
            answered(result)

    def _has_unread(self) -> bool:
        if self._poll.poll(0):
            return True
        return self._is_layered and self._transport is not None and bool(self._transport.get_extra_info("unread"))

    def _is_still_writing(self) -> bool:
        # The receiver answered before it had the whole request: the rest would be read as the next one.
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def _wake_by(self, deadline: float) -> None:
        self._deadline = deadline
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._wake)

    def _wake(self, read_for: Answered | None = None) -> None:
        """Look at the deadline; `read_for`: whose answer's bytes had time to be read since it passed."""
        self._timer = None
        now = self._loop.time()
        if now < self._deadline:
            self._wake_by(self._deadline)
        elif self._answered is None:
            self.close()
        elif self._answered is not read_for and self._has_unread():  # it came in time, while this process stood still
            self._timer_at = now + READ_SECONDS
            self._timer = self._loop.call_at(self._timer_at, self._wake, self._answered)
        else:
            self._end(self._reader.give_up(OutcomeKind.TIMEOUT, "no complete answer in time"))


def _lost_before(early: bytes) -> Lost:
    """Return how a request was lost that found its new connection closed, because of what came early or of nothing."""
    if not early:
        return Lost(OutcomeKind.CONNECTION, "the connection was closed before the request", b"")
    said = ONLY_HTTP2 if speaks_http2(early) else "it speaks before it is asked, which HTTP/1.1 does not"
    return Lost(OutcomeKind.PROTOCOL, said, early[:EARLY_BYTES_KEPT])


def _because(error: Exception | None) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:  # such as an alert: the receiver wants another certificate
        return f": {error.reason.replace('_', ' ').lower()}"
    return "" if error is None else f": {type(error).__name__}"
