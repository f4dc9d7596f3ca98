"""Why the database gives no result now, of an error that SQLAlchemy raised: for pages, API and commands."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from relay.store.postgres_errors import TOO_LONG, Meaning, meaning_of, mend_of, sqlstate_of

__all__ = ["Outage", "outage_of", "took_too_long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Why the database cannot answer, in words that name nothing of it. `mend` is its operator's; '' is to wait."""

    seen: str
    mend: str = ""


_AWAY = Outage(seen="is away and cannot be asked at the moment")
_FULL = "53100"
_BUSY = Outage(seen="is there, but cannot be asked at the moment")


def outage_of(error: SQLAlchemyError) -> Outage | None:
    """Return why the database cannot answer; None where it did, and refused what it was asked."""
    if not isinstance(error, DBAPIError):
        return _BUSY  # no connection of the pool was free in time
    meaning = meaning_of(error.orig) if error.orig is not None else Meaning.AWAY
    if meaning is Meaning.SETUP:
        assert error.orig is not None
        state = sqlstate_of(error.orig)
        seen = "its disk is full" if state == _FULL else "cannot be used"
        return Outage(seen=f"is there, but {seen} (SQLSTATE {state})", mend=mend_of(error.orig))
    return {Meaning.AWAY: _AWAY, Meaning.BUSY: _BUSY}.get(meaning)


def took_too_long(error: SQLAlchemyError) -> bool:
    """Tell whether the server ended a statement or transaction that took longer than its settings allow."""
    return isinstance(error, DBAPIError) and error.orig is not None and sqlstate_of(error.orig) in TOO_LONG
