"""What an endpoint answered, judged from its bytes: pure functions over a response's head.

httptools finds where an answer begins and ends; this module holds what it is lax about (status 099 or 999, HTTP/2.0,
sizes) and what only a webhook sender needs (the class of a status, Retry-After). Where httptools refuses a head, a
lenient reading of our own finds its status: the event was taken or it was not, however untidy the answer is. What must
not be lenient is where the next answer begins; so the connection of such an answer is never used again.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from typing import NamedTuple

from relay.model.outcome import OVERLOADED, RETRY_AFTER_MAX_SECONDS, OutcomeKind

__all__ = [
    "EMPTY_LINE", "MAX_HEAD_BYTES", "MAX_INTERIM_RESPONSES", "ONLY_HTTP2", "Head", "final_head", "has_many_headers",
    "header", "header_values", "kind_of_status", "read_untidy_head", "refusal_of_head", "retry_after_seconds",
    "speaks_http2",
]  # fmt: skip

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes that the heads of one answer may take together, interim responses included."""

ONLY_HTTP2 = "the endpoint speaks HTTP/2 only"
MAX_INTERIM_RESPONSES = 20
MAX_HEADERS = 100
MAX_DIGITS = 12
"""Of a number of seconds: longer ones are no time that anybody means."""

_KINDS: dict[int, OutcomeKind] = {
    2: OutcomeKind.DELIVERED,
    3: OutcomeKind.HTTP_3XX,
    4: OutcomeKind.HTTP_4XX,
    5: OutcomeKind.HTTP_5XX,
}
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [2-5][0-9][0-9](?: [^\r\n]*)?\r\n")
_INTERIM = re.compile(rb"(?:\r\n)*HTTP/1\.[01] 1[0-9][0-9][ \r]")
_UNTIDY_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] +([1-5])([0-9][0-9])(?:[ \t][^\n]*)?\r?\n")
_MAY_BEGIN = re.compile(rb"H?$|HT?$|HTT?$|HTTP?$|HTTP/")
EMPTY_LINE = re.compile(rb"\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_FOLD = re.compile(rb"[ \t]*\r?\n[ \t]+")
_SECONDS = re.compile(r"0*([0-9]*)(?:\.([0-9]*))?")
_HTTP_DATE = re.compile(r"(?:[A-Za-z]{3,9},? )?[A-Za-z0-9 :-]{10,40}(?: \+0000)?")


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
        return _NO_STATUS_LINE
    if len(head) > MAX_HEAD_BYTES:
        return f"the headers take more than {MAX_HEAD_BYTES} bytes"
    return None


def has_many_headers(head: bytes) -> bool:
    """Tell whether a head has more headers than a server has a reason to send."""
    return head.count(b"\r\n") > MAX_HEADERS + 2


class Head(NamedTuple):
    """The head of a final response, and where it ends in what was received."""

    text: bytes
    end: int
    status: int


def read_untidy_head(received: bytes | bytearray) -> Head | str | None:
    """Return the head of the final response, why there is none to believe, or None where more bytes are needed.

    The status line must be there, and the empty line that ends the head; what is between them may be anything. Lines
    may end with LF where all do. What ends in one way for one reader and elsewhere for another is not believed, nor an
    interim response that is not tidy, since what follows it may then be its own text.
    """
    start = 0
    for _ in range(MAX_INTERIM_RESPONSES + 1):
        start = _past_empty_lines(received, start)
        if not _MAY_BEGIN.match(received, start):
            return _NO_STATUS_LINE
        end = EMPTY_LINE.search(received, start)
        if not (line := _UNTIDY_STATUS_LINE.match(received, start)):
            return None if received.find(b"\n", start) < 0 else _NO_STATUS_LINE
        if end is None:
            return f"the headers take more than {MAX_HEAD_BYTES} bytes" if len(received) > MAX_HEAD_BYTES else None
        text, status = bytes(received[start : end.end()]), int(line[1] + line[2])
        if refusal := _refusal_of_untidy(text, status):
            return refusal
        if status >= 200:
            return Head(text, end.end(), status)
        start = end.end()
    return f"more than {MAX_INTERIM_RESPONSES} interim responses"


_NO_STATUS_LINE = "the status line is not HTTP/1.1 with a status from 100 to 599"


def _past_empty_lines(received: bytes | bytearray, start: int) -> int:
    while received[start : start + 1] == b"\n" or received[start : start + 2] == b"\r\n":
        start = received.index(b"\n", start) + 1
    return start


def _refusal_of_untidy(text: bytes, status: int) -> str | None:
    if len(text) > MAX_HEAD_BYTES:
        return f"the headers take more than {MAX_HEAD_BYTES} bytes"
    if status == 101:
        return "it switches protocols, which nobody asked for"
    crlf = text.count(b"\r\n")
    if status < 200 and not text.count(b"\r") == text.count(b"\n") == crlf:
        return "an interim response whose end can be read in two ways"
    if crlf and not text.endswith(b"\r\n\r\n"):
        return "a head whose end can be read in two ways"
    return None


def speaks_http2(received: bytes | bytearray) -> bool:
    """Tell whether these bytes begin with a frame that an HTTP/2 server begins or ends with: SETTINGS or GOAWAY."""
    return received[:1] == b"\0" and received[3:4] in (b"\x04", b"\x07") and received[5:9] == b"\0\0\0\0"


def kind_of_status(status: int) -> OutcomeKind:
    """Return the class of an answered attempt: 'delivered' for 2xx, else 'http_3xx', 'http_4xx' or 'http_5xx'."""
    return _KINDS.get(status // 100, OutcomeKind.PROTOCOL)


def header(head: bytes, name: str) -> str | None:
    """Return the value of the first header of this name (lower case), without surrounding spaces."""
    return next(iter(header_values(head, name)), None)


def header_values(head: bytes, name: str) -> list[str]:
    """Return the values of all headers of this name (lower case), of an untidy head too: folded lines are joined."""
    wanted, values = name.encode(), []
    for line in _LINE_END.split(_FOLD.sub(b" ", head))[1:]:
        key, _, value = line.partition(b":")
        if key.rstrip(b" \t").lower() == wanted:
            values.append(value.strip(b" \t").decode("latin-1"))
    return values


def retry_after_seconds(status: int, head: bytes) -> float | None:
    """Return how long a 429 or 503 asks to wait, 0 to 86400 whole seconds; None when it names no time that can be read.

    Fractions are rounded up. Of several times the longest counts: who asks too early is refused again. A date is read
    against the answer's own Date header, since both come from one clock.
    """
    if status not in OVERLOADED:
        return None
    now = _seconds_of_date(header(head, "date") or "")
    asked = [_seconds_of(value, now) for value in header_values(head, "retry-after")]
    longest = max((seconds for seconds in asked if seconds is not None), default=None)
    return None if longest is None else min(longest, RETRY_AFTER_MAX_SECONDS)


def _seconds_of(value: str, now: float | None) -> float | None:
    number = _SECONDS.fullmatch(value)
    if number is not None and any(digit.isdigit() for digit in value):
        whole, fraction = number[1], number[2] or ""
        return None if len(whole) > MAX_DIGITS else float(int(whole or 0) + bool(fraction.strip("0")))
    until = _seconds_of_date(value)
    return None if until is None else max(until - (time.time() if now is None else now), 0.0)


def _seconds_of_date(value: str) -> float | None:
    """Read a date in each form of RFC 9110, 5.6.7, and as mail has it; None for what is none."""
    if not _HTTP_DATE.fullmatch(value):
        return None
    try:
        parsed = parsedate_tz(value)
        if parsed is None:
            return None
        year, month, day, hour, minute, second = parsed[:6]
        datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)  # raises where a part is out of range
        return mktime_tz(parsed)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
