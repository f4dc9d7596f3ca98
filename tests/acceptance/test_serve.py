"""`relay serve` as a process: it starts, answers, drains on SIGTERM; and commands that ask it by --api."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from relay.cli import cli
from relay.client import Client, calls
from relay.operations import tokens
from relay.operations.tokens import RIGHTS
from tests.support import seeding
from tests.support.processes import ROOT, Process, WarmProcess
from tests.support.waiting import wait_until

Serve = Callable[..., Process]


@pytest.fixture
def serve(tmp_path: Path, database_url: str) -> Iterator[Serve]:
    """Starts `relay serve` on a free port, and waits until it listens."""
    started: list[Process] = []

    def start(*options: str, wait: bool = True) -> Process:
        program = ["-m", "relay", "serve", "--listen", "127.0.0.1:0", *options]
        process = WarmProcess(program, tmp_path / f"serve-{len(started)}.log", {"RELAY_DATABASE_URL": database_url})
        started.append(process)
        if wait:
            wait_until(lambda: "serving on" in process.text or not process.alive, timeout_seconds=60)
        return process

    yield start
    for process in started:
        process.end()


@pytest.fixture
def token(engine) -> str:
    with engine.begin() as connection:
        return tokens.create(connection, None, name="test", rights=RIGHTS, whose=None).text


def address_of(process: Process) -> str:
    return re.findall(r"serving on (http://\S+)", process.text)[0]


def test_it_answers_and_leaves_by_sigterm_with_0(serve: Serve, token: str) -> None:
    process = serve()
    with Client(address_of(process), token) as relay:
        assert relay(calls.get_own_token()).name == "test"
        assert list(relay.pages(calls.get_events())) == []
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "serving ended" in process.text
    assert "Traceback" not in process.text
    assert token not in process.text


def test_health_and_metrics_have_an_address_of_their_own_and_need_no_token(serve: Serve, token: str) -> None:
    process = serve("--metrics-listen", "127.0.0.1:0")
    (health,) = re.findall(r"health and metrics on (http://\S+)/ready", process.text)
    assert httpx.get(f"{health}/live", verify=False).json() == {"live": True}
    assert httpx.get(f"{health}/ready", verify=False).json()["ready"] is True
    assert "outbox_relay_database_up 1.0" in httpx.get(f"{health}/metrics", verify=False).text
    assert httpx.get(f"{health}/api/v1/events", verify=False).status_code == 404
    taken = serve("--metrics-listen", health.removeprefix("http://"), wait=False)
    assert taken.wait(60) == 2
    assert f"metrics_listen: cannot listen on {health.removeprefix('http://')}: " in taken.text
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


def test_sigterm_answers_what_is_under_way_and_takes_nothing_new(serve: Serve, token: str, engine) -> None:
    process = serve()
    address = address_of(process)
    with engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="acme")
    with engine.begin() as holder, Client(address, token) as relay:
        holder.exec_driver_sql("lock table outbox.subscriptions in access exclusive mode")
        asked = subprocess.Popen(
            [sys.executable, "-c", _ASK, address, token, name], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        wait_until(lambda: bool(holder.exec_driver_sql(_WAITING).scalar_one()), timeout_seconds=30)
        process.signal(signal.SIGTERM)
        wait_until(lambda: not listens(address), timeout_seconds=30)
        assert process.alive
        assert relay is not None
    output, _ = asked.communicate(timeout=60)
    assert output.strip() == "200"
    assert process.wait() == 0


_ASK = """
import sys, httpx
address, token, name = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"}
print(httpx.get(f"{address}/api/v1/subscriptions/{name}", headers=headers, timeout=60).status_code)
"""
_WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


def listens(address: str) -> bool:
    host, port = address.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_port_in_use_is_one_line_with_its_mend(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve("--listen", f"127.0.0.1:{port}", wait=False)
        assert process.wait() == 2
    (line,) = process.text.splitlines()
    assert line == (
        f"relay: listen: cannot listen on 127.0.0.1:{port}: Address already in use;"
        " stop what listens there, or give another --listen"
    )


def test_a_database_without_the_schema_is_told_before_it_listens(tmp_path: Path, empty_database_url: str) -> None:
    environment = {"RELAY_DATABASE_URL": empty_database_url}
    process = WarmProcess(["-m", "relay", "serve", "--listen", "127.0.0.1:0"], tmp_path / "out", environment)
    try:
        assert process.wait() == 2
    finally:
        process.end()
    assert "relay migrate" in process.text
    assert "serving" not in process.text


def test_a_malformed_request_is_answered_and_the_next_one_too(serve: Serve, token: str) -> None:
    address = address_of(serve())
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert (
        httpx.get(f"{address}/api/v1/token", headers={"Authorization": f"Bearer {token}"}, verify=False).status_code
        == 200
    )


class TestByApi:
    """Each command prints the same by --api as from the database."""

    @pytest.fixture
    def run(self, serve: Serve, token: str, database_url: str, tmp_path: Path) -> Callable[..., tuple[str, str]]:
        address = address_of(serve())
        file = tmp_path / "token"
        file.write_text(f"{token}\n")

        def both(*words: str) -> tuple[str, str]:
            remote = relay(*words, "--api", address, "--api-token-file", str(file))
            return relay(*words, "--database-url", database_url), remote

        return both

    def test_reading_commands_print_the_same(self, run, engine) -> None:
        with engine.begin() as connection:
            sub = seeding.subscribe(connection, tenant="acme")
            evt = seeding.record(connection, tenant="acme")
            made = seeding.resolve(connection, evt, sub, sub, sub)
            for one, verdict in zip(made, ("retry", "dead", "delivered"), strict=True):
                seeding.attempt(connection, one, verdict, error="no")
        for words in (
            ("subscriptions", "list", "--json"),
            ("subscriptions", "list"),
            ("subscriptions", "show", sub, "--json"),
            ("events", "list", "--tenant", "acme", "--since", "1h", "--json"),
            ("events", "show", evt),
            ("deliveries", "list", "--json"),
            ("deliveries", "list", "--state", "delivered"),
            ("deliveries", "show", made[0], "--json"),
            ("deliveries", "attempts", "--subscription", sub, "--outcome", "failed", "--json"),
            ("dead-letters", "list", "--limit", "5", "--json"),
            ("dead-letters", "show", made[1]),
        ):
            local, remote = run(*words)
            assert remote == local, words
            assert local, words
        local, remote = run("status", "--json")
        assert json.loads(local).keys() == json.loads(remote).keys()
        local, remote = run("deliveries", "retry", made[0], "--dry-run")
        assert local == remote == "1 deliveries would be due now\n" + made[0] + "\n"

    def test_what_changes_something_does_it(self, run, engine, database_url) -> None:
        with engine.begin() as connection:
            sub = seeding.subscribe(connection)
            first, second = (seeding.resolve(connection, seeding.record(connection), sub, sub) for _ in range(2))
            for one in (*first, *second):
                seeding.attempt(connection, one, "dead")
        local, remote = run("dead-letters", "purge", "--subscription", sub, "--limit", "1", "--yes")
        assert local == remote == "purged 1\n"
        paused = [json.loads(text)["state"] for text in run("subscriptions", "pause", sub, "--json")]
        assert paused == ["paused", "paused"]


def relay(*words: str) -> str:
    """Run a command in this process; a new one takes seconds to load, where the machine is busy."""
    ended = CliRunner().invoke(cli, list(words))
    assert ended.exit_code == 0, ended.output
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "code", "said"),
    [
        (["--api", "http://127.0.0.1:1"], {"RELAY_API_TOKEN": "rtk_x"}, 3, "api: ConnectError"),
        (["--api", "http://127.0.0.1:1"], {}, 2, "RELAY_API_TOKEN"),
        (["--api", "relay.internal"], {"RELAY_API_TOKEN": "rtk_x"}, 2, "api: is no URL"),
        (["--api", "http://x", "--database-url", "postgresql://x/y"], {"RELAY_API_TOKEN": "x"}, 2, "exclude"),
        (["--api-token-file", "/nowhere"], {}, 2, "goes with --api"),
        (["--api", "http://x", "--api-token-file", "/nowhere"], {}, 2, "cannot read /nowhere"),
    ],
)
def test_a_wrong_api_is_one_line(words, environment, code, said) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    program = [sys.executable, "-m", "relay", "events", "list", *words]
    ended = subprocess.run(program, env=kept | environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
