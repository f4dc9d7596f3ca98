"""What PostgreSQL or Python cannot hold is refused: 422, with the field that has it, and never a 500."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.web.conftest import Ask

pytestmark = pytest.mark.anyio
BEFORE_YEAR_1 = "0001-01-01T00:00:00+14:00"
AFTER_YEAR_9999 = "9999-12-31T23:59:59-14:00"
SUBJECT = {"kind": "subject", "value": "x"}


def cursor(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("GET /event-types?after=" + cursor("event-types", "\0"), None, "after"),
        ("GET /event-types?after=" + cursor("event-types", "\ud800"), None, "after"),
        ("GET /tenant-retention?after=%00", None, "after"),
        ("POST /bulk-operations/plan", {"kind": "redrive", "since": BEFORE_YEAR_1}, "since"),
        ("POST /bulk-operations/plan", {"kind": "redrive", "since": "1d", "until": AFTER_YEAR_9999}, "until"),
        ("POST /erasures/plan", SUBJECT | {"path": "a\0b"}, "path"),
        ("POST /erasures/plan", SUBJECT | {"path": ".".join("a" * 33)}, "path"),
        ("POST /erasures", SUBJECT | {"path": ".".join("a" * 33)}, "path"),
    ],
)
async def test_it_is_refused_by_the_name_of_its_field(
    what: str, body: Any, field: str, ask: Ask, token: Callable[..., str]
) -> None:
    answer = await ask(what, token(tenant=None), json=body, code=422)
    assert answer.json()["field"] == field


async def test_what_can_just_be_held_is_taken(ask: Ask, token: Callable[..., str]) -> None:
    by = token(tenant=None)
    path = ".".join("a" * 32)
    await ask("GET /event-types?after=" + cursor("event-types", "order.created"), by, code=200)
    await ask("POST /erasures", by, json=SUBJECT | {"path": path}, code=201)
    await ask("POST /bulk-operations/plan", by, json={"kind": "redrive", "since": "0001-01-01T00:00:00Z"}, code=200)
