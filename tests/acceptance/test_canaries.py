"""Canaries: what must not leak is planted everywhere, and then looked for in everything that can be read.

Signing secret, private key, own header, bearer token, password and the database's password may stand in no log line at
any level, error, traceback file, repr, output of a command, row of an attempt, or dump of the database. The payload may
stand in its own rows, and on a screen where somebody asks for that event; nowhere else.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from anyio.from_thread import start_blocking_portal
from sqlalchemy.engine import make_url

import outbox
from outbox import BasicAuth, BearerToken, OAuth2ClientCredentials, Secret, subscriptions
from outbox.ids import parse_id
from outbox.sealing import seal
from relay.__main__ import run_command
from relay.config.options import Config
from relay.local import embedded
from relay.message.envelope import Envelope
from relay.model.delivery import Delivery
from relay.model.event import EventParts
from relay.model.outcome import OutcomeKind
from relay.model.settlement import Kept, Settlement
from relay.model.subscription import SubscriptionVersion
from relay.model.verdict import Verdict, VerdictKind
from relay.secrets.keyring import Keyring, new_private_key
from tests.support.processes import Process
from tests.support.proxies import proxying

PRIVATE, PUBLIC = new_private_key()
SIGNING = "whsec_" + base64.b64encode(b"canary of the signing secret 001").decode()
OTHER_SIGNING = "whsec_" + base64.b64encode(b"canary of the signing secret 002").decode()
HEADER = "canary-of-the-own-header-002"
BEARER = "canary-of-the-bearer-token-003"
USER, PASSWORD = "the-user", "canary-of-the-password-004"
PAYLOAD = "canary-of-the-payload-005"
CLIENT_SECRET = "canary-of-the-client-secret-006"
ACCESS_TOKEN = "canary-of-the-access-token-007"
TEXT_OF_BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Aviary:
    """A database in which everything was planted and a relay has worked, and the tongues of what must stay silent."""

    url: str
    directory: Path
    subscription_ids: list[str] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def secrets(self) -> list[str]:
        """Each secret in the spellings it might leak in."""
        private = base64.b64decode(PRIVATE.reveal().removeprefix("rsk_"))
        database = make_url(self.url).password
        assert database
        signing = [SIGNING.removeprefix("whsec_"), OTHER_SIGNING.removeprefix("whsec_")]
        plain = [*signing, HEADER, BEARER, PASSWORD, TEXT_OF_BASIC, PRIVATE.reveal()[4:-1]]
        raw = [*(base64.b64decode(one).decode() for one in signing), private.hex(), repr(private)[2:-1]]
        client = base64.b64encode(f"the-client:{CLIENT_SECRET}".encode()).decode()
        return [*plain, *raw, str(database), CLIENT_SECRET, client, ACCESS_TOKEN]

    def environment(self, **more: str) -> dict[str, str]:
        to_loopback = {"RELAY_ALLOW_HTTP": "true", "RELAY_ALLOW_NETWORKS": "127.0.0.0/8"}
        return {"RELAY_DATABASE_URL": self.url, "RELAY_SECRET_KEY": PRIVATE.reveal(), **to_loopback, **more}

    def found_in(self, text: str, *, payload: bool = True) -> list[str]:
        """What leaked into the text."""
        return [secret for secret in [*self.secrets, *([PAYLOAD] if payload else [])] if secret in text]


@contextmanager
def receiver(requests: list[dict[str, str]]) -> Iterator[str]:
    """Yield the URL of a server: 200 at /ok, tokens at /token, a closed connection at /cut, else every header back.

    /token-echo throws back the request's body as well: the form with the client's secret.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came = self.rfile.read(int(self.headers["content-length"]))
            requests.append({name.lower(): value for name, value in self.headers.items()})
            if self.path == "/cut":
                return
            status = 200 if self.path in ("/ok", "/token") else 500
            body = b"" if status == 200 else str(self.headers).encode()
            if self.path == "/token":
                body = json.dumps({"access_token": ACCESS_TOKEN, "token_type": "bearer", "expires_in": 60}).encode()
            elif self.path == "/token-echo":
                body += came
            self.send_response(status)
            if status == 500:
                for name in ("authorization", "x-own"):
                    self.send_header(f"x-echo-{name}", self.headers.get(name, "none"))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def plant(aviary: Aviary, base: str) -> None:
    """Subscribe in every way that keeps a secret, break some of it, and record events."""
    own: dict[str, Any] = {"secret": SIGNING, "headers": {"X-Own": HEADER}, "schedule_seconds": []}
    bearer, basic = BearerToken(BEARER), BasicAuth(USER, PASSWORD)
    oauth2 = OAuth2ClientCredentials(f"{base}/token", "the-client", CLIENT_SECRET)
    echoing = [OAuth2ClientCredentials(f"{base}/token-echo", "the-client", CLIENT_SECRET, client_authentication=how)
               for how in ("basic", "body")]  # fmt: skip
    engine = sa.create_engine(make_url(aviary.url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        register = "insert into outbox.sealing_keys (id, key) values (:id, :key)"
        connection.execute(sa.text(register), {"id": PUBLIC.id, "key": PUBLIC.text})
        for path, proof in (("/ok", bearer), ("/ok", basic), ("/echo", bearer), ("/echo", basic), ("/echo", oauth2),
                            ("/ok", echoing[0]), ("/ok", echoing[1]), ("/cut", basic)):  # fmt: skip
            made = subscriptions.add(connection, base + path, ["*"], **own, authentication=proof)
            aviary.subscription_ids.append(made.id)
        subscriptions.rotate_secret(connection, made.id, secret=OTHER_SIGNING)
        for broken in (BROKEN_LINE, "not JSON " + HEADER, json.dumps({"X-Own": [HEADER]})):
            made = subscriptions.add(connection, f"{base}/ok", ["*"], **own)
            aviary.subscription_ids.append(made.id)
            replace(connection, made.id, seal(broken, PUBLIC, parse_id("sub", made.id).bytes, "headers"))
        made = subscriptions.add(connection, f"{base}/ok", ["*"], **own)  # sealed for somebody else: cannot be opened
        aviary.subscription_ids.append(made.id)
        replace(connection, made.id, seal(HEADER, PUBLIC, bytes(16), "headers"))
        outbox.record(connection, "order.placed", {"marker": PAYLOAD}, key="k")
        outbox.record(connection, "order.placed", {"marker": PAYLOAD}, tenant="nobody")
    engine.dispose()


BROKEN_LINE = json.dumps({"X-Own": f"{HEADER}\r\nX-More: {HEADER}"})


def replace(connection: sa.Connection, subscription_id: str, text: str) -> None:
    statement = "update outbox.secrets set secret = :text where subscription_id = :id and kind = 'headers'"
    connection.execute(sa.text(statement), {"text": text, "id": parse_id("sub", subscription_id)})


@pytest.fixture
def aviary(database_url: str, tmp_path: Path) -> Iterator[Aviary]:
    aviary = Aviary(database_url, tmp_path)
    with receiver(aviary.requests) as base:
        plant(aviary, base)
        yield aviary


def deliver(aviary: Aviary, log_format: str, *options: str) -> str:
    """Run a relay at its most talkative until all that can be settled is; return its log."""
    program = ["-m", "relay", "run", "--keep-responses", "all",
               "--until-drained", "--log-level", "debug", "--log-format", log_format, *options]  # fmt: skip
    relay = Process(program, aviary.directory / f"relay-{log_format}.log", aviary.environment(PYTHONASYNCIODEBUG="1"))
    try:
        assert relay.wait(60) == 0, relay.text
    finally:
        relay.end()
    return relay.text


@pytest.fixture
def run(aviary: Aviary, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run one command as people do; return what it printed, on both streams."""

    def run(*arguments: str, **environment: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in (aviary.environment() | environment).items():
                patch.setenv(name, value)
            run_command(list(arguments))
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_canary_is_in_a_log(aviary: Aviary, log_format: str) -> None:
    log = deliver(aviary, log_format)
    assert "another subscription or kind" in log
    assert aviary.found_in(log) == []


def test_no_canary_is_in_a_log_where_a_proxy_is_between(aviary: Aviary) -> None:
    """The library that speaks there says at level debug what it reads, and endpoints answer with what they got."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(proxying("http")) as proxy:
        log = deliver(aviary, "text", "--egress-proxy", proxy.url)
    assert len(proxy.asked) >= 5
    assert HEADER in str(aviary.requests)
    assert aviary.found_in(log) == []


@pytest.mark.slow
def test_no_canary_is_in_an_attempt_the_output_of_a_command_or_a_dump(aviary: Aviary, run: Any) -> None:
    deliver(aviary, "text")
    sent = json.dumps(aviary.requests)  # the canaries did go where they belong
    for canary in (HEADER, BEARER, TEXT_OF_BASIC, ACCESS_TOKEN):
        assert canary in sent
    with psycopg.connect(aviary.url) as connection:
        attempts = connection.execute("select a::text, a.headers, encode(a.excerpt, 'escape') from outbox.attempts a")
        attempts_text = str(attempts.fetchall())
    assert "500 Internal Server Error" in attempts_text
    assert "x-echo-authorization: ***" in attempts_text.lower()
    assert aviary.found_in(attempts_text) == []

    for arguments in commands(aviary, run):
        printed = run(*arguments)
        assert printed, arguments
        assert aviary.found_in(printed, payload=arguments[:2] not in MAY_SHOW_THE_PAYLOAD) == [], arguments

    dumped = dump(aviary)
    assert PAYLOAD in dumped
    assert "COPY outbox.secrets" in dumped
    assert f"sealed:1:{PUBLIC.id}:" in dumped
    assert aviary.found_in(dumped, payload=False) == []


MAY_SHOW_THE_PAYLOAD = [("events", "show"), ("dead-letters", "show")]


def commands(aviary: Aviary, run: Any) -> Iterator[tuple[str, ...]]:
    """Every command that reads, for people and for programs."""
    (event, *_) = documents(run("events", "list", "--json"))
    dead = documents(run("dead-letters", "list", "--json"))
    deliveries = documents(run("deliveries", "list", "--state", "delivered", "--json"))
    assert dead
    assert deliveries
    for arguments in [
        ("status",),
        ("config", "--log-level", "debug"),
        ("subscriptions", "list"),
        *(("subscriptions", "show", name) for name in aviary.subscription_ids),
        *(("subscriptions", "test", name) for name in aviary.subscription_ids[3:6]),
        *(("subscriptions", "check", name) for name in aviary.subscription_ids[-3:]),
        ("events", "list"),
        ("events", "show", event["id"]),
        ("deliveries", "list"),
        ("deliveries", "list", "--state", "delivered"),
        ("deliveries", "show", deliveries[0]["id"]),
        ("dead-letters", "list"),
        *(("dead-letters", "show", item["id"]) for item in dead[:2]),
        ("audit", "--limit", "1000"),
        ("secrets", "rekey"),
    ]:
        yield arguments
        yield (*arguments, "--json")


def documents(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def dump(aviary: Aviary) -> str:
    """Return what pg_dump writes of the schema, data and all."""
    program = embedded._installation(aviary.directory, None) / "pg_dump"  # noqa: SLF001 - users of the wheel need no pg_dump
    words = [program, "--schema=outbox", "--format=plain", f"--dbname={aviary.url}"]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


def test_no_canary_is_in_an_error_or_a_traceback_file(
    aviary: Aviary, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command that fails unexpectedly, with everything it knows in its message."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    config = Config(database_url=aviary.url, secret_key=PRIVATE.reveal())
    knows = [config, Secret(HEADER), BearerToken(BEARER), BasicAuth(USER, PASSWORD), PRIVATE.reveal(), SIGNING,
             aviary.url, f"authorization: Bearer {BEARER}", {"Authorization": f"Basic {TEXT_OF_BASIC}"}]  # fmt: skip

    def fail(*_: object) -> None:
        raise RuntimeError(f"{knows}")

    monkeypatch.setattr("relay.cli.status.status_of", fail)
    printed = run("status")
    (file,) = re.findall(r"the traceback is in (\S+)", printed)
    report = Path(file).read_text()
    assert "in fail" in report
    assert aviary.found_in(printed + report) == []


def test_no_canary_is_in_what_a_refusal_says(aviary: Aviary, run: Any) -> None:
    for environment in (
        {"RELAY_SECRET_KEY": f"{PRIVATE.reveal()},{SIGNING}"},
        {"RELAY_SECRET_KEY": PRIVATE.reveal()[4:]},
        {"RELAY_DATABASE_URL": aviary.url.replace("postgresql", "mysql")},
        {"RELAY_DATABASE_URL": aviary.url + f"?password={PASSWORD}&nonsense=1"},
        {"RELAY_DATABASE_URL": aviary.url.replace("127.0.0.1:", "127.0.0.1:1")},
    ):
        printed = run("status", **environment)
        assert printed.startswith("relay: ")
        assert aviary.found_in(printed) == []


def test_no_canary_is_in_the_repr_of_anything_that_holds_one(aviary: Aviary) -> None:
    stored = tuple((kind, Secret(text)) for kind, text in (
        ("signing", SIGNING), ("headers", json.dumps({"X-Own": HEADER})),
        ("authentication", json.dumps({"type": "bearer", "token": BEARER})),
    ))  # fmt: skip
    held = SubscriptionVersion(bytes(16), 1, "https://example.com/", 15, (), "standard", (), secrets=stored)
    event = EventParts(b"evt_1", b"order.placed", "", PAYLOAD, 0, PAYLOAD.encode())
    delivery = Delivery(bytes(16), 1, bytes(16), 1, 1, event, 0.0)
    engine = sa.create_engine(make_url(aviary.url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        new = subscriptions.add(connection, "https://example.com/", ["*"], secret=SIGNING, headers={"X-Own": HEADER})
        read = subscriptions.get(connection, new.id)
        recorded = outbox.record(connection, "order.placed", {"marker": PAYLOAD})
    signed = outbox.signed_headers(SIGNING, "evt_1", PAYLOAD.encode())
    webhook = outbox.verify(SIGNING, signed, PAYLOAD.encode())
    url = "https://example.com/"
    kept = Kept(headers=f"set-cookie: {HEADER}", excerpt=HEADER.encode())
    settlement = Settlement(delivery, Verdict(VerdictKind.DEAD), url, OutcomeKind.HTTP_5XX, 500, 1, kept)
    holders: list[object] = [
        Config(database_url=aviary.url, secret_key=PRIVATE.reveal()), Keyring([PRIVATE]), PRIVATE, held, stored, event,
        delivery, Envelope(held, Keyring()), settlement, new,
        read, recorded, webhook, outbox.RawJSON(f'"{PAYLOAD}"'), BearerToken(BEARER), BasicAuth(USER, PASSWORD),
        engine, engine.url,
    ]  # fmt: skip
    for holder in holders:
        assert aviary.found_in(f"{holder!r} {holder} {[holder]}") == [], type(holder)
    engine.dispose()


def test_the_canaries_sing_when_they_are_let_out(aviary: Aviary) -> None:
    """The search finds each of them, so that finding none means something."""
    everything = f"{SIGNING} {HEADER} {BEARER} {PASSWORD} {TEXT_OF_BASIC} {PRIVATE.reveal()} {PAYLOAD} {aviary.url}"
    assert set(aviary.found_in(everything)) >= {HEADER, BEARER, PASSWORD, TEXT_OF_BASIC, PAYLOAD}
    assert len(aviary.found_in(f"{everything} {CLIENT_SECRET} {ACCESS_TOKEN}")) == 10
    assert os.environ.get("RELAY_SECRET_KEY") is None
