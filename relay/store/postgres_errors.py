"""What an error of PostgreSQL means to us: one table by SQLSTATE, the place where the data plane decides it.

The code of an error decides; where the table has no code, its class (the first two characters) does. A failed login has
no code: libpq gives its text only, and `sqlstate_of` reads the code from that where it can.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

import psycopg

from outbox._row_security import is_row_security, mend_row_security

__all__ = [
    "CLASSES",
    "CODES",
    "TOO_LONG",
    "Meaning",
    "is_locked",
    "is_new_condition",
    "is_refusal",
    "meaning_of",
    "mend_of",
    "mend_of_line",
    "one_line",
    "sqlstate_of",
]


class Meaning(StrEnum):
    """What to do about an error."""

    AWAY = "away"
    """Close, dial again, keep the answers: the server is gone, goes, or is no primary (any more)."""
    BUSY = "busy"
    """Try again on the same connection; nothing is wrong with the rows."""
    REFUSED = "refused"
    """The server refuses these very rows: isolate them, they block all others."""
    SETUP = "not usable"
    """A person has to mend something; `mend_of` says what. Nothing is given up until then."""
    OURS = "misused"
    """Our own fault. Nothing is given up: a newer version will mend it."""


_AWAY, _BUSY, _REFUSED, _SETUP, _OURS = Meaning

TOO_LONG = ("57014", "25P04")
"""A statement, or a transaction, was ended since it took longer than the server's settings allow."""

CLASSES = {
    **dict.fromkeys(("08",), _AWAY),
    **dict.fromkeys(("40", "53", "55", "57", "72"), _BUSY),
    # 09, 27, 38, 39, 44, P0, HV: from a trigger that somebody put on our tables. 54: from too large a row.
    **dict.fromkeys(("09", "22", "23", "27", "38", "39", "44", "54", "HV", "P0", "XX"), _REFUSED),
    **dict.fromkeys(("0L", "0P", "28", "3D", "3F", "58", "F0"), _SETUP),
    **dict.fromkeys(("02", "03", "0B", "0F", "0Z", "10", "20", "21", "24", "25", "26", "2B", "2D", "2F"), _OURS),
    **dict.fromkeys(("0A", "34", "3B", "42"), _OURS),
}
"""The meaning of each class of PostgreSQL's list. A code of a class that is not here is a trigger's own: REFUSED."""

CODES = {
    # "cannot set transaction read-write mode during recovery": what `begin read write` gets from a standby. A cached
    # plan that no longer fits has this code too, and a new connection mends that.
    "0A000": _AWAY,
    "25006": _AWAY,  # read only: a standby, or a fenced primary
    "25P02": _AWAY,  # somebody left a failed transaction on the connection (a pooler)
    "25P03": _AWAY,  # the server ended the session: idle in a transaction for too long
    "25P04": _AWAY,  # … or a transaction that took too long
    "26000": _AWAY,  # a prepared statement of another session (a pooler)
    "57P01": _AWAY,
    "57P02": _AWAY,
    "57P03": _AWAY,
    "57P05": _AWAY,
    "57P04": _SETUP,  # the database was dropped
    "42501": _SETUP,
    "42703": _SETUP,
    "42704": _SETUP,
    "42883": _SETUP,
    "42P01": _SETUP,
    "53100": _SETUP,  # the disk is full: the server is there, and takes nothing
    "53400": _SETUP,
    "55P02": _SETUP,  # a setting that the server must be restarted for
    "55P04": _OURS,
    "21000": _REFUSED,  # two rows where our statement can take one
}
"""The codes that mean something else than their class."""

_MIGRATE = "run `relay migrate`, or update outbox-relay to the schema's version"
_CREATE = "create the database, then run `relay migrate`, or correct database_url"
_DAMAGE = "look at the server's log and disk; restore the database if it is damaged"
_LOGIN = "check user and password of database_url, and the server's pg_hba.conf"
_MENDS = {
    **dict.fromkeys(("3F", "42703", "42704", "42883", "42P01"), _MIGRATE),
    **dict.fromkeys(("3D", "57P04"), _CREATE),
    **dict.fromkeys(("0L", "0P", "28"), _LOGIN),
    **dict.fromkeys(("58",), _DAMAGE),
    "42501": "grant outbox_relay to its role; if it has that, run `relay migrate`, which gives what is missing",
    "53100": "free space on the server's disk",
    "53400": "raise the server's limit that it names",
    "55P02": "undo the setting in database_url",
    "F0": "mend the server's configuration",
}


