"""Where a database is at home: a copy of it sends nothing until a person adopts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import operator_only

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Home", "adopt", "read_home"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where the database is (`here`), and where it was noted to be at home: nowhere yet, before its first relay ran.

    Each place is a text that names the database and its cluster. It is a copy where it was at home elsewhere.
    """

    here: str
    noted: tuple[str, ...]

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """The places that were home to what this one was copied from."""
        return tuple(place for place in self.noted if place != self.here)

    @property
    def is_copied(self) -> bool:
        """Whether it is a copy that nobody adopted: no relay sends from it."""
        return bool(self.elsewhere)


_READ = text("select outbox.here() as here, array(select place from outbox.home order by place) as noted")
_ADOPT = text("select outbox.adopt()")


def read_home(connection: Connection, tenant: str | None) -> Home:
    """Return where the database is, and where it is at home. For the operator only."""
    operator_only(tenant, "home")
    row = connection.execute(_READ).one()
    return Home(here=row.here, noted=tuple(row.noted))


def adopt(connection: Connection, tenant: str | None) -> Home:
    """Make the place where the database is its home: relays send from it, within a second of the commit.

    It is noted in the audit, and nothing is discarded: what is pending and due goes out. For the operator only.

    Returns:
        How it stood before.
    """
    operator_only(tenant, "home")
    before = read_home(connection, tenant)
    connection.execute(_ADOPT)
    return before
