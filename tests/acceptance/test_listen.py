"""`relay listen` as a process: verifies what comes, prints it, and ends when asked."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from outbox.signing.verify import new_secret, public_key, signed_headers, verify
from relay.local.embedded import free_port
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
        return httpx.post(self.url, content=body, headers=headers, verify=False).status_code

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


class Application(BaseHTTPRequestHandler):
    """An application that notes what comes, and answers as its server says."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        came: list[Any] = self.server.came  # type: ignore[attr-defined]
        came.append((self.path, self.headers.items(), body))
        status, answer = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Retry-After", "7")
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def application(status: int = 200, answer: bytes = b"") -> Iterator[tuple[str, list[Any]]]:
    """An application's URL, and what came to it: path, headers and body."""
    came: list[Any] = []
    with HTTPServer(("127.0.0.1", 0), Application) as server:
        server.came, server.answer = came, (status, answer)  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/webhooks?a=1", came
        finally:
            server.shutdown()
            thread.join()


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
        assert httpx.get(listener.url, verify=False).status_code == 405
        assert listener.printed == ""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(tmp_path: Path, how: signal.Signals) -> None:
    with listening(tmp_path) as listener, httpx.Client(verify=False) as client:
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
        httpx.post(url, content=b"{}", verify=False)
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


def test_a_webhook_is_forwarded_as_it_came(tmp_path: Path) -> None:
    headers = signed_headers(SECRET, "evt_1", BODY) | {
        "User-Agent": "outbox-relay/9", "X-Own": "a, b", "Connection": "x-hop", "X-Hop": "1",
    }  # fmt: skip
    with application() as (url, came), listening(tmp_path, "--secret", SECRET, "--forward", url) as listener:
        assert f"forwarding to {url})" in listener.greeting
        assert httpx.post(f"{listener.url}another/path", content=BODY, headers=headers, verify=False).status_code == 200
        ((path, received, body),) = came
        assert (path, body) == ("/webhooks?a=1", BODY)
        assert verify([SECRET], dict(received), body).id == "evt_1"
        expected = {name.lower(): value for name, value in headers.items()} | {"host": url.split("/")[2]}
        del expected["connection"], expected["x-hop"]
        assert expected.items() <= dict(received).items()
        assert not {"connection", "x-hop"} & dict(received).keys()
        assert "evt_1\n  81 bytes, signature verified, forwarded, answered 200\n" in listener.printed


def test_the_answer_of_the_application_is_the_answer(tmp_path: Path) -> None:
    with (
        application(500, b'{"title":"\xc3\xbc"}') as (url, came),
        listening(tmp_path, "--forward", url, "--json") as listener,
    ):
        answer = httpx.post(listener.url, content=BODY, verify=False)
        assert (answer.status_code, answer.json()) == (500, {"title": "ü"})
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "7"
        assert "connection" not in answer.headers
        shown = json.loads(listener.printed)
        assert (shown["status"], shown["forwarded"], shown["failure"]) == (500, True, None)
        assert len(came) == 1


def test_what_does_not_verify_is_not_forwarded(tmp_path: Path) -> None:
    with application() as (url, came), listening(tmp_path, "--secret", SECRET, "--forward", url) as listener:
        assert listener.post(BODY, signed_headers(new_secret(), "evt_1", BODY)) == 401
        assert httpx.get(listener.url, verify=False).status_code == 405
        assert came == []


def test_an_application_that_is_down_is_502_and_one_line(tmp_path: Path) -> None:
    url = f"http://localhost:{free_port()}"
    with listening(tmp_path, "--secret", SECRET, "--forward", url) as listener:
        answer = httpx.post(listener.url, content=BODY, headers=signed_headers(SECRET, "evt_1", BODY), verify=False)
        assert (answer.status_code, answer.text) == (502, "not forwarded: connection refused\n")
        assert "81 bytes, signature verified, answered 502, not forwarded: connection refused\n" in listener.printed


def test_a_sender_that_hangs_up_first_is_shown(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with listening(tmp_path, "--forward", url) as listener:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(listener.url, content=BODY, timeout=0.5, verify=False)
            wait_until(lambda: "not verified, not answered, the sender hung up first\n" in listener.printed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:8000", "must begin with http:// or https://"),
        ("ftp://127.0.0.1/", "its scheme must be https or http"),
        ("http://10.0.0.5/", "10.0.0.5 is not this machine; --allow-networks with its network permits it"),
        ("https://93.184.215.14/", "93.184.215.14 is not this machine; "),
        ("http://127.0.0.1:25/", "port 25 belongs to another protocol"),
        ("http://localhost:4004/hooks", "port 4004 is our own; give that of the application"),
    ],
)
def test_a_url_to_forward_to_that_cannot_be_is_one_line(url: str, reason: str) -> None:
    code, error = refused("--port", "4004", "--forward", url)
    assert code == 2
    assert error.startswith(f"relay: --forward: {reason}")
    assert error.count("\n") == 1


def test_another_network_may_be_allowed(tmp_path: Path) -> None:
    options = ("--forward", "http://192.0.2.1/", "--allow-networks", "192.0.2.0/24")
    with listening(tmp_path, *options) as listener:
        assert "forwarding to http://192.0.2.1/)" in listener.greeting


def test_an_own_status_and_forwarding_exclude_each_other() -> None:
    code, error = refused("--status", "500", "--forward", "http://127.0.0.1:8000/")
    assert code == 2
    assert "--forward and --status exclude each other" in error
