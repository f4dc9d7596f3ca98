"""A command that stops in a transaction (Ctrl-Z, SIGSTOP, a network that is cut) keeps nobody else for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa

from relay.config.options import Config
from relay.operations.connection import Database, begin
from relay.store import turns
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F92")

# The command itself, with a shorter bound, which stops itself when it has run its first statement with `{part}`.
STOPPING = """
import os, signal, sys
from sqlalchemy import Engine, event
from relay.store import turns
turns.LIMITS = turns.limits({seconds})
from relay.__main__ import run_command

@event.listens_for(Engine, "after_cursor_execute")
def stop(connection, cursor, statement, *more):
    if {part!r} in statement:
        os.kill(os.getpid(), signal.SIGSTOP)

sys.exit(run_command({arguments!r}))
"""
NAMES = ("idle_in_transaction_session_timeout", "tcp_keepalives_idle", "tcp_user_timeout")
READ = sa.text("select " + ", ".join(f"current_setting('{name}')" for name in NAMES))


@contextmanager
def stopped(database_url: str, seconds: int, part: str, *arguments: str) -> Iterator[None]:
    """A process of this command, stopped between a statement and its commit."""
    program = STOPPING.format(seconds=seconds, part=part, arguments=list(arguments))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"RELAY_DATABASE_URL": database_url},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_prune_that_stops_loses_its_turn(database_url: str) -> None:
    with (
        psycopg.connect(database_url) as other,
        stopped(database_url, 2, "outbox.retire_next_event_leaf", "prune"),
    ):
        began = time.monotonic()
        other.execute("set local lock_timeout = '15s'")
        other.execute(turns.TAKE.format(turn="retention"))
        assert time.monotonic() - began < 10


def test_another_relay_ends_what_the_server_does_not(database_url: str) -> None:
    """As where a command stops while it reads an answer on a Unix socket."""
    with (
        psycopg.connect(database_url, autocommit=True) as other,
        stopped(database_url, 3600, "outbox.retire_next_event_leaf", "prune"),
    ):

        def names() -> list[str]:
            return [row[1] for row in other.execute(turns.END_STOPPED, (list(turns.RELAYS), 0.2))]

        assert wait_until(names) == ["relay command"]


@pytest.mark.parametrize("kept", [0, 1])
def test_every_connection_of_a_command_has_the_bounds(database_url: str, kept: int) -> None:
    database = Database(Config(database_url=database_url), kept=kept)
    with database.connect() as connection:
        for _ in range(2):
            with begin(connection, None):
                assert tuple(connection.execute(READ).one()) == ("20s", "10", "20000")
    with database.transaction() as connection:
        assert tuple(connection.execute(READ).one()) == ("20s", "10", "20000")
        limit = connection.scalar(sa.text("select current_setting('statement_timeout')"))
        assert limit == ("30s" if kept else "0")
    database.close()