class _Login(NamedTuple):
    words: re.Pattern[str]
    code: str
    mend: str = ""


# The server's words in English; in another language a failed login counts as AWAY, and the log repeats the words.
_LOGINS = (
    _Login(re.compile(r'database "[^"]*" does not exist'), "3D000"),
    _Login(
        re.compile(r'database "[^"]*" is not currently accepting connections'),
        "55000",
        "alter database … allow_connections true",
    ),
    _Login(re.compile(r"password authentication failed|no password supplied"), "28P01"),
    _Login(re.compile(r'no pg_hba\.conf entry|role "[^"]*" (does not exist|is not permitted to log in)'), "28000"),
    _Login(re.compile(r"permission denied for database"), "42501", "grant connect on that database to its role"),
    _Login(
        re.compile(r"too many connections for (role|database)"),
        "53300",
        "raise its connection limit: each relay process holds three, and commands one each",
    ),
    _Login(re.compile(r"too many (clients|connections)|remaining connection slots"), "53300"),
    _Login(
        re.compile(r"database system is (starting up|shutting down|in recovery|not yet accepting|not accepting)"),
        "57P03",
    ),
    # The disk is full: a new session cannot even write the file that it begins with.
    _Login(re.compile(r"could not write init file|No space left on device"), "53100"),
    _Login(re.compile(r"session is read-only|server is in hot standby mode"), "25006"),
)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the error's code of five characters; of a failed login what its text tells; else None."""
    state = getattr(error, "sqlstate", None)
    return getattr(_login_of(error), "code", None) if state is None else state


def _login_of(error: BaseException) -> _Login | None:
    """Return which login failed, where it is one."""
    if getattr(error, "sqlstate", None) is not None or not isinstance(error, psycopg.OperationalError):
        return None
    text = str(error)
    return next((login for login in _LOGINS if login.words.search(text)), None)


def meaning_of(error: BaseException) -> Meaning:
    """Return what an error of psycopg, of the socket (OSError) or a TimeoutError means."""
    state = sqlstate_of(error)
    if state == "0A000" and isinstance(error, psycopg.Error) and error.diag.context:
        return Meaning.REFUSED  # raised inside a function, so a trigger on our tables: `begin` has no context
    if state is not None:
        return CODES.get(state) or CLASSES.get(state[:2], Meaning.REFUSED)
    if isinstance(error, psycopg.DataError):  # the driver refused a value
        return Meaning.REFUSED
    gone = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) or not isinstance(error, psycopg.Error)
    return Meaning.AWAY if gone else Meaning.OURS


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server refused these very rows."""
    return meaning_of(error) is Meaning.REFUSED


def is_new_condition(error: BaseException) -> bool:
    """Tell whether a limit, or a policy of row level security, came after the connection, which asks for them once."""
    return sqlstate_of(error) in TOO_LONG or is_row_security(error)


def is_locked(error: BaseException) -> bool:
    """Tell whether a statement gave up waiting, since somebody else holds what it needed."""
    return sqlstate_of(error) == "55P03"


def mend_of(error: BaseException) -> str:
    """Return what a person may do about it; empty where there is nothing to do but wait."""
    state = sqlstate_of(error) or ""
    if is_row_security(error):
        return mend_row_security(error)
    if (login := _login_of(error)) is not None and login.mend:
        return login.mend
    return _MENDS.get(state) or _MENDS.get(state[:2], "")


def mend_of_line(line: str) -> str:
    """Return what a person has to mend, of an error that `one_line` wrote down; empty where nothing but time helps."""
    kind = getattr(psycopg.errors, line.partition(":")[0], None)
    if not (isinstance(kind, type) and issubclass(kind, psycopg.Error)):
        return ""
    error = kind(line)
    return mend_of(error) if meaning_of(error) is Meaning.SETUP else ""


def one_line(error: BaseException) -> str:
    """Return the error's type and the first line of its text."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
