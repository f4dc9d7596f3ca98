"""The embedded server: starts, survives a crash, and never outlives the process that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from relay.local import embedded
from tests.support.waiting import wait_until

_STARTS_AND_WAITS = """
import sys, time
from pathlib import Path
from relay.local import embedded
server = embedded.start(Path(sys.argv[1]))
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="outbox-embedded-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_free_port_is_none_that_the_system_gives_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [embedded.free_port() for _ in range(20)]
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert max(given) < 32_768 <= other.getsockname()[1]
        taken, free = other.getsockname()[1], given[0]
        monkeypatch.setattr(embedded, "OWN_PORTS", [taken] * 99 + [free])
        assert embedded.free_port() == free
        monkeypatch.setattr(embedded, "OWN_PORTS", [taken] * 100)
        assert embedded.free_port() not in (taken, free), "where all are taken, any"


def test_a_crash_of_the_server_keeps_what_was_committed(directory: Path) -> None:
    with embedded.start(directory) as server:
        with psycopg.connect(server.url()) as connection:
            connection.execute("create table kept as select 7 as number")
        port = server.port
        server.kill()
        server.start()
        assert server.port == port
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("select number from kept").fetchone() == (7,)


def test_a_stopped_server_starts_again_in_its_directory(directory: Path) -> None:
    with embedded.start(directory) as server, psycopg.connect(server.url()) as connection:
        connection.execute("create table kept as select 7 as number")
    with (
        embedded.start(directory, settings={"work_mem": "5MB"}) as server,
        psycopg.connect(server.url()) as connection,
    ):
        assert connection.execute("select number from kept").fetchone() == (7,)
        assert connection.execute("show work_mem").fetchone() == ("5MB",)
        assert connection.execute("show fsync").fetchone() == ("on",)
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)


def test_a_stranger_without_the_password_is_refused(directory: Path) -> None:
    with embedded.start(directory) as server:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", password="guess")
        assert server.url().split(":")[2].split("@")[0] not in repr(server)


def test_the_server_stops_when_its_starter_is_killed(directory: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", _STARTS_AND_WAITS, directory], stdout=subprocess.PIPE)
    with starter:
        assert starter.stdout is not None
        server_pid = int(starter.stdout.readline())
        assert _alive(server_pid)
        starter.send_signal(signal.SIGKILL)
    wait_until(lambda: not _alive(server_pid), message="the server outlived its starter")


def test_a_wrong_setting_is_reported_with_the_servers_words(directory: Path) -> None:
    with pytest.raises(embedded.EmbeddedServerError, match="no_such_setting"):
        embedded.start(directory, settings={"no_such_setting": "1"})


def test_a_missing_wheel_names_the_extra(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(embedded.EmbeddedServerError, match=r"pip install 'outbox-relay\[demo\]'"):
        embedded.start(directory)
