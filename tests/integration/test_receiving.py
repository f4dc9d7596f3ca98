"""docs/receiving.md: every receiver on that page is run and gets what the relay's own sender signed and sent."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import psycopg
import pytest
import svix.webhooks
import uvicorn
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.test.utils import override_settings
from django.urls import path

import outbox
from outbox.signing import schemes
from outbox.signing.verify import new_secret, public_key
from relay.http import AddressPolicy, DirectDialler, Endpoint, HttpSender
from tests.integration.test_cli_commands import run  # noqa: F401 - a fixture
from tests.support import django_site, readme
from tests.support.npm import Npm
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("receiving")  # one set of servers for all of them

DOCUMENT = readme.ROOT / "docs" / "receiving.md"
BLOCKS = readme.blocks(DOCUMENT)
SECRET = new_secret()
ID, EVENT = (
    "evt_1",
    {"type": "order.placed", "timestamp": "2026-11-21T10:00:00.123456Z", "data": {"ключ": [10.0, "\u2028"]}},
)
BODY = json.dumps(EVENT, ensure_ascii=False, indent=1).encode()
Handled = list[tuple[str, Any]]


def block(language: str, beginning: str) -> str:
    """The one block of this language in which a line begins so."""
    (found,) = [each.text for each in BLOCKS if each.language == language and f"\n{beginning}" in "\n" + each.text]
    return found


@dataclass
class Receiver:
    """One of the page's receivers while it runs: where it is, and what it took for an event."""

    url: str
    handled: Callable[[], Handled]


@contextmanager
def on_wsgi(app: Any) -> Iterator[int]:
    """Serve a WSGI application; yields its port."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def on_asgi(app: Any) -> Iterator[int]:
    """Serve an ASGI application; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def on_django(view: Any) -> Iterator[int]:
    """Serve the project around the page's view, whose CSRF protection is on; yields its port."""
    django_site.begin()
    project = override_settings(
        ROOT_URLCONF=(path("webhooks", transaction.non_atomic_requests(view)),),  # it has no database
        MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
        LOGGING_CONFIG=None,
    )
    with project, on_wsgi(get_wsgi_application()) as port:
        yield port


PYTHON = {
    "FastAPI": (on_asgi, lambda names: names["app"]),
    "Flask": (on_wsgi, lambda names: names["app"]),
    "Django": (on_django, lambda names: names["receive"]),
    "WSGI": (on_wsgi, lambda names: names["app"]),
}


@contextmanager
def in_python(framework: str) -> Iterator[Receiver]:
    """Run a Python block of the page."""
    serve, app_in = PYTHON[framework]
    handled: Handled = []
    names: dict[str, Any] = {"__name__": __name__, "handle": lambda event_id, event: handled.append((event_id, event))}
    exec(compile(block("python", f"# {framework}"), str(DOCUMENT), "exec", dont_inherit=True), names)
    with serve(app_in(names)) as port:
        yield Receiver(f"http://127.0.0.1:{port}/webhooks", lambda: list(handled))


# What stands before the page's block: what it calls, and which port it got.
BEFORE = """
const { Server } = require("net"), { listen } = Server.prototype;
const say = (what) => console.log(JSON.stringify(what));
Server.prototype.listen = function (...given) {
  return listen.apply(this, given).once("listening", () => say(this.address().port));
};
const handle = (id, event) => say([id, event]);
"""


@contextmanager
def in_node(npm: Npm, directory: Path) -> Iterator[Receiver]:
    """Run the page's receiver in Node.js."""
    log = directory / "said"
    with log.open("wb") as output:
        script = BEFORE + block("javascript", "const express")
        process = npm.start(script, {"WEBHOOK_SECRET": SECRET, "PORT": "0"}, output)
    try:
        wait_until(lambda: process.poll() is not None or log.read_bytes().endswith(b"\n"), timeout_seconds=60)
        port, *_ = said(log)
        yield Receiver(
            f"http://127.0.0.1:{port}/webhooks", lambda: [(event_id, event) for event_id, event in said(log)[1:]]
        )
    finally:
        process.kill()
        process.wait()


