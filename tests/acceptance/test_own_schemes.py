"""A scheme that a TOML file declares: the relay signs by it, and a verifier that is not ours accepts it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import outbox
from outbox.signing.verify import signed_headers
from relay.__main__ import run_command
from tests.acceptance.test_listen import listening
from tests.acceptance.test_outside_verifiers import parsed
from tests.support import databases
from tests.support.own_schemes import only_here
from tests.support.processes import Stage
from tests.support.scripted_receiver import OK, Exchange, receiving

TABLE = """
[schemes.acme]
signed = "{type}|{id}|{timestamp}|{body}"
signature_header = "X-Acme-Signature"
value = "at={timestamp}; sig={signature}"
separator = "; "
several = true
hash = "sha512"
type_header = "X-Acme-Topic"
id_header = "X-Acme-Id"
"""
FIRST, SECOND = "the first secret of acme", "the second secret of acme"


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    with only_here():
        stage = Stage(tmp_path, database_url)
        yield stage
        stage.close()


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    file = tmp_path / "relay.toml"
    file.write_text(TABLE)
    return str(file)


@pytest.fixture
def relay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, database_url: str, configuration: str
) -> Callable[..., Any]:
    def relay(*arguments: str) -> Any:
        monkeypatch.setenv("RELAY_DATABASE_URL", database_url)
        monkeypatch.setenv("RELAY_ALLOW_NETWORKS", "127.0.0.0/8")
        monkeypatch.setenv("RELAY_ALLOW_HTTP", "true")
        assert run_command([*arguments, "--config", configuration, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return relay


def accepted_by_acme(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """What a receiver of Acme computes, written from its manual and with nothing of ours."""
    at, *signatures = headers["x-acme-signature"].split("; ")
    told = [headers["x-acme-topic"], headers["x-acme-id"], at.removeprefix("at=")]
    mac = hmac.new(secret.encode("utf-8"), digestmod=hashlib.sha512)
    for part in told:
        mac.update(part.encode("ascii") + b"|")
    mac.update(body)
    return f"sig={mac.hexdigest()}" in signatures


async def accept(exchange: Exchange) -> None:
    exchange.writer.write(OK)


def test_a_declared_scheme_signs_what_its_receiver_accepts(
    stage: Stage, relay: Callable[..., Any], configuration: str, tmp_path: Path
) -> None:
    async def deliver() -> list[tuple[str, dict[str, str], bytes]]:
        async with receiving(accept) as receiver:
            made = relay(
                "subscriptions", "add", receiver.url, "*", "--scheme", "acme", "--secret-file", secret_file(FIRST)
            )
            relay("subscriptions", "rotate-secret", made["id"], "--secret-file", secret_file(SECOND))
            with databases.engine_on(stage.database_url) as engine, engine.begin() as connection:
                for data in ({}, {"ключ": "Grüße, 世界"}, {"long": "é" * 5000}):
                    outbox.record(connection, "order.placed", data)
            await asyncio.to_thread(stage.drain, "--config", configuration, "--processes", "2")
        return [parsed(exchange) for exchange in receiver.requests]

    def secret_file(secret: str) -> str:
        (tmp_path / "secret.txt").write_text(secret)
        return str(tmp_path / "secret.txt")

    requests = asyncio.run(deliver())
    assert len(requests) == 3
    for _, headers, body in requests:
        for secret in (FIRST, SECOND):
            assert accepted_by_acme(secret, headers, body)
            assert outbox.verify(secret, headers, body, scheme="acme").id == headers["webhook-id"]
            assert not accepted_by_acme(secret, headers | {"x-acme-id": "evt_other"}, body)
        assert not accepted_by_acme("another secret of acme", headers, body)


def test_an_application_declares_it_in_python(stage: Stage, configuration: str) -> None:
    declaration = outbox.SchemeDeclaration(
        "acme", "{type}|{id}|{timestamp}|{body}", "X-Acme-Signature", "at={timestamp}; sig={signature}",
        separator="; ", several=True, hash="sha512", type_header="X-Acme-Topic", id_header="X-Acme-Id",
    )  # fmt: skip

    async def deliver() -> list[Exchange]:
        async with receiving(accept) as receiver:
            with databases.engine_on(stage.database_url) as engine, engine.begin() as connection:
                with pytest.raises(outbox.SubscriptionError, match=r"^scheme: choose one of .*or declare acme: "):
                    outbox.subscribe(connection, receiver.url, ["*"], scheme="acme", secret=FIRST)
                outbox.declare_scheme(declaration)
                with pytest.raises(
                    outbox.SubscriptionError, match="X-Acme-Topic is set by the relay or by a signature"
                ):
                    outbox.subscribe(connection, receiver.url, ["*"], headers={"X-Acme-Topic": "x"})
                outbox.subscribe(connection, receiver.url, ["*"], scheme="acme", secret=FIRST)
                outbox.record(connection, "order.placed", {})
            await asyncio.to_thread(stage.drain, "--schemes", configuration)
        return receiver.requests

    (exchange,) = asyncio.run(deliver())
    _, headers, body = parsed(exchange)
    assert accepted_by_acme(FIRST, headers, body)


def test_a_relay_that_does_not_know_the_scheme_sends_nothing_and_says_why(
    stage: Stage, relay: Callable[..., Any]
) -> None:
    async def deliver() -> list[Exchange]:
        async with receiving(accept) as receiver:
            relay("subscriptions", "add", receiver.url, "*", "--scheme", "acme", "--schedule-seconds", "3600")
            relay("subscriptions", "add", receiver.url.replace("/hook", "/other"), "*")
            with databases.engine_on(stage.database_url) as engine, engine.begin() as connection:
                outbox.record(connection, "order.placed", {})
            await asyncio.to_thread(stage.drain)
        return receiver.requests

    (other,) = asyncio.run(deliver())
    assert parsed(other)[0] == "/other"
    with databases.engine_on(stage.database_url) as engine, engine.connect() as connection:
        failed = text("select outcome, verdict, error from outbox.attempts where verdict <> 'delivered'")
        ((outcome, verdict, error),) = connection.execute(failed)
    assert (outcome, verdict) == ("unsendable", "retry")
    assert error.startswith("scheme: choose one of standard, ")
    assert error.endswith(
        "or declare acme: [schemes.acme] in the relay's configuration, outbox.declare_scheme() in Python"
    )


def test_listen_verifies_by_it(stage: Stage, relay: Callable[..., Any], configuration: str, tmp_path: Path) -> None:
    relay("schemes", "show", "acme")
    body = b'{"type":"order.placed"}'
    headers = signed_headers(FIRST, "evt_1", body, scheme="acme", type="order.placed")
    with listening(tmp_path, "--scheme", "acme", "--secret", FIRST, "--config", configuration) as listener:
        assert listener.post(body, headers) == 200
        assert listener.post(body, headers | {"X-Acme-Topic": "order.paid"}) == 401
