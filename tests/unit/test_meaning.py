"""Every error that PostgreSQL can give has one considered meaning, and what a person has to mend has a mend."""

from __future__ import annotations

import inspect

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from relay.cli.failures import explain
from relay.store.postgres_errors import (
    CLASSES,
    CODES,
    Meaning,
    is_refusal,
    meaning_of,
    mend_of,
    mend_of_line,
    one_line,
    sqlstate_of,
)

EVERY = {
    kind.sqlstate: kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, psycopg.Error) and isinstance(kind.sqlstate, str)
}
# What somebody decided on purpose and may not change by accident; the rest has the meaning of its class.
SAID = {
    Meaning.AWAY: "08000 08003 08006 08P01 0A000 25006 25P02 25P03 25P04 26000 57P01 57P02 57P03 57P05",
    Meaning.BUSY: "40001 40P01 53000 53200 53300 55006 55P03 57014 72000",
    Meaning.REFUSED: "21000 22003 22021 22P05 23502 23505 23514 54000 P0001 XX000 XX001 XX002",
    Meaning.SETUP: "28000 28P01 3D000 3F000 42501 42703 42883 42P01 53100 53400 57P04 58030",
    Meaning.OURS: "24000 25001 2D000 34000 42601 42804 55P04",
}


def test_every_sqlstate_has_a_meaning_that_somebody_gave_it() -> None:
    assert len(EVERY) > 250
    assert [state for state in EVERY if state not in CODES and state[:2] not in CLASSES] == []
    assert {meaning_of(kind("x")) for kind in EVERY.values()} == set(Meaning)


def test_the_table_names_only_what_exists_and_nothing_twice() -> None:
    assert CODES.keys() <= EVERY.keys()
    assert CLASSES.keys() == {state[:2] for state in EVERY}
    assert [state for state, meaning in CODES.items() if CLASSES[state[:2]] is meaning] == []


@pytest.mark.field("F61", "F102")
@pytest.mark.parametrize(("meaning", "state"), [(m, state) for m, states in SAID.items() for state in states.split()])
def test_what_each_says(meaning: Meaning, state: str) -> None:
    assert meaning_of(EVERY[state]("x")) is meaning


def test_what_a_person_has_to_mend_comes_with_the_mend() -> None:
    mends = {state: mend_of(kind("x")) for state, kind in EVERY.items()}
    setup = {state for state, kind in EVERY.items() if meaning_of(kind("x")) is Meaning.SETUP}
    assert {state for state in setup if not mends[state]} == set()
    assert {state for state, mend in mends.items() if mend} <= setup
    assert "relay migrate" in mends["42P01"]
    assert "disk" in mends["53100"]


@pytest.mark.parametrize(
    ("text", "state", "meaning"),
    [
        ('failed: FATAL:  database "shop" does not exist', "3D000", Meaning.SETUP),
        ('failed: FATAL:  password authentication failed for user "u"', "28P01", Meaning.SETUP),
        ('failed: FATAL:  role "u" does not exist', "28000", Meaning.SETUP),
        ("failed: FATAL:  sorry, too many clients already", "53300", Meaning.BUSY),
        ("failed: FATAL:  the database system is starting up", "57P03", Meaning.AWAY),
        ("failed: FATAL:  could not write init file", "53100", Meaning.SETUP),
        ('failed: FATAL:  could not write to file "x": No space left on device', "53100", Meaning.SETUP),
        ("failed: session is read-only", "25006", Meaning.AWAY),
        ("failed: server is in hot standby mode", "25006", Meaning.AWAY),
        ("failed: Connection refused", None, Meaning.AWAY),
        ("consuming input failed: server closed the connection unexpectedly", None, Meaning.AWAY),
    ],
)
def test_a_failed_login_is_known_by_its_words(text: str, state: str | None, meaning: Meaning) -> None:
    error = psycopg.OperationalError(text)
    assert (sqlstate_of(error), meaning_of(error)) == (state, meaning)


@pytest.mark.parametrize(
    ("text", "meaning", "mend"),
    [
        ('permission denied for database "shop"', Meaning.SETUP, "grant connect on that database"),
        ('database "shop" is not currently accepting connections', Meaning.BUSY, "allow_connections true"),
        ('too many connections for role "relay"', Meaning.BUSY, "raise its connection limit"),
        ('too many connections for database "shop"', Meaning.BUSY, "raise its connection limit"),
    ],
)
def test_a_login_that_somebody_shut_comes_with_what_opens_it(text: str, meaning: Meaning, mend: str) -> None:
    error = psycopg.OperationalError(f"connection failed: FATAL:  {text}")
    assert meaning_of(error) is meaning
    assert mend in mend_of(error)


def test_errors_without_a_code() -> None:
    assert meaning_of(TimeoutError()) is meaning_of(ConnectionResetError()) is Meaning.AWAY
    assert meaning_of(psycopg.InterfaceError("closed")) is Meaning.AWAY
    assert meaning_of(psycopg.ProgrammingError("no result")) is Meaning.OURS
    assert meaning_of(psycopg.DataError("a NUL in a text")) is Meaning.REFUSED


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        (one_line(psycopg.errors.DiskFull("could not extend file")), "free space on the server's disk"),
        (
            one_line(psycopg.errors.InsufficientPrivilege("denied")),
            "grant outbox_relay to its role; if it has that, run `relay migrate`, which gives what is missing",
        ),
        (one_line(psycopg.errors.LockNotAvailable("in use")), ""),
        (one_line(psycopg.errors.UniqueViolation("twice")), ""),
        ("lookup: no error", ""),
        ("disk full", ""),
        ("", ""),
    ],
)
def test_an_error_that_was_written_down_still_tells_its_mend(line: str, mend: str) -> None:
    assert mend_of_line(line) == mend


def test_a_code_that_a_trigger_made_up_is_about_the_row() -> None:
    error = psycopg.errors.RaiseException("no")
    error.sqlstate = "SHOP1"
    assert is_refusal(error)


@pytest.mark.field("F102")
@pytest.mark.parametrize(
    ("error", "code", "mend"),
    [
        (psycopg.errors.DiskFull("could not extend file"), 1, "free space on the server's disk"),
        (psycopg.errors.UndefinedTable('relation "outbox.events" does not exist'), 2, "run `relay migrate`"),
        (psycopg.OperationalError('database "shop" does not exist'), 3, "create the database"),
        (psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"), 1, "try again"),
        (psycopg.errors.QueryCanceled("canceling statement due to statement timeout"), 1, "narrow it with"),
        (psycopg.errors.TransactionTimeout("terminating connection due to transaction timeout"), 1, "narrow it with"),
        (psycopg.errors.IdleInTransactionSessionTimeout("idle-in-transaction timeout"), 3, "unreachable: idle-in-"),
    ],
)
def test_a_command_names_the_mend_too(error: psycopg.Error, code: int, mend: str) -> None:
    ended, line = explain(DBAPIError("select 1", None, error))
    assert ended == code
    assert mend in line
