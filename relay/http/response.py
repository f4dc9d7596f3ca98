"""What an endpoint answered, judged from its bytes: pure functions over a response's head.

httptools finds where an answer begins and ends; this module holds what it is lax about (status 099 or 999, HTTP/2.0,
sizes) and what only a webhook sender needs (the class of a status, Retry-After).
"""

from __future__ import annotations

import re
import time
from email.utils import mktime_tz, parsedate_tz

from relay.model.outcome import OutcomeKind

__all__ = ["MAX_HEAD_BYTES", "final_head", "header", "kind_of_status", "refusal_of_head", "retry_after_seconds"]

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes that the heads of one answer may take together, interim responses included."""

MAX_HEADERS = 100
MAX_RETRY_AFTER_SECONDS = 86_400.0

_KINDS: dict[int, OutcomeKind] = {
    2: OutcomeKind.DELIVERED,
    3: OutcomeKind.HTTP_3XX,
    4: OutcomeKind.HTTP_4XX,
    5: OutcomeKind.HTTP_5XX,
}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [2-5][0-9][0-9](?: [^\r\n]*)?\r\n")
_INTERIM = re.compile(rb"(?:\r\n)*HTTP/1\.[01] 1[0-9][0-9][ \r]")
_HTTP_DATE = re.compile(r"[A-Za-z]{3,9},? [A-Za-z0-9 :-]{10,40}")


def final_head(received: bytes | bytearray) -> tuple[bytes, int]:
    """Return the head of the final response with its empty line, past the interim ones, and where it ends.

    Called when the parser says that the head is complete. Reading the same bytes a second time is deliberate:
    it does not depend on what the parser tolerated; a head that is not found here is empty, and
    `refusal_of_head` refuses it.
    """
    start = 0
    while (end := received.find(b"\r\n\r\n", start) + 4) > 3:
        if not _INTERIM.match(received, start):
            return bytes(received[start:end]), end
        start = end
    return b"", 0


def refusal_of_head(head: bytes) -> str | None:
    """Return why this head is not an answer of HTTP/1.0 or 1.1 within the limits, or None when it is."""
    if not _STATUS_LINE.match(head):
        return "the status line is not HTTP/1.1 with a status from 100 to 599"
    if len(head) > MAX_HEAD_BYTES:
        return f"the headers take more than {MAX_HEAD_BYTES} bytes"
    if head.count(b"\r\n") > MAX_HEADERS + 2:
        return f"more than {MAX_HEADERS} headers"
    return None


def kind_of_status(status: int) -> OutcomeKind:
    """Return the class of an answered attempt: 'delivered' for 2xx, else 'http_3xx', 'http_4xx' or 'http_5xx'."""
    return _KINDS.get(status // 100, OutcomeKind.PROTOCOL)


def header(head: bytes, name: str) -> str | None:
    """Return the value of the first header of this name (lower case), without surrounding spaces."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name.encode():
            return value.strip(b" \t").decode("latin-1")
    return None


def retry_after_seconds(status: int, head: bytes) -> float | None:
    """Return how long a 429 or 503 asks to wait, 0 to 86400 seconds; None when it names no time that can be read.

    A date is read against the answer's own Date header, since both come from one clock.
    """
    value = header(head, "retry-after") if status in (429, 503) else None
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), MAX_RETRY_AFTER_SECONDS)
    until, now = _seconds_of_date(value), _seconds_of_date(header(head, "date") or "")
    if until is None:
        return None
    return min(max(until - (time.time() if now is None else now), 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_of_date(value: str) -> float | None:
    if not _HTTP_DATE.fullmatch(value):
        return None
    try:
        parsed = parsedate_tz(value)
        return None if parsed is None else mktime_tz(parsed)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
