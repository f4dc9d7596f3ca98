"""How a command reads a time that Python has no datetime for: as the nearest one that it has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from psycopg import DataError
from psycopg.types.datetime import TimestamptzLoader

if TYPE_CHECKING:
    from psycopg.abc import Buffer

__all__ = ["FIRST", "LAST", "NearestTime"]

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class NearestTime(TimestamptzLoader):
    """Reads infinity, years before Christ and from 10000 on, so that no row that has one ends a command.

    The schema's CHECKs refuse them, but rows may be older than the checks, and what is parked is due at infinity.
    """

    def load(self, data: Buffer) -> datetime:
        """Return the time of a timestamptz in text form."""
        try:
            return super().load(data)
        except DataError:
            written = bytes(data)
            return FIRST if written == b"-infinity" or written.endswith(b"BC") else LAST