def said(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().split("\n") if line]


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Npm:
    return Npm(tmp_path_factory.mktemp("npm"), ("standardwebhooks@1.1.1", "express@5.2.1"))


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ExitStack, dict[str, Receiver]]]:
    """The receivers that were started, which run until the last test."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEBHOOK_SECRET", SECRET)
        yield stack, {}


@pytest.fixture(params=[*PYTHON, "Node.js"])
def receiver(request: pytest.FixtureRequest, running: Any, tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    stack, receivers = running
    if request.param not in receivers:
        in_one = in_python(request.param) if request.param in PYTHON else None
        in_one = in_one or in_node(request.getfixturevalue("npm"), tmp_path_factory.mktemp("node"))
        receivers[request.param] = stack.enter_context(in_one)
    return receivers[request.param]


@dataclass
class Request:
    """What a relay sends: signed now with the secret that the receiver has, or not."""

    secrets: tuple[str, ...] = (SECRET,)
    age_seconds: int = 0
    body: bytes = BODY
    sent: bytes = BODY
    without: str = ""
    headers: bytes = field(init=False)

    def __post_init__(self) -> None:
        at = b"%d" % (int(time.time()) - self.age_seconds)
        signed = schemes.signer("standard", self.secrets).lines(ID.encode(), b"order.placed", at, self.body)
        lines = [line for line in signed.splitlines(keepends=True) if not line.startswith(f"{self.without}:".encode())]
        self.headers = b"content-type: application/json\r\n" + b"".join(lines)


async def status_of(receiver: Receiver, request: Request) -> int | None:
    """Send by the relay's own sender; what the receiver answered."""
    policy = AddressPolicy(["127.0.0.0/8"], allow_http=True)
    sender = HttpSender(DirectDialler(policy), user_agent="outbox-relay/test")
    try:
        outcome = await sender.send(Endpoint.of(receiver.url), request.headers, request.sent, 30)
    finally:
        await sender.close()
    assert outcome.error is None or outcome.status is not None, outcome
    return outcome.status


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_receiver_of_the_page_takes_what_a_relay_signs(receiver: Receiver) -> None:
    before = len(receiver.handled())
    for secrets in ((SECRET,), (new_secret(), SECRET), (new_secret("standard", "ed25519"), SECRET)):
        assert await status_of(receiver, Request(secrets)) == 204
    assert receiver.handled()[before:] == [(ID, EVENT)] * 3


FORGED: dict[str, dict[str, Any]] = {
    "other secret": {"secrets": (new_secret(),)},
    "other body": {"sent": BODY + b" "},
    "no body": {"sent": b""},
    "old": {"age_seconds": 330},
    "early": {"age_seconds": -330},
    "unsigned": {"without": "webhook-signature"},
    "no time": {"without": "webhook-timestamp"},
    "no id": {"without": "webhook-id"},
}


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_receiver_of_the_page_refuses_forgeries(receiver: Receiver) -> None:
    before = len(receiver.handled())
    assert {name: await status_of(receiver, Request(**what)) for name, what in FORGED.items()} == dict.fromkeys(
        FORGED, 401
    )
    assert len(receiver.handled()) == before


def test_the_public_key_verifies_in_node(npm: Npm) -> None:
    secret = new_secret("standard", "ed25519")
    key, now = public_key(secret), int(time.time())
    good = outbox.signed_headers([new_secret(), secret], ID, BODY)
    old = outbox.signed_headers(secret, ID, BODY, timestamp=now - 330)
    other = outbox.signed_headers(new_secret("standard", "ed25519"), ID, BODY)
    cases = [
        (good, BODY),
        (good, BODY + b" "),
        (old, BODY),
        (other, BODY),
        (good | {"webhook-id": "x"}, BODY),
        ({}, BODY),
    ]
    assert outbox.verify(key, good, BODY).id == ID
    script = block("javascript", "const crypto") + (
        'const told = JSON.parse(require("fs").readFileSync(0));'
        f"console.log(JSON.stringify(told.map(([h, b]) => verifies({key!r}, h, Buffer.from(b, 'base64')))));"
    )
    told = [(headers, base64.b64encode(body).decode()) for headers, body in cases]
    assert npm.run(script, told) == [True, False, False, False, False, False]


def test_the_request_that_is_shown_verifies() -> None:
    (secret,) = re.findall(r"\bwhsec_\w+", readme.prose(DOCUMENT))
    head, _, body = block("text", "POST ").strip().partition("\n\n")
    headers = dict(line.split(": ") for line in head.splitlines()[1:])
    webhook = outbox.verify(secret, headers, body.encode(), now=int(headers["webhook-timestamp"]))
    assert webhook.json()["type"] == "order.placed"
    assert outbox.ids.parse_id("evt", webhook.id)


def test_an_event_is_kept_once(database_url: str) -> None:
    names: dict[str, Any] = {}
    exec(block("python", "import json"), names)
    with psycopg.connect(database_url) as connection:
        connection.execute("create table received (id text primary key, event jsonb not null)")
        assert [names["keep"](connection, ID, EVENT) for _ in range(3)] == [True, False, False]
        assert connection.execute("select id, event from received").fetchall() == [(ID, EVENT)]


def test_each_of_two_secrets_verifies() -> None:
    names = {"outbox": outbox, "new_secret": new_secret(), "old_secret": new_secret(), "request_body": BODY}
    for secret in (names["new_secret"], names["old_secret"]):
        names["request_headers"] = outbox.signed_headers(secret, ID, BODY)
        exec(block("python", "webhook ="), names)
        assert names["webhook"].json() == EVENT


def test_during_a_move_both_schemes_verify() -> None:
    names: dict[str, Any] = {"outbox": outbox, "new_secret": new_secret(), "old_secret": new_secret("stripe")}
    exec(block("python", "def verified"), names)
    by_new = outbox.signed_headers(names["new_secret"], ID, BODY)
    by_old = outbox.signed_headers(names["old_secret"], ID, BODY, scheme="stripe")
    for headers in (by_new, by_old):
        assert names["verified"](headers, BODY).json() == EVENT
        with pytest.raises(outbox.SignatureError):
            names["verified"](headers, BODY + b" ")


