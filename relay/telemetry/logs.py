"""Write log lines: one for each change of state, without secrets, payloads and headers; as text or as JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import TYPE_CHECKING

from relay.telemetry.redaction import redact
from relay.telemetry.writing import BackgroundHandler

if TYPE_CHECKING:
    from relay.config.options import Config

__all__ = ["set_up_logging"]


class _Text(logging.Formatter):
    """`2026-11-21T23:38:13.123Z warning relay.database: away for 10 s`, a traceback after it where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_utc(record)} {record.levelname.lower()} {record.name}: {redact(record.getMessage())}"
        return f"{line}\n{redact(self.formatException(record.exc_info))}" if record.exc_info else line


_NAMES = {
    "aud": "audit_id",
    "bat": "batch_id",
    "bulk": "bulk_operation_id",
    "dlv": "delivery_id",
    "ers": "erasure_id",
    "evt": "event_id",
    "inb": "inbox_id",
    "lnk": "portal_link_id",
    "sub": "subscription_id",
    "tok": "token_id",
    "tst": "requested_test_id",
}
_ID = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(_NAMES)})_[0-7][0-9a-hjkmnp-tv-z]{{25}}(?![A-Za-z0-9])")


class _Json(logging.Formatter):
    """The same as one JSON object a line: at, level, logger, process, message, traceback.

    subscription_id, event_id, delivery_id, token_id and the others are the first of their kind that the message names.
    request_id is that of the HTTP request which the line is about: ours, or the one that its caller gave.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": (message := redact(record.getMessage())),
        }
        if request_id := getattr(record, "request_id", None):
            entry["request_id"] = request_id
        for found in _ID.finditer(message):
            entry.setdefault(_NAMES[found[1]], found[0])
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(config: Config) -> None:
    """Write every log line of this process to standard error, in the configured form and from the configured level.

    No caller waits for its reader; see writing.py. Libraries log warnings and errors only: below that, some log what
    they read, such as an answer's headers.
    """
    formatter = _Json() if config.log_format == "json" else _Text()
    handler = _handler(formatter)
    handler.setFormatter(formatter)
    level = logging.getLevelNamesMapping()[config.log_level.upper()]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for ours in ("relay", "outbox"):
        logging.getLogger(ours).setLevel(level)
    if config.log_level != "debug":
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of each failed transaction; the relay sums up


def _handler(formatter: logging.Formatter) -> logging.Handler:
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # it was replaced by something in memory, which takes a line at once
        return logging.StreamHandler(sys.stderr)
    return BackgroundHandler(descriptor, lambda count: formatter.format(_dropped(count)))


def _dropped(count: int) -> logging.LogRecord:
    text = "%d log lines were dropped here: nobody took them from standard error"
    return logging.LogRecord("relay.telemetry", logging.WARNING, __file__, 0, text, (count,), None)


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
