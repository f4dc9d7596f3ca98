"""`relay listen` as a process: verifies what comes, prints it, and ends when asked."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from outbox.signing.verify import new_secret, public_key, signed_headers
from tests.support.processes import Process
from tests.support.waiting import wait_until

LISTEN = [sys.executable, "-m", "relay", "listen"]
SECRET = new_secret()
BODY = b'{"type":"order.placed","timestamp":"2026-01-01T00:00:00.000000Z","data":{"id":7}}'


class Listening(Process):
    """A `relay listen`; its URL and what it printed after saying so."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__([*LISTEN[1:], *options], directory / "listen.txt")
        wait_until(lambda: "\n" in self.text or not self.alive)
        self.greeting, _, _ = self.text.partition("\n")
        self.url = self.greeting.split()[2]

    def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        return httpx.post(self.url, content=body, headers=headers).status_code

    @property
    def printed(self) -> str:
        return self.text.partition("\n")[2]


@contextmanager
def listening(directory: Path, *options: str) -> Iterator[Listening]:
    listener = Listening(directory, *options)
    try:
        yield listener
    finally:
        listener.end()


def refused(*options: str) -> tuple[int, str]:
    """The exit code and standard error of a `relay listen` that ends by itself."""
    ended = subprocess.run([*LISTEN, *options], capture_output=True, text=True, timeout=30, check=False)
    return ended.returncode, ended.stderr


def test_a_signed_webhook_is_verified_and_printed(tmp_path: Path) -> None:
    with listening(tmp_path, "--secret", SECRET) as listener:
        assert listener.post(BODY, signed_headers(SECRET, "evt_1", BODY)) == 200
        assert "order.placed  evt_1\n  81 bytes, signature verified, answered 200\n" in listener.printed
        assert '      "id": 7\n' in listener.printed


def test_a_forged_webhook_is_answered_401_and_shown_as_such(tmp_path: Path) -> None:
    with listening(tmp_path, "--secret", SECRET, "--json") as listener:
        assert listener.post(BODY, signed_headers(new_secret(), "evt_1", BODY)) == 401
        shown = json.loads(listener.printed)
        assert (shown["verified"], shown["status"], shown["id"]) == (False, 401, "evt_1")
        assert "webhook-signature" in shown["problem"]


def test_secrets_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{new_secret()}\n{SECRET}\n")
    with listening(tmp_path, "--secret-file", str(tmp_path / "secrets"), "--status", "503", "--json") as listener:
        assert listener.post(BODY, signed_headers(SECRET, "evt_1", BODY)) == 503
        assert json.loads(listener.printed)["verified"] is True


def test_another_scheme_can_be_verified(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("a secret with spaces\n")
    options = ("--scheme", "notely", "--secret-file", str(tmp_path / "secrets"), "--json")
    with listening(tmp_path, *options) as listener:
        assert listener.post(BODY, signed_headers("a secret with spaces", "evt_1", BODY, scheme="notely")) == 200
        assert listener.post(BODY, signed_headers("another of them", "evt_1", BODY, scheme="notely")) == 401


def test_a_public_key_verifies(tmp_path: Path) -> None:
    secret = new_secret("standard", "ed25519")
    with listening(tmp_path, "--secret", public_key(secret)) as listener:
        assert listener.post(BODY, signed_headers(secret, "evt_1", BODY)) == 200
        assert listener.post(BODY, signed_headers(SECRET, "evt_1", BODY)) == 401


def test_without_a_secret_it_says_that_nothing_is_verified(tmp_path: Path) -> None:
    with listening(tmp_path) as listener:
        assert "signatures are not verified" in listener.greeting
        assert listener.post(b"hello", {}) == 200
        assert "not verified, answered 200\n  hello\n" in listener.printed


def test_what_is_not_a_post_is_not_a_webhook(tmp_path: Path) -> None:
    with listening(tmp_path) as listener:
        assert httpx.get(listener.url).status_code == 405
        assert listener.printed == ""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(tmp_path: Path, how: signal.Signals) -> None:
    with listening(tmp_path) as listener, httpx.Client() as client:
        assert client.post(listener.url, content=b"{}").status_code == 200
        before = listener.text
        listener.signal(how)
        assert listener.wait() == 0
        assert listener.text == before


def test_a_closed_pipe_ends_it_quietly() -> None:
    with subprocess.Popen(LISTEN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listener:
        assert listener.stdout
        assert listener.stderr
        url = listener.stderr.readline().split()[2]
        listener.stdout.close()
        httpx.post(url, content=b"{}")
        assert listener.wait(30) == 0
        assert listener.stderr.read() == ""


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, error = refused("--port", str(port))
    assert code == 2
    assert error.startswith(f"relay: --port: cannot listen on {port}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("prefix", ["whsec_", "whpk_"])
def test_a_secret_that_is_none_is_one_line_and_not_repeated(prefix: str) -> None:
    code, error = refused("--secret", f"{prefix}$$$")
    assert code == 2
    assert error.startswith("relay: secret: ")
    assert "$$$" not in error
    assert error.count("\n") == 1
