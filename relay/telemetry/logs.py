"""Log lines: one a change of state, never a secret, a payload or a header. Text for people, JSON for collectors."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from relay.telemetry.redaction import redacted

if TYPE_CHECKING:
    from relay.config.options import Config

__all__ = ["set_up_logging"]


class _Text(logging.Formatter):
    """`2026-11-21T23:38:13.123Z warning relay.database: away for 10 s`, a traceback after it where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_utc(record)} {record.levelname.lower()} {record.name}: {redacted(record.getMessage())}"
        return f"{line}\n{redacted(self.formatException(record.exc_info))}" if record.exc_info else line


class _Json(logging.Formatter):
    """The same as one JSON object a line: at, level, logger, process, message, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": redacted(record.getMessage()),
        }
        if record.exc_info:
            entry["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(config: Config) -> None:
    """Send every log line of this process to standard error, in the configured form and from the configured level.

    Of libraries only warnings and errors are shown: below that some tell what they read, such as an answer's headers.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if config.log_format == "json" else _Text())
    level = logging.getLevelNamesMapping()[config.log_level.upper()]
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for ours in ("relay", "outbox"):
        logging.getLogger(ours).setLevel(level)
    if config.log_level != "debug":
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # says each failed transaction that the relay sums up


def _utc(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
