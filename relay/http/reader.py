"""Reading one answer after another from the bytes of a connection, without any I/O.

A byte that nobody asked for would be read as the answer to the next request, and an old 200 would then settle
a delivery that never arrived. So interim responses are passed over, and an answer says `reusable` only when
it was complete and regular and not one byte came after it. A status decides as soon as its head is complete:
a body that is cut, endless or broken changes nothing but that the connection is closed. Where httptools refuses the
head itself, a lenient reading finds its status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import httptools

from relay.http.response import (
    EMPTY_LINE,
    MAX_HEAD_BYTES,
    MAX_INTERIM_RESPONSES,
    ONLY_HTTP2,
    final_head,
    has_many_headers,
    kind_of_status,
    read_untidy_head,
    refusal_of_head,
    speaks_http2,
)
from relay.model.outcome import OutcomeKind

__all__ = ["Answer", "Lost", "ResponseReader"]

WITHOUT_BODY = frozenset([204, 205, 304])
"""Statuses whose answer ends with its head."""

FRAME_HEADER_BYTES = 9
MAX_KNOWN_BYTES = 1024  # a connection remembers no longer answer
MAX_HEADERS_KEPT = 4096

_HAS_NO_LENGTH = re.compile(rb"\r\ntransfer-encoding:[ \t]*identity[ \t]*\r\n", re.IGNORECASE)
_DECLARES_BODY = re.compile(rb"\r\n(?:transfer-encoding:|content-length:[ \t]*0*[1-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A final response: status, head as received, first bytes of the body; `reusable` when it was clean to the end.

    kind: the class of its status. headers: the beginning of the head, as text.
    """

    status: int
    head: bytes
    body: bytes
    reusable: bool
    kind: OutcomeKind = field(init=False)
    headers: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", kind_of_status(self.status))
        object.__setattr__(self, "headers", self.head[:MAX_HEADERS_KEPT].decode("latin-1"))


class Lost(NamedTuple):
    """No final response: the class of the failure, what went wrong, and the bytes that came instead."""

    kind: OutcomeKind
    error: str
    received: bytes

    @property
    def reusable(self) -> bool:
        """Whether its connection may be used again: never."""
        return False


