"""`relay subscriptions preview`: the request that an event would become, and nothing of it goes anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

import outbox
from outbox import subscriptions
from outbox.subscriptions.authentication import BearerToken, OAuth2ClientCredentials
from relay.__main__ import run_command

CANARY = "canary-7f3a9c51"
URL = "https://example.com/hooks"
BURY = """
with gone as (delete from outbox.events returning seq, id, tenant, type, key, payload, recorded_at)
insert into outbox.dead_letters
    (delivery_id, event_seq, event_id, tenant, type, key, payload, recorded_at, attempts, reason)
select gen_random_uuid(), seq, id, tenant, type, key, payload, recorded_at, 1, 'transformation_failed' from gone
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.stdout)


@pytest.fixture
def preview(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    monkeypatch.setenv("RELAY_DATABASE_URL", database_url)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = run_command(["subscriptions", "preview", *arguments])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def draft(tmp_path: Path) -> Callable[[str], str]:
    def write(data: str) -> str:
        (tmp_path / "data.json").write_text(data, encoding="utf-8")
        return str(tmp_path / "data.json")

    return write


def counts(connection: Connection) -> tuple[int, ...]:
    tables = ("events", "deliveries", "attempts", "dead_letters", "audit")
    return tuple(connection.execute(text(f"select count(*) from outbox.{table}")).scalar_one() for table in tables)


def test_a_recorded_event_as_it_would_go_out(preview: Callable[..., Ended], connection: Connection) -> None:
    made = outbox.subscribe(connection, URL, ["order.*"], transformation="{n: data.n, at: timestamp}")
    event = outbox.record(connection, "order.created", {"n": 7}, key="k")
    connection.commit()
    before = counts(connection)
    ended = preview(made.id, "--event", event.id, "--json")
    found = ended.document
    sent = json.loads(found["request"]["body"])
    assert (ended.code, found["ok"], found["is_draft"], found["event_id"]) == (0, True, False, event.id)
    assert found["request"]["url"] == URL
    assert sent == {"type": "order.created", "timestamp": sent["timestamp"],
                    "data": {"n": 7, "at": sent["timestamp"]}}  # fmt: skip
    headers = {name.lower(): value for name, value in found["request"]["headers"]}
    assert headers["webhook-id"] == event.id
    assert headers["content-length"] == str(len(found["request"]["body"]))
    assert headers["webhook-signature"].startswith("v1,")
    assert counts(connection) == before, "nothing is written"


def test_its_signature_is_an_example_that_no_receiver_takes(
    preview: Callable[..., Ended], connection: Connection
) -> None:
    made = outbox.subscribe(connection, URL, ["*"])
    event = outbox.record(connection, "a.b", {"n": 7})
    connection.commit()
    request = preview(made.id, "--event", event.id, "--json").document["request"]
    with pytest.raises(outbox.SignatureError):
        outbox.verify(made.secret, dict(request["headers"]), request["body"].encode())


def test_an_expression_to_try_and_a_draft(
    preview: Callable[..., Ended], connection: Connection, draft: Callable[[str], str]
) -> None:
    made = outbox.subscribe(connection, URL, ["*"], tenant="acme", transformation="data.never")
    connection.commit()
    file = draft('{"price": 19.90}')
    asked = ("--data", file, "--type", "order.paid", "--key", "k", "--json")
    tried = preview(made.id, *asked, "--transformation", "{p: data.price, t: tenant, k: key}").document
    assert json.loads(tried["request"]["body"])["data"] == {"p": 19.9, "t": "acme", "k": "k"}
    assert '"p":19.90' in tried["request"]["body"]
    assert json.loads(tried["request"]["body"])["type"] == "order.paid"
    assert tried["is_draft"] is True
    assert json.loads(preview(made.id, *asked).document["request"]["body"])["data"] is None
    assert '"data":{"price": 19.90}' in preview(made.id, *asked, "--transformation", "").document["request"]["body"]
    assert subscriptions.get(connection, made.id, tenant="acme").transformation == "data.never"


def test_one_that_fails_ends_with_1_and_says_why(
    preview: Callable[..., Ended], connection: Connection, draft: Callable[[str], str]
) -> None:
    made = outbox.subscribe(connection, URL, ["*"], transformation="sum(data.prices)")
    connection.commit()
    ended = preview(made.id, "--data", draft('{"prices": ["1"]}'))
    assert ended.code == 1
    assert (
        "transformation: sum() at character 1: it takes an array of numbers, and this one holds a string"
        in ended.stdout
    )
    assert "dead letter" in ended.stdout
    found = preview(made.id, "--data", draft('{"prices": ["1"]}'), "--json").document
    assert (found["ok"], found["request"]) == (False, None)


def test_it_is_in_the_format_of_the_subscription(
    preview: Callable[..., Ended], connection: Connection, draft: Callable[[str], str]
) -> None:
    made = outbox.subscribe(connection, URL, ["*"], transformation="data.n", format="raw")
    connection.commit()
    assert preview(made.id, "--data", draft('{"n": 1.50}'), "--json").document["request"]["body"] == "1.50"


def test_no_credential_is_shown_and_none_is_fetched(
    preview: Callable[..., Ended], connection: Connection, draft: Callable[[str], str]
) -> None:
    """The token URL leads nowhere; that nothing is sent shows in that it does not matter."""
    one = outbox.subscribe(connection, URL, ["*"], headers={"X-Key": CANARY}, authentication=BearerToken(CANARY))
    oauth2 = OAuth2ClientCredentials("https://token.example.com/", "me", CANARY)
    two = outbox.subscribe(connection, URL, ["*"], authentication=oauth2)
    connection.commit()
    for made in (one, two):
        for form in ((), ("--json",)):
            ended = preview(made.id, "--data", draft("{}"), *form)
            assert ended.code == 0, ended.stderr
            assert "authorization" in ended.stdout.lower()
            assert CANARY not in ended.stdout + ended.stderr
            assert made.secret not in ended.stdout + ended.stderr
    assert "signed with an example secret" in preview(one.id, "--data", draft("{}")).stderr


@pytest.mark.parametrize(
    ("scheme", "signed"),
    [("standard", {"webhook-signature"}), ("github", {"x-hub-signature-256"}), ("stripe", {"stripe-signature"}),
     ("none", set())],
)  # fmt: skip
def test_a_signature_is_marked_as_an_example_and_nothing_else_is(
    preview: Callable[..., Ended], connection: Connection, draft: Callable[[str], str], scheme: str, signed: set[str]
) -> None:
    made = outbox.subscribe(connection, URL, ["*"], scheme=scheme, transformation="{n: data.n}")
    connection.commit()
    given = (made.id, "--data", draft('{"n": 7}'))
    assert {name.lower() for name in preview(*given, "--json").document["example_headers"]} == signed
    marked = [line for line in preview(*given).stdout.splitlines() if "(an example: the receiver gets another" in line]
    assert {line.split(":")[0].strip().lower() for line in marked} == signed


def test_anothers_event_is_not_shown_and_one_of_a_dead_letter_is(
    preview: Callable[..., Ended], connection: Connection
) -> None:
    acme, nobody = (outbox.subscribe(connection, URL, ["*"], tenant=name) for name in ("acme", ""))
    event = outbox.record(connection, "a.b", {"n": 7}, tenant="acme")
    connection.commit()
    assert preview(acme.id, "--event", event.id).code == 0
    refused = preview(nobody.id, "--event", event.id)
    assert (refused.code, refused.stdout) == (1, "")
    assert f"event: no {event.id} of the subscription's tenant" in refused.stderr
    assert preview(acme.id, "--event", event.id, "--tenant", "other").code == 1
    connection.execute(text(BURY))
    connection.commit()
    assert '"data":{"n":7}' in preview(acme.id, "--event", event.id, "--json").document["request"]["body"]
    assert preview(nobody.id, "--event", event.id).code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give either --event or --data"),
        (("--event", "evt_01jd3v0000e008000000000000", "--data", "-"), "give either --event or --data"),
        (("--event", "evt_01jd3v0000e008000000000000", "--type", "a"), "--type, --key and --metadata are a draft's"),
        (("--event", "evt_01jd3v0000e008000000000000"), "event: no evt_01jd3v0000e008000000000000"),
        (("--event", "nonsense"), "nonsense"),
        (("--event", "evt_01jd3v0000e008000000000000", "--transformation", "data."), "transformation: at character 6"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    preview: Callable[..., Ended], connection: Connection, arguments: tuple[str, ...], told: str
) -> None:
    made = outbox.subscribe(connection, URL, ["*"])
    outbox.record(connection, "a.b", {})
    connection.commit()
    ended = preview(made.id, *arguments)
    assert ended.code in (1, 2)
    assert told in ended.stderr


def test_a_draft_is_checked_like_an_event(
    preview: Callable[..., Ended], connection: Connection, draft: Callable[[str], str]
) -> None:
    made = outbox.subscribe(connection, URL, ["*"])
    connection.commit()
    assert "--data: not JSON" in preview(made.id, "--data", draft("{")).stderr
    assert "--type" in preview(made.id, "--data", draft("{}"), "--type", "no type").stderr