# Language: the package by the name that its manager knows, and the call that verifies.
OFFICIAL = {
    "go": ("go get github.com/standard-webhooks/standard-webhooks/libraries", "webhook.Verify(body, request.Header)"),
    "ruby": ("gem install standardwebhooks", "webhook.verify(env"),
    "php": (
        "composer require standard-webhooks/standard-webhooks",
        "$webhook->verify(file_get_contents('php://input')",
    ),
    "java": ("com.standardwebhooks:standardwebhooks", "webhook.verify(body, headers)"),
    "csharp": ("dotnet add package StandardWebhooks.StandardWebhooks", "webhook.Verify(body, headers)"),
}


@pytest.mark.parametrize("language", OFFICIAL)
def test_other_languages_use_the_official_library(language: str) -> None:
    (found,) = [each.text for each in BLOCKS if each.language == language]
    assert all(part in found for part in OFFICIAL[language])
    assert "401" in found or "Unauthorized" in found


COMMANDS = [line for each in BLOCKS if each.language == "sh" for line in each.text.splitlines() if "relay " in line]
ROWS = {
    "Svix": "svix",
    "Stripe": "stripe",
    "GitHub": "github",
    "Convoy, simple": "convoy",
    "Convoy, advanced": "convoy-advanced",
}


def rows(document: Path, first: str) -> list[list[str]]:
    """The rows of the table whose first column has this heading."""
    table = re.search(rf"^\| {first} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", document.read_text("utf-8"), re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def is_bound_to_a_time(scheme: str) -> bool:
    """Whether a request recorded a day ago is refused."""
    secret, now = new_secret(scheme), int(time.time())
    headers = outbox.signed_headers(secret, ID, BODY, timestamp=now - 86_400, scheme=scheme)
    try:
        outbox.verify(secret, headers, BODY, scheme=scheme)
    except outbox.SignatureError:
        return True
    return False


def test_the_table_of_other_senders_is_that_of_the_schemes() -> None:
    found = rows(DOCUMENT, "from")
    assert [sender for sender, *_ in found] == list(ROWS)
    for sender, headers, dated, overlaps in found:
        scheme = schemes.SCHEMES[ROWS[sender]]
        assert {name.lower() for name in re.findall(r"`([\w-]+)", headers)} == set(scheme.headers)
        assert dated == ("yes" if is_bound_to_a_time(scheme.name) else "**no**")
        assert overlaps == ("yes" if scheme.several_signatures else "no")


def test_the_table_of_all_schemes_is_that_of_the_code() -> None:
    found = rows(readme.ROOT / "docs" / "signatures.md", "scheme")
    assert [name.strip("`") for name, *_ in found] == list(schemes.SCHEMES)
    for name, signature, _, _, several in found:
        scheme = schemes.SCHEMES[name.strip("`")]
        named = {word.lower() for word in re.findall(r"`([\w-]+)", signature)} - {"v1a"}
        assert set(scheme.headers) - {"webhook-id", "webhook-timestamp"} <= named <= set(scheme.sends)
        assert several == ("yes" if scheme.several_signatures else "no")


def test_every_command_of_a_move_does_what_the_page_says(run, tmp_path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    made = {}
    for line in COMMANDS:
        words = shlex.split(line)
        assert words[:2] == ["relay", "subscriptions"]
        scheme = words[words.index("--scheme") + 1]
        if words[2] == "add":
            Path("secret.txt").write_text(new_secret(scheme) + "\n")
            made[scheme] = json.loads(run(*words[1:], "--json"))
            assert (made[scheme]["scheme"], made[scheme]["secret"]) == (scheme, Path("secret.txt").read_text().strip())
    assert sorted(made) == sorted(ROWS.values())
    (move,) = [shlex.split(line) for line in COMMANDS if "rotate-secret" in line]
    for subscription in made.values():
        Path("new.txt").write_text(base64.b64encode(os.urandom(32)).decode() + "\n")  # as openssl prints it
        moved = json.loads(run(*[subscription["id"] if word == "sub_…" else word for word in move[1:]], "--json"))
        assert (moved["scheme"], moved["secret"]) == ("standard", "whsec_" + Path("new.txt").read_text().strip())


def test_svix_s_library_verifies_the_standard_scheme_too() -> None:
    event = svix.webhooks.Webhook(SECRET).verify(BODY, outbox.signed_headers(SECRET, ID, BODY))
    assert (event or json.loads(BODY)) == EVENT
    with pytest.raises(svix.webhooks.WebhookVerificationError):
        svix.webhooks.Webhook(SECRET).verify(BODY + b" ", outbox.signed_headers(SECRET, ID, BODY))


def test_no_block_of_the_page_is_left_out() -> None:
    by_language = Counter(each.language for each in BLOCKS)
    assert by_language == {"python": len(PYTHON) + 3, "javascript": 2, "text": 1, "sh": 2} | dict.fromkeys(OFFICIAL, 1)
