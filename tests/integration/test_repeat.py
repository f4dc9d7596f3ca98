"""`relay deliveries show --curl`: the request of a delivery once more, signed now, with no credential in it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

import outbox
from outbox import subscriptions
from outbox.subscriptions.authentication import BearerToken
from relay.__main__ import run_command
from tests.integration.test_endpoint_tests import Ended, answers, scripted
from tests.support import seeding
from tests.support.scripted_receiver import response

CANARY = "canary-7f3a9c51"


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def show(database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RELAY_DATABASE_URL", database_url)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run_command(["deliveries", "show", *arguments])
        return Ended(code, *capsys.readouterr())

    return run


def shell(command: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.parametrize(
    "payload",
    ['{"n": 1}', '{"who": "O\'Brien \\\\ @ $HOME `id`"}', '{\n  "line": "\u202e\x7f%b\\\\0101"\n}'],
    ids=["plain", "shell", "terminal"],
)
def test_a_shell_repeats_it_and_the_receiver_verifies_the_same_bytes(show, connection, payload: str) -> None:
    with scripted(answers(response(204))) as receiver:
        made = subscriptions.add(connection, receiver.url, ["*"], headers={"x-own": ""})
        event = seeding.record(connection, payload, type="order.created")
        (delivery,) = seeding.resolve(connection, event, made.id)
        seeding.attempt(connection, delivery, "dead")
        shown = show(delivery, "--curl")
        assert receiver.requests == [], "nothing is sent"
        assert shown.code == 0
        assert shown.stdout.replace("\n", "").isprintable()
        assert "HTTP/1.1 204" in shell(shown.stdout)
    (exchange,) = receiver.requests
    head = [tuple(line.split(": ", 1)) for line in exchange.head.decode().split("\r\n")[1:-2] if ": " in line]
    webhook = outbox.verify(made.secret, head, exchange.body)
    assert (webhook.id, webhook.json()["data"]) == (event, json.loads(payload))
    assert exchange.body.endswith(b'"data":' + payload.encode() + b"}"), "the exact bytes"


def test_no_credential_is_in_it_and_what_is_left_out_is_named(show, connection) -> None:
    made = subscriptions.add(
        connection,
        "https://example.com/hooks",
        ["*"],
        headers={"x-api-key": CANARY},
        authentication=BearerToken(CANARY),
    )
    (delivery,) = seeding.resolve(connection, seeding.record(connection), made.id)
    shown = show(delivery, "--curl")
    assert shown.stdout.startswith("# put in what stands as ***: x-api-key, authorization\ncurl ")
    assert "'authorization: ***'" in shown.stdout
    told = show(delivery, "--curl", "--json")
    assert told.document["redacted"] == ["x-api-key", "authorization"]
    for printed in (shown.stdout, shown.stderr, told.stdout):
        assert CANARY not in printed
        assert made.secret.removeprefix("whsec_") not in printed


def test_what_cannot_be_repeated_is_said(show, connection, database_url: str) -> None:
    name = subscriptions.add(connection, "https://example.com/hooks", ["*"]).id
    event = seeding.record(connection)
    (delivery,) = seeding.resolve(connection, event, name)
    connection.execute(text("delete from outbox.events"))
    ended = show(delivery, "--curl")
    assert (ended.code, "has no event any more" in ended.stderr) == (1, True)
    ended = show("dlv_00000000000000000000000001", "--curl")
    assert (ended.code, "delivery: no dlv_" in ended.stderr) == (1, True)


def test_a_transformation_that_fails_has_no_request(show, connection) -> None:
    name = subscriptions.add(connection, "https://example.com/hooks", ["*"], transformation="abs(type)").id
    (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
    ended = show(delivery, "--curl")
    assert ended.code == 1
    assert "request: the transformation makes none of this event" in ended.stderr


def test_the_api_is_not_asked_for_a_signature(show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_API_TOKEN", "token")
    ended = show("dlv_00000000000000000000000001", "--curl", "--api", "https://example.com")
    assert (ended.code, "it signs with a key that only relays hold" in ended.stderr) == (2, True)
