"""What `relay listen` prints can never steer a terminal."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from relay.cli.listen import as_json, as_text
from relay.local.receiver.listener import Arrival, Listener
from relay.local.receiver.server import Request


def arrival(body: Any, **changed: Any) -> Arrival:
    facts: dict[str, Any] = {
        "id": "evt_1",
        "type": "order.placed",
        "at": datetime(2026, 1, 31, 12, 30, 1, tzinfo=UTC),
        "size_bytes": 1234,
        "status": 200,
        "verified": True,
        "problem": "",
        "body": body,
    }
    return Arrival(**facts | changed)


def test_a_verified_webhook_is_a_heading_and_its_body_indented() -> None:
    assert click.unstyle(as_text(arrival({"type": "order.placed"}))) == (
        "✓ 12:30:01  order.placed  evt_1\n"
        "  1,234 bytes, signature verified, answered 200\n"
        "  {\n"
        '    "type": "order.placed"\n'
        "  }\n"
    )


def test_a_problem_is_named() -> None:
    text = click.unstyle(as_text(arrival({}, verified=False, problem="webhook-id: missing", status=401)))
    assert text.startswith("✗ ")
    assert "webhook-id: missing, answered 401" in text


@pytest.mark.parametrize("nasty", ["\x1b[31m", "\x9b2J", "\r", "\x07", "\u202e", "\ud800", "\x00"])
def test_nothing_from_outside_reaches_the_terminal_raw(nasty: str) -> None:
    for shown in (arrival(nasty), arrival({nasty: [nasty]}), arrival(0, id=nasty), arrival(0, type=nasty)):
        assert nasty not in click.unstyle(as_text(shown))
        assert nasty not in as_json(shown)


def test_what_the_application_answered_is_said() -> None:
    assert "verified, forwarded, answered 500\n" in click.unstyle(as_text(arrival({}, forwarded=True, status=500)))
    failed = arrival({}, forwarded=True, status=502, failure="no answer: \x1b")
    assert "verified, answered 502, no answer: \\x1b\n" in click.unstyle(as_text(failed))
    gone = arrival({}, forwarded=True, status=None, failure="the sender hung up first")
    assert "verified, not answered, the sender hung up first\n" in click.unstyle(as_text(gone))


def test_a_long_body_is_shortened() -> None:
    text = as_text(arrival("x" * 30_000))
    assert len(text) < 21_000
    assert "10,000 more characters" in text


def test_json_is_one_object_on_one_line() -> None:
    line = as_json(arrival({"a": "ü\n"}))
    assert "\n" not in line
    assert json.loads(line) == {
        "id": "evt_1",
        "type": "order.placed",
        "at": "2026-01-31T12:30:01.000000Z",
        "size_bytes": 1234,
        "status": 200,
        "verified": True,
        "problem": None,
        "forwarded": False,
        "failure": None,
        "body": {"a": "ü\n"},
    }


@pytest.mark.parametrize("body", [b'{"a": NaN}', b"-Infinity", b"[1e999]", b"{", b"\xff"])
def test_a_body_that_is_no_json_is_shown_as_text(body: bytes) -> None:
    shown: list[Arrival] = []
    asyncio.run(Listener([], 200, shown.append).handle(Request(1, 0.0, 0, "POST", "/", {}, body)))
    assert json.loads(as_json(shown[0]), parse_constant=pytest.fail)["body"] == body.decode(errors="replace")
