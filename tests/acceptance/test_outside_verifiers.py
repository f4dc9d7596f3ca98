"""What `relay run` really sends is accepted by the official libraries of each scheme that has one, and the reverse."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

import outbox
from outbox.signing.schemes import SCHEMES
from outbox.signing.verify import new_secret, public_key
from tests.support import databases, readme
from tests.support.npm import Npm
from tests.support.official import Case, Judge, from_npm, from_pypi
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


@dataclass(frozen=True)
class Live:
    """The scheme of a subscription and its live secrets, newest first."""

    scheme: str
    secrets: tuple[str, ...]


@dataclass
class Delivered:
    """Everything that one relay sent: who got it by path, the bodies as recorded by event, and the requests."""

    live: dict[str, Live] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def cases(self, scheme: str) -> list[Case]:
        """Each request of this scheme with each live secret of its subscription that is symmetric."""
        return [
            Case(secret, headers, body)
            for path, headers, body in self.requests
            if self.live[path].scheme == scheme
            for secret in self.live[path].secrets
            if not secret.startswith("whsk_")
        ]


def record_and_subscribe(connection: Connection, base_url: str) -> dict[str, Live]:
    """Return the live secrets by path: made ones, own ones of 24 bytes and of 64, those of rotations, every scheme."""

    def subscribe(path: str, *rotations: dict[str, Any], **fields: Any) -> None:
        made = [outbox.subscribe(connection, base_url + path, ["order.*"], **fields)]
        made += [outbox.subscriptions.rotate_secret(connection, made[0].id, **settings) for settings in rotations]
        live[path] = Live(made[-1].scheme, tuple(each.secret for each in reversed(made)))

    live: dict[str, Live] = {}
    for scheme in SCHEMES:
        subscribe(f"/{scheme}", scheme=scheme)
    for scheme in ("standard", "svix", "stripe", "convoy-advanced"):
        subscribe(f"/{scheme}-rotated", {}, scheme=scheme)
    subscribe("/short", secret="whsec_" + "MfKQ" * 8)
    subscribe("/long", secret="whsec_" + "+/+/" * 21 + "QQ==")
    subscribe("/text", scheme="github", secret="It's a Secret to Everybody: ключ")
    subscribe("/ed25519", key_type="ed25519")
    subscribe("/both", {"key_type": "ed25519"})
    for data in DATA:
        outbox.record(connection, "order.placed", data)
    return live


async def deliver(database_url: str, directory: Path) -> Delivered:
    """Record, subscribe, and let a relay process deliver to a socket that keeps every byte."""

    async def accept(exchange: Exchange) -> None:
        exchange.writer.write(OK)

    delivered = Delivered()
    async with receiving(accept) as receiver:
        with databases.engine_on(database_url) as engine:
            with engine.begin() as connection:
                delivered.live = record_and_subscribe(connection, receiver.url.removesuffix("/hook"))
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
def npm(tmp_path_factory: pytest.TempPathFactory) -> Npm:
    """The libraries from npm, installed once for all tests."""
    return Npm(tmp_path_factory.mktemp("npm"))


LIBRARIES = [("standard", "PyPI"), ("standard", "npm"), ("svix", "PyPI"), ("svix", "npm"), ("stripe", "PyPI"),
             ("stripe", "npm"), ("github", "npm")]  # fmt: skip
SIGNATURE = {
    "standard": "webhook-signature",
    "svix": "svix-signature",
    "stripe": "stripe-signature",
    "github": "x-hub-signature-256",
}


@pytest.fixture
def official(request: pytest.FixtureRequest) -> Judge:
    """One of the libraries; its scheme and registry are the parameter."""
    scheme, registry = request.param
    return from_pypi(scheme) if registry == "PyPI" else from_npm(scheme, request.getfixturevalue("npm"))


every_library = pytest.mark.parametrize(
    ("official", "scheme"),
    [(library, library[0]) for library in LIBRARIES],
    indirect=["official"],
    ids=["-".join(library) for library in LIBRARIES],
)
of_standard = pytest.mark.parametrize("official", LIBRARIES[:2], indirect=True, ids=["PyPI", "npm"])


def test_every_subscription_gets_each_body_byte_for_byte_as_it_was_recorded(delivered: Delivered) -> None:
    sent = {(path, headers["webhook-id"]): body for path, headers, body in delivered.requests}
    assert len(delivered.requests) == len(sent) == len(DATA) * len(delivered.live)
    assert sent == {(path, event): body for path in delivered.live for event, body in delivered.bodies.items()}
    assert any(body.endswith(b'"data":' + RAW.encode() + b"}") for body in sent.values())


def test_the_body_has_the_form_that_the_documents_show(delivered: Delivered) -> None:
    (shown,) = (block for block in readme.blocks(readme.ROOT / "docs" / "concepts.md") if block.language == "json")
    envelope = re.compile(
        r'\{"type":"[\w.]+","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","data":.*\}', re.DOTALL
    )
    assert envelope.fullmatch(shown.text.strip())
    assert all(envelope.fullmatch(body.decode()) for body in delivered.bodies.values())


@pytest.mark.slow
@every_library
def test_the_official_library_accepts_every_request_with_each_live_secret(
    delivered: Delivered, official: Judge, scheme: str
) -> None:
    cases = delivered.cases(scheme)
    judged = official(cases)
    assert {judgement.type for judgement in judged} == {"order.placed"}
    assert len(judged) == len(DATA) * {"standard": 6, "svix": 3, "stripe": 3, "github": 2}[scheme]


@pytest.mark.slow
@every_library
def test_the_signatures_are_those_the_official_library_makes(
    delivered: Delivered, official: Judge, scheme: str
) -> None:
    """Byte for byte, one for each secret; only Ed25519's are unknown to all of them."""
    cases = delivered.cases(scheme)
    made: dict[str, list[str]] = {case.headers[SIGNATURE[scheme]]: [] for case in cases}
    for case, judgement in zip(cases, official(cases), strict=True):
        made[case.headers[SIGNATURE[scheme]]].append(judgement.signature)
    found = {header: _signatures(scheme, header) for header in made}
    assert found == made


