"""Write log lines: one for each change of state, without secrets, payloads and headers; as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from relay.telemetry.redaction import redact

if TYPE_CHECKING:
    from relay.config.options import Config

__all__ = ["set_up_logging"]


class _Text(logging.Formatter):
    """`2026-11-21T23:38:13.123Z warning relay.database: away for 10 s`, a traceback after it where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_utc(record)} {record.levelname.lower()} {record.name}: {redact(record.getMessage())}"
        return f"{line}\n{redact(self.formatException(record.exc_info))}" if record.exc_info else line


class _Json(logging.Formatter):
    """The same as one JSON object a line: at, level, logger, process, message, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(config: Config) -> None:
    """Write every log line of this process to standard error, in the configured form and from the configured level.

    Libraries log warnings and errors only: below that, some log what they read, such as an answer's headers.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if config.log_format == "json" else _Text())
    level = logging.getLevelNamesMapping()[config.log_level.upper()]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for ours in ("relay", "outbox"):
        logging.getLogger(ours).setLevel(level)
    if config.log_level != "debug":
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of each failed transaction; the relay sums up


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
