"""`relay inbox`: list, show and replay; a replay goes out by the relay's own way, signed anew, under its policy."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from outbox.signing.verify import new_secret
from relay.cli import cli
from tests.support import databases

SECRET = new_secret()
BODY = b'{"type":"demo.approved","timestamp":"2026-11-21T10:00:00Z","data":{"demo":7}}'
LOOPBACK = {"RELAY_ALLOW_NETWORKS": "127.0.0.0/8", "RELAY_ALLOW_HTTP": "true"}


@pytest.fixture(scope="module")
def url(server_url: str, migrated_template: str) -> Iterator[str]:
    with databases.database(server_url, template=migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[sa.Engine]:
    with databases.engine_on(url) as engine:
        yield engine


Run = Callable[..., Result]


@pytest.fixture
def run(url: str) -> Run:
    """Run `relay inbox …` on the database."""

    def run(*arguments: str, **environment: str) -> Result:
        given = {"RELAY_DATABASE_URL": url, "RELAY_ACTOR": "alice", **environment}
        return CliRunner().invoke(cli, ["inbox", *arguments], env=given, standalone_mode=False)

    return run


def receive(engine: sa.Engine, message_id: str, *, source: str = "n8n", **rules: Any) -> str:
    """Receive one message, whose application raises where its id begins with `bad`; return its row's id."""

    def act(message: outbox.inbox.Received) -> None:
        message.entity = "demo:7"
        if message_id.startswith("bad"):
            raise RuntimeError("no such demo")

    headers = outbox.signed_headers(SECRET, message_id, BODY)
    request = outbox.inbox.Request("POST", "/hooks", tuple({**headers, "User-Agent": "n8n"}.items()), BODY)
    with Session(engine) as session:
        with suppress(RuntimeError):
            outbox.inbox.process(session, request, SECRET, act, source=source, **rules)
        return str(outbox.inbox.messages(session, message=message_id, limit=1).items[0].id)


def test_list_has_filters_cursors_and_json(engine: sa.Engine, run: Run) -> None:
    for name in ("list-1", "list-2", "bad-3"):
        receive(engine, name, source="listed")
    first = run("list", "--source", "listed", "--limit", "2", "--json")
    found = [json.loads(line) for line in first.stdout.splitlines()]
    assert [one["message_id"] for one in found] == ["bad-3", "list-2"]
    assert (found[0]["outcome"], found[0]["status"], found[0]["reason"]) == ("failed", 500, "RuntimeError")
    cursor = first.stderr.rsplit(" ", 1)[1].strip()
    (last,) = run("list", "--source", "listed", "--json", "--after", cursor).stdout.splitlines()
    assert json.loads(last)["message_id"] == "list-1"
    told = run("list", "--source", "listed", "--outcome", "failed", "--entity", "demo:7", "--since", "1h").stdout
    assert [line.split("\t")[-1] for line in told.splitlines()] == ["why", "RuntimeError: no such demo"]
    assert run("list", "--source", "listed", "--until", "1h", "--json").stdout == ""


def test_show_has_what_was_kept(engine: sa.Engine, run: Run) -> None:
    name = receive(engine, "show-1", keep_bytes=10)
    shown = json.loads(run("show", name, "--json").stdout)
    assert (shown["id"], shown["body"], shown["whole"], shown["known"]) == (name, '{"type":"d', False, True)
    text = run("show", name).stdout
    assert "webhook-id: show-1" in text
    assert f"Body ({len(BODY)} bytes; the rest was not kept)" in text
    assert "received: no inb_" in str(run("show", "inb_00000000000000000000000000").exception)


def test_replay_without_a_url_lets_the_next_copy_be_processed(engine: sa.Engine, run: Run) -> None:
    name = receive(engine, "again-1")
    assert "add --yes" in str(run("replay", name).exception).lower()
    assert "is forgotten; the sender's next copy is processed" in run("replay", name, "--yes").stdout
    assert json.loads(run("replay", name, "--yes", "--json").stdout) == {"id": name, "known_before": False}
    with engine.connect() as connection:
        noted = "select actor, action from outbox.audit where subject = :name"
        assert connection.execute(sa.text(noted), {"name": name}).all() == [("alice", "replayed")]
    again = receive(engine, "again-1")
    assert json.loads(run("show", again, "--json").stdout)["outcome"] == "accepted"


@contextmanager
def application(engine: sa.Engine, seen: list[str]) -> Iterator[str]:
    """The application, at its address: it notes what it acted upon."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        with Session(engine) as session:
            answer = outbox.inbox.process(session, environ, SECRET, lambda m: seen.append(m.id), source="n8n")
        start_response(f"{answer.status} Done", [("Content-Length", "0")])
        return [b""]

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hooks"
        finally:
            server.shutdown()
            thread.join()


def test_replay_to_a_url_sends_it_again_signed_anew(engine: sa.Engine, run: Run, tmp_path: Path) -> None:
    (secret := tmp_path / "secret.txt").write_text(SECRET + "\n")
    accepted, failed = receive(engine, "sent-1"), receive(engine, "bad-2")
    seen: list[str] = []
    with application(engine, seen) as url:
        given = ("--to", url, "--secret-file", str(secret), "--yes")
        for name, known in ((accepted, True), (failed, False)):
            sent = run("replay", name, *given, "--json", **LOOPBACK)
            found = json.loads(sent.stdout)
            assert (sent.return_value, found["ok"], found["status"], found["known_before"]) == (0, True, 200, known)
        refused = run("replay", accepted, *given)  # under the policy of a relay that may not call loopback
        assert "plain http is not allowed" in str(refused.exception)
        run("replay", accepted, *given, **LOOPBACK)
    assert seen == ["sent-1", "bad-2", "sent-1"]


def test_what_cannot_be_sent_again_is_refused_before_anything_is_forgotten(
    engine: sa.Engine, run: Run, tmp_path: Path
) -> None:
    (secret := tmp_path / "secret.txt").write_text(SECRET)
    (wrong := tmp_path / "wrong.txt").write_text("short")
    whole, cut = receive(engine, "whole-1"), receive(engine, "cut-1", keep_bytes=10)
    for name, url, file, why in (
        (cut, "http://127.0.0.1:8099/", secret, f"10 of {len(BODY)} bytes were kept"),
        (whole, "ftp://127.0.0.1/", secret, "url:"),
        (whole, "http://127.0.0.1:8099/", wrong, "secret"),
    ):
        ended = run("replay", name, "--to", url, "--secret-file", str(file), "--yes", **LOOPBACK)
        assert why in str(ended.exception)
    assert "go together" in str(run("replay", whole, "--to", "http://127.0.0.1:8099/", "--yes").exception)
    assert all(json.loads(run("show", name, "--json").stdout)["known"] for name in (whole, cut))