class ResponseReader:
    """Feed it what a connection receives; it returns an Answer or a Lost once, then needs `begin()`.

    Its public `on_…` methods are what httptools calls.
    """

    __slots__ = (
        "_body", "_body_bytes", "_chunked", "_excerpt_bytes", "_fault", "_head", "_head_end", "_interim", "_keep_alive",
        "_known", "_known_data", "_most_bytes", "_parser", "_raw", "_received_bytes", "_status", "_surplus", "_untidy",
        "_used", "_whole",
    )  # fmt: skip

    def __init__(self, excerpt_bytes: int) -> None:
        self._excerpt_bytes = excerpt_bytes
        self._most_bytes = MAX_HEAD_BYTES + 8 * excerpt_bytes  # a chunk of one byte takes six on the wire
        self._parser = httptools.HttpResponseParser(self)
        self._known_data: bytes | None = None  # the last clean answer that came in one piece
        self._known: Answer | None = None  # what it meant
        self._reset()

    def begin(self) -> None:
        """Expect the answer to a new request."""
        if self._used:
            self._reset()

    def _reset(self) -> None:
        self._used = False
        self._raw = bytearray()
        self._head = self._body = b""
        self._status = self._head_end = self._received_bytes = self._body_bytes = self._interim = 0
        self._fault: str | None = None
        self._chunked = self._whole = self._surplus = self._keep_alive = self._untidy = False

    def feed(self, data: bytes) -> Answer | Lost | None:
        """Take received bytes; None means that more are needed.

        An endpoint mostly says the same every time, at least within a second of its Date: what began and ended as the
        answer before, byte for byte, means the same again, and neither parser nor state has to be touched.
        """
        if not self._used and data == self._known_data:
            return self._known
        first, self._used = not self._used, True
        result = self._read(data)
        if first and isinstance(result, Answer) and result.reusable and len(data) <= MAX_KNOWN_BYTES:
            self._known_data, self._known = data, result
        return result

    def _read(self, data: bytes) -> Answer | Lost | None:
        self._received_bytes += len(data)
        if not self._head:
            self._raw += data
        if self._fault is not None:  # nothing more can come of httptools
            return self._conclusion() if self._head or self._has_news(len(data)) else None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = "it switches protocols, which nobody asked for"
        except httptools.HttpParserCallbackError:  # an error of our own
            raise
        except httptools.HttpParserError as error:
            self._fault = self._fault or f"not a valid HTTP response: {error}"
        return self._conclusion()

    def give_up(self, kind: OutcomeKind, error: str) -> Answer | Lost:
        """End without more bytes (closed, or out of time): a status that arrived stands."""
        return self._answer() if self._head else Lost(kind, error, bytes(self._raw[: self._excerpt_bytes]))

    @property
    def has_surplus(self) -> bool:
        """Whether bytes came after a whole answer."""
        return self._whole and (
            self._surplus
            or self._fault is not None
            or (not self._chunked and self._received_bytes != self._head_end + self._body_bytes)
        )

    def release(self) -> None:
        """Let go of the parser, which refers back to this object."""
        del self._parser

    def _conclusion(self) -> Answer | Lost | None:
        if self._head:
            ended = self._whole or self._fault or self._untidy or self._status in WITHOUT_BODY
            enough = self._body_bytes > self._excerpt_bytes or self._received_bytes > self._most_bytes
            return self._answer() if ended or enough else None
        if self._fault is None and len(self._raw) > MAX_HEAD_BYTES:
            self._fault = f"the headers take more than {MAX_HEAD_BYTES} bytes"
        return None if self._fault is None else self._conclusion_in_spite_of(self._fault)

    def _has_news(self, added: int) -> bool:
        """Tell whether what was added can end a head: not all that drips is read from its beginning each time."""
        before = len(self._raw) - added
        if self._raw.find(b"\n", 0, before) < 0 or len(self._raw) > MAX_HEAD_BYTES:
            return True
        return EMPTY_LINE.search(self._raw, max(0, before - 2)) is not None

    def _conclusion_in_spite_of(self, fault: str) -> Answer | Lost | None:
        """Judge a head that httptools refuses by its status, once that and the end of the head are there."""
        if self._raw[:1] == b"\0" and len(self._raw) < FRAME_HEADER_BYTES:
            return None
        found = read_untidy_head(self._raw)
        if found is None:
            return None
        if isinstance(found, str):
            error = ONLY_HTTP2 if speaks_http2(self._raw) else fault
            return Lost(OutcomeKind.PROTOCOL, error, bytes(self._raw[: self._excerpt_bytes]))
        body = bytes(self._raw[found.end : found.end + self._excerpt_bytes])
        return Answer(found.status, found.text, body, reusable=False)

    def _answer(self) -> Answer:
        return Answer(self._status, self._head, self._body, self._is_clean())

    def _is_clean(self) -> bool:
        """Tell whether the answer was complete and regular, with nothing after it, on a connection that stays open."""
        if not self._whole or not self._keep_alive or self._untidy or self.has_surplus:
            return False
        return self._status not in WITHOUT_BODY or (self._status == 204 and not _DECLARES_BODY.search(self._head))

    def on_message_begin(self) -> None:
        """Count as surplus whatever begins after the whole answer."""
        self._surplus = self._surplus or self._whole

    def on_headers_complete(self) -> None:
        """Count an interim response; take the head of the final one."""
        if self._head:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                self._fault = f"more than {MAX_INTERIM_RESPONSES} interim responses"
            return
        head, end = final_head(self._raw)
        self._fault = self._fault or refusal_of_head(head)
        if self._fault is None:
            self._head, self._head_end, self._status = head, end, status
            self._untidy = has_many_headers(head) or _HAS_NO_LENGTH.search(head) is not None

    def on_chunk_header(self) -> None:
        """Remember that the length of the body on the wire is not its own."""
        self._chunked = True

    def on_body(self, data: bytes) -> None:
        """Keep the first bytes of the body; count them all."""
        if not self._head or self._whole:
            return
        self._body_bytes += len(data)
        if len(self._body) < self._excerpt_bytes:
            self._body += data[: self._excerpt_bytes - len(self._body)]

    def on_message_complete(self) -> None:
        """Note the end of the final response, and whether the server keeps the connection open."""
        if self._head and not self._whole:
            self._whole = True
            self._keep_alive = self._head.startswith(b"HTTP/1.1") and self._parser.should_keep_alive()
