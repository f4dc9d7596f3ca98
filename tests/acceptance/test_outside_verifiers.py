"""What `relay run` really sends is accepted by the official Standard Webhooks libraries, and the reverse."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

import outbox
from outbox.signature import new_secret
from tests.support import databases, readme
from tests.support.official import Case, FromNpm, FromPyPI, Official
from tests.support.processes import Stage
from tests.support.scripted_receiver import OK, Exchange, receiving

pytestmark = pytest.mark.xdist_group("outside verifiers")  # one delivery and one installation for all of them

RAW = '{ "price" : 1.10, "z": 1e2, "a": [ ], "escaped": "\\u00fc\\/" }'
DATA = [
    *({}, [], "", None, 0, {"empty": {}, "list": [], "none": None}),
    {"ключ": "Grüße, 世界 🦊 e\u0301 \u2028 \u007f", "markup": "<&>'\"\\/\t\n"},
    {"big": 2**80, "beyond_double": 9007199254740993, "negative": -(2**63) - 1, "small": 5e-324},
    {"long": "é🦊" * 20_000},
    outbox.RawJSON(RAW),
]
BODIES = """
select outbox.text_id('evt', id), '{"type":"' || type || '","timestamp":"'
       || to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '","data":' || payload || '}'
from outbox.events order by seq
"""


@dataclass
class Delivered:
    """Everything that one relay sent: the live secrets by path, the bodies as recorded by event, and the requests."""

    secrets: dict[str, list[str]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def cases(self) -> list[Case]:
        """Each request with each live secret of its subscription."""
        return [Case(secret, headers, body) for path, headers, body in self.requests for secret in self.secrets[path]]


def record_and_subscribe(connection: Connection, base_url: str) -> dict[str, list[str]]:
    """Return the live secrets by path: a made one, an own one of 24 bytes and of 64, and two of a rotation."""
    own = {"/made": None, "/short": "whsec_" + "MfKQ" * 8, "/long": "whsec_" + "+/+/" * 21 + "QQ==", "/rotated": None}
    made = {
        path: outbox.subscribe(connection, base_url + path, ["order.*"], secret=secret) for path, secret in own.items()
    }
    rotated = outbox.subscriptions.rotate_secret(connection, made["/rotated"].id)
    for data in DATA:
        outbox.record(connection, "order.placed", data)
    return {path: [one.secret] for path, one in made.items()} | {"/rotated": [rotated.secret, made["/rotated"].secret]}


async def deliver(database_url: str, directory: Path) -> Delivered:
    """Record, subscribe, and let a relay process deliver to a socket that keeps every byte."""

    async def accept(exchange: Exchange) -> None:
        exchange.writer.write(OK)

    delivered = Delivered()
    async with receiving(accept) as receiver:
        with databases.engine_on(database_url) as engine:
            with engine.begin() as connection:
                delivered.secrets = record_and_subscribe(connection, receiver.url.removesuffix("/hook"))
            with engine.connect() as connection:
                delivered.bodies = {id_: body.encode() for id_, body in connection.execute(text(BODIES))}
        stage = Stage(directory, database_url)
        try:
            await asyncio.to_thread(stage.drain)
        finally:
            stage.close()
    delivered.requests = [parsed(exchange) for exchange in receiver.requests]
    return delivered


def parsed(exchange: Exchange) -> tuple[str, dict[str, str], bytes]:
    """Return the path, the headers by lower-case name, and the body of a request."""
    request, *lines = exchange.head.decode("ascii").rstrip("\r\n").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), "a header was sent twice"
    return request.split(" ")[1], {name.lower(): value for name, value in headers.items()}, exchange.body


@pytest.fixture(scope="module")
def delivered(server_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    """What a relay sent, once for all tests."""
    with databases.database(server_url, template=migrated_template) as url:
        yield asyncio.run(deliver(url, tmp_path_factory.mktemp("relay")))


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Official:
    """The library from npm, installed once for all tests."""
    return FromNpm(tmp_path_factory.mktemp("npm"))


@pytest.fixture(params=["PyPI", "npm"])
def official(request: pytest.FixtureRequest) -> Official:
    """One of the two libraries."""
    found: Official = FromPyPI() if request.param == "PyPI" else request.getfixturevalue("npm")
    return found


def test_every_subscription_gets_each_body_byte_for_byte_as_it_was_recorded(delivered: Delivered) -> None:
    sent = {(path, headers["webhook-id"]): body for path, headers, body in delivered.requests}
    assert len(delivered.requests) == len(sent) == len(DATA) * len(delivered.secrets)
    assert sent == {(path, event): body for path in delivered.secrets for event, body in delivered.bodies.items()}
    assert any(body.endswith(b'"data":' + RAW.encode() + b"}") for body in sent.values())


def test_the_body_has_the_form_that_the_documents_show(delivered: Delivered) -> None:
    (shown,) = (block for block in readme.blocks(readme.ROOT / "docs" / "concepts.md") if block.language == "json")
    envelope = re.compile(
        r'\{"type":"[\w.]+","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","data":.*\}', re.DOTALL
    )
    assert envelope.fullmatch(shown.text.strip())
    assert all(envelope.fullmatch(body.decode()) for body in delivered.bodies.values())


def test_the_official_library_accepts_every_request_with_each_live_secret(
    delivered: Delivered, official: Official
) -> None:
    judged = official.judge(delivered.cases())
    assert {judgement.type for judgement in judged} == {"order.placed"}
    assert len(judged) == len(DATA) * 5


def test_the_signatures_are_those_the_official_library_makes(delivered: Delivered, official: Official) -> None:
    cases = delivered.cases()
    made: dict[str, list[str]] = {case.headers["webhook-signature"]: [] for case in cases}
    for case, judgement in zip(cases, official.judge(cases), strict=True):
        made[case.headers["webhook-signature"]].append(judgement.signature)
    assert {header: " ".join(signatures) for header, signatures in made.items()} == {header: header for header in made}


def test_the_official_library_refuses_what_was_changed(delivered: Delivered, official: Official) -> None:
    stranger, late = new_secret(), {"webhook-timestamp": str(int(time.time()) + 60)}
    changed = [
        other
        for case in delivered.cases()
        for other in (
            replace(case, body=case.body[:-1] + b" }"),
            replace(case, secret=stranger),
            replace(case, headers={**case.headers, **late}),
            replace(case, headers={**case.headers, "webhook-id": "evt_other"}),
        )
    ]
    assert {judgement.type for judgement in official.judge(changed)} == {None}


def test_we_accept_what_the_official_library_signs(delivered: Delivered, official: Official) -> None:
    secret, stamp = new_secret(), str(int(time.time()))
    unsigned = [
        Case(secret, {"webhook-id": f"msg_{number}", "webhook-timestamp": stamp, "webhook-signature": "v1,"}, body)
        for number, body in enumerate(delivered.bodies.values())
    ]
    for case, judgement in zip(unsigned, official.judge(unsigned), strict=True):
        headers = {**case.headers, "webhook-signature": judgement.signature}
        webhook = outbox.verify([new_secret(), secret], headers, case.body)
        assert (webhook.id, webhook.json()) == (case.headers["webhook-id"], json.loads(case.body))
        with pytest.raises(outbox.SignatureError):
            outbox.verify(secret, headers, case.body + b" ")


def test_we_accept_what_the_relay_sent(delivered: Delivered) -> None:
    for case in delivered.cases():
        assert outbox.verify(case.secret, case.headers, case.body).id == case.headers["webhook-id"]
