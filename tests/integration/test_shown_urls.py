"""A URL that is a credential, or holds one: what may be shown of it, in Python and SQL alike, and who sees the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from outbox import subscriptions
from outbox.control import attempts, audit, dead_letters, deliveries, explain, history, track
from outbox.control.filters import Filters
from outbox.formats import FORMATS, shown_url
from outbox.ids import DeliveryId, EventId
from relay.cli.output import fields_of
from relay.operations.status.status import status
from tests.support import seeding
from tests.unit.test_presets import URLS

pytestmark = pytest.mark.field("F27")

TOKEN = "aB3xY9kLm2Qr7tUv1Wz5"
URL = f"https://user.example/hooks/{TOKEN}/in?x=1&token=short"
SHOWN = "https://user.example/hooks/***/in?x=1&token=***"
HOSTS = (
    *("a.example", "hooks.slack.com", "HOOKS.slack-gov.com", "canary.discord.com", "x.webhook.office.com"),
    *(
        "chat.googleapis.com",
        "[2001:db8::1]",
        "x.logic.azure.com",
        "hooks.zapier.com",
        "",
        "u:p@a.example",
        "@",
        "a@b@c",
    ),
)
PIECES = (
    *("/", "/a", "//", "/token/", "/keys/x", "/services/T0/B0/abc", "/api/v10/webhooks/12/", "/workflows/", "/A1b2"),
    *("/0b3a1c9e-7f54-4d0e-9a44-2f1f7a3c1b22", f"/{TOKEN}", "/Ab3-xY9_kLm2-Qr7_tUv1", "%2f", ":8443", "="),
    *("&", ";", "?"),
    *("x=1", "token=abc", "apiKey=", "sig=%2F", "#", "é", "order-created-2026-version-two", "a=b=c", "\\", "[", "]"),
)  # fmt: skip


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def any_url(chance: random.Random) -> str:
    scheme = chance.choice(("https://", "http://", "https:/", ""))
    return scheme + chance.choice(HOSTS) + "".join(chance.choices(PIECES, k=chance.randrange(7)))


def test_sql_shows_of_any_url_what_python_shows(connection: Connection) -> None:
    chance = random.Random(27)
    pairs = [(url, form) for form, url, _ in URLS]
    pairs += [(any_url(chance), chance.choice([*FORMATS, "unknown"])) for _ in range(5000)]
    statement = text(
        "select outbox.shown_url(url, form) from unnest(cast(:urls as text[]), cast(:forms as text[]))"
        " with ordinality as of(url, form, place) order by place"
    )
    given = {"urls": [url for url, _ in pairs], "forms": [form for _, form in pairs]}
    found = connection.execute(statement, given).scalars().all()
    different = [
        (url, form, shown_url(url, form), seen)
        for (url, form), seen in zip(pairs, found, strict=True)
        if shown_url(url, form) != seen
    ]
    assert different == []


def seen_by_a_reader(connection: Connection, event: str, delivery: str) -> dict[str, Any]:
    """What each operation tells whoever has the rights of outbox_reader."""
    wanted = Filters()
    return {
        "get": subscriptions.list(connection)[0],
        "status": status(connection, None),
        "audit": audit.list_audit(connection, None, wanted),
        "dead letters": dead_letters.list_dead_letters(connection, None, wanted),
        "deliveries": deliveries.list_deliveries(connection, None, wanted),
        "delivered": deliveries.list_deliveries(connection, None, wanted, "delivered"),
        "delivery": deliveries.show_delivery(connection, None, DeliveryId.of(delivery)),
        "track": track.track_event(connection, None, EventId.of(event)),
        "explain": explain.explain_event(connection, None, EventId.of(event)),
        "attempts": history.list_attempts(connection, None, wanted),
        "attempts of an event": history.list_attempts(connection, None, Filters(event=event)),
        "of an event": attempts.attempts_of_event(connection, None, event),
        "of a delivery": attempts.attempts_of_delivery(connection, None, delivery),
    }


def test_whoever_only_reads_sees_no_credential_of_a_url(connection: Connection) -> None:
    name = subscriptions.add(connection, URL, ["*"]).id
    event = seeding.record(connection)
    (delivery,) = seeding.resolve(connection, event, name)
    for verdict in ("delivered", "dead"):
        made = seeding.record(connection)
        seeding.attempt(connection, seeding.resolve(connection, made, name)[0], verdict)
    other = URL.replace("token=short", "token=other")
    subscriptions.update(connection, name, url=other)
    connection.execute(text("set role outbox_reader"))
    seen = seen_by_a_reader(connection, event, delivery)
    assert seen["get"].url == SHOWN
    for where, found in seen.items():
        assert TOKEN not in repr(found), where
        assert "token=short" not in repr(found), where
    (changed,) = (entry for entry in seen["audit"].items if entry.action == "updated")
    assert (changed.before, changed.after) == ({"url": SHOWN}, {"url": f"(another one) {SHOWN}"})
    kept = connection.execute(text("select string_agg(audit::text, '') from outbox.audit")).scalar_one()
    assert TOKEN not in kept
    assert connection.execute(text("select shown_url from outbox.subscriptions")).scalars().all() == [SHOWN]
    with pytest.raises(ProgrammingError, match="permission denied for table subscriptions"):
        connection.execute(text("select url from outbox.subscriptions"))
    connection.execute(text("reset role"))
    assert fields_of(subscriptions.get(connection, name))["url"] == SHOWN
    assert connection.execute(text("select url from outbox.subscriptions")).scalars().all() == [other]


_GONE = text("""
insert into outbox.attempts (delivery_id, subscription_id, number, verdict, outcome, milliseconds, url)
values (outbox.uuid7(), outbox.uuid7(), 1, 'retry', 'timeout', 1, :url),
       (outbox.uuid7(), outbox.uuid7(), 1, 'cancelled', 'cancelled', 1, null)""")


def test_an_attempt_of_before_urls_were_redacted_shows_a_reader_no_credential(connection: Connection) -> None:
    """A former relay wrote the whole URL; of a format whose URLs are credentials too, and of one that is gone."""
    chat, gone = "https://chat.example/in/a-short-one", "https://gone.example/x?key=1"
    formats = {URL: "standard", chat: "slack"}
    names = [subscriptions.add(connection, url, ["*"], format=form).id for url, form in formats.items()]
    event = seeding.record(connection)
    found = seeding.resolve(connection, event, *names)
    for delivery in found:
        seeding.attempt(connection, delivery, "retry")
    old = text("update outbox.attempts set url = :url where delivery_id = outbox.uuid_of(:of)")
    for delivery, url in zip(found, (URL, chat), strict=True):
        connection.execute(old, {"url": url, "of": delivery})
    connection.execute(_GONE, {"url": gone})
    whole = connection.execute(text("select * from outbox.shown_attempts")).mappings().all()
    shown = {SHOWN, "https://chat.example/in/***", "https://gone.example/x?key=***", None}
    assert {row["url"] for row in whole} == shown
    kept = [dict(row) for row in connection.execute(text("select * from outbox.attempts")).mappings()]
    assert [row | {"url": None} for row in kept] == [dict(row) | {"url": None} for row in whole]
    connection.execute(text("set role outbox_reader"))
    assert set(connection.execute(text("select url from outbox.shown_attempts")).scalars()) == shown
    assert {one.url for one in history.list_attempts(connection, None, Filters()).items} == shown
    for what in ("url", "*", "a"):
        with pytest.raises(ProgrammingError, match="permission denied for table attempts"):
            connection.execute(text(f"select {what} from outbox.attempts a"))
    connection.execute(text("reset role"))