def _signatures(scheme: str, header: str) -> list[str]:
    """Return the signatures in a header that are made of symmetric secrets."""
    if scheme == "stripe":
        return [part.removeprefix("v1=") for part in header.split(",") if part.startswith("v1=")]
    return [signature for signature in header.split(" ") if not signature.startswith("v1a,")]


@pytest.mark.slow
@every_library
def test_the_official_library_refuses_what_was_changed(delivered: Delivered, official: Judge, scheme: str) -> None:
    moved = [
        other
        for case in delivered.cases(scheme)
        for other in (
            replace(case, body=case.body[:-1] + b" }"),
            replace(case, secret=new_secret(scheme)),
            *(replace(case, headers=headers) for headers in _moved(scheme, case.headers)),
        )
    ]
    assert {judgement.type for judgement in official(moved)} == {None}


def _moved(scheme: str, headers: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the headers with another id and another time, where the scheme signs them."""
    later = str(int(time.time()) + 60)
    if scheme == "stripe":
        header = headers["stripe-signature"]
        return [{**headers, "stripe-signature": f"t={later},{header.partition(',')[2]}"}]
    if scheme == "github":
        return []
    prefix = {"standard": "webhook", "svix": "svix"}[scheme]
    return [{**headers, f"{prefix}-timestamp": later}, {**headers, f"{prefix}-id": "evt_other"}]


@pytest.mark.slow
@of_standard
def test_we_accept_what_the_official_library_signs(delivered: Delivered, official: Judge) -> None:
    secret, stamp = new_secret(), str(int(time.time()))
    unsigned = [
        Case(secret, {"webhook-id": f"msg_{number}", "webhook-timestamp": stamp, "webhook-signature": "v1,"}, body)
        for number, body in enumerate(delivered.bodies.values())
    ]
    for case, judgement in zip(unsigned, official(unsigned), strict=True):
        headers = {**case.headers, "webhook-signature": judgement.signature}
        webhook = outbox.verify([new_secret(), secret], headers, case.body)
        assert (webhook.id, webhook.json()) == (case.headers["webhook-id"], json.loads(case.body))
        with pytest.raises(outbox.SignatureError):
            outbox.verify(secret, headers, case.body + b" ")


def test_we_accept_what_the_relay_sent_by_every_scheme_with_each_live_secret(delivered: Delivered) -> None:
    assert {live.scheme for live in delivered.live.values()} == set(SCHEMES)
    for path, headers, body in delivered.requests:
        live = delivered.live[path]
        for secret in live.secrets:
            key = public_key(secret, live.scheme) or secret
            assert outbox.verify(key, headers, body, scheme=live.scheme).body == body


def test_the_receivers_of_s1_accept_what_the_relay_sent_in_their_scheme(delivered: Delivered) -> None:
    sent = [(headers["x-webhook-signature"], body) for path, headers, body in delivered.requests if path == "/notely"]
    assert len(sent) == len(DATA)
    (secret,) = delivered.live["/notely"].secrets
    for signature, body in sent:
        text = json.dumps(json.loads(body), separators=(",", ":"))
        assert signature == "sha256=" + hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
