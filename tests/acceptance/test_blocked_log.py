"""The reader of standard error stands still: a relay delivers, restarts its children and stops all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.application import Application
from tests.support.waiting import wait_until
from tests.unit.test_log_writing import fill

_PROCESSES = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and application_name like '% housekeeping'"
)


@contextmanager
def _relay_with_a_full_pipe(app: Application, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A relay whose standard error takes not one byte, and the reading end."""
    reading, writing = os.pipe()
    fill(writing)
    command = ["run", "--allow-http", "--allow-networks", "127.0.0.0/8", *options]
    relay = subprocess.Popen(
        [sys.executable, "-m", "relay", *command],
        env=os.environ | {"RELAY_DATABASE_URL": app.stage.database_url},
        stderr=writing,
    )
    os.close(writing)
    family = psutil.Process(relay.pid)
    try:
        yield relay, reading
    finally:
        for process in [*family.children(recursive=True), family] if relay.poll() is None else []:
            process.kill()
        relay.wait()
        os.close(reading)


@pytest.mark.field("F111")
def test_a_relay_delivers_and_stops_although_nobody_reads_its_log(app: Application) -> None:
    app.subscribe()
    app.record(50)
    with _relay_with_a_full_pipe(app, "--log-level", "debug") as (relay, _):
        app.receiver.wait_for(50)
        app.wait_settled()
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(20) == 0
    app.assert_each_once()


@pytest.mark.slow
@pytest.mark.field("F111")
def test_a_parent_restarts_its_children_although_nobody_reads_its_log(app: Application) -> None:
    app.subscribe()
    with _relay_with_a_full_pipe(app, "--processes", "2") as (relay, _):
        family = psutil.Process(relay.pid)
        first = set(wait_until(lambda: len(found := family.children()) == 2 and found))
        next(iter(first)).kill()
        wait_until(lambda: len({*family.children()} - first) == 1)
        app.record(20)
        app.receiver.wait_for(20)
        wait_until(lambda: app.one(_PROCESSES) == 2)  # a child that has not begun yet ends by the signal
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(20) == 0


@pytest.mark.slow
@pytest.mark.field("F111")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], 2),
        (["run", "--max-in-flight", "0"], 2),
        (["status", "--database-url", "postgresql://127.0.0.1:1/x"], 3),
    ],
    ids=["usage", "configuration", "database"],
)
def test_a_command_that_fails_ends_with_its_code_although_nobody_reads_why(arguments: list[str], code: int) -> None:
    reading, writing = os.pipe()
    fill(writing)
    try:
        done = subprocess.run([sys.executable, "-m", "relay", *arguments], stderr=writing, timeout=60, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == code
