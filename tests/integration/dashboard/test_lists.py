"""What lists find, and what is live on a page."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.support import seeding
from tests.support.visiting import Page, sign_in

pytestmark = pytest.mark.xdist_group("dashboard")


def test_the_history_is_searched_by_text_and_outcome(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/search")
        event = seeding.record(connection, '{"note":"needle-in-payload"}', tenant="hooli")
        (delivery,) = seeding.resolve(connection, event, subscription)
        seeding.attempt(connection, delivery, "retry", error="stack-of-hay")
    client = sign_in(address, scene.operator)
    for query, found in (("text=needle-in-payload", True), ("text=stack-of-hay", True), ("text=nowhere", False),
                         (f"subscription={subscription}&outcome=failed", True), ("outcome=delivered", False),
                         (f"subscription={subscription}&status=5xx", True)):  # fmt: skip
        assert (delivery in client.get(f"/attempts?{query}").text) is found, query
    for query in ("status=9999", "outcome=none", "subscription=x", "after=x", "text=" + "x" * 201):
        answer = client.get(f"/attempts?{query}")
        assert 'role="alert"' in answer.text, query


def test_every_list_is_searched_by_time_event_and_text(stage) -> None:
    """Whatever the operation takes: a list of what happened to one event, in a window, with words in it."""
    address, scene, engine = stage
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/window")
        event = seeding.record(connection, '{"note":"pin-in-payload"}', tenant="hooli")
        dead, done = seeding.resolve(connection, event, subscription, seeding.subscribe(connection, tenant="hooli"))
        seeding.attempt(connection, dead, "dead", error="gave up")
        seeding.attempt(connection, done, "delivered")
        other = seeding.record(connection, '{"note":"pin-in-payload"}', tenant="hooli")
        (due,) = seeding.resolve(connection, other, subscription)
    client = sign_in(address, scene.operator)
    now, past = "since=1h", "until=2h"
    for path, own, queries in (
        ("/attempts", dead, {f"event={event}": True, f"event={other}": False, now: True, past: False}),
        ("/events", event, {"text=pin-in-payload": True, "text=nowhere": False, now: True, past: False}),
        ("/dead-letters", dead, {f"event={event}": True, f"event={other}": False, "text=pin-in": True,
                                 "text=gave+up": True, "text=nowhere": False, now: True, past: False}),
        ("/deliveries", due, {f"event={other}": True, f"event={event}": False, now: True, past: False}),
        ("/deliveries", done, {f"state=delivered&event={event}&outcome=delivered&text=pin-in": True,
                               "state=delivered&outcome=timeout": False, f"state=delivered&{past}": False}),
    ):  # fmt: skip
        for query, found in queries.items():
            answer = client.get(f"{path}?tenant=hooli&{query}")
            assert answer.status_code == 200
            assert (own in answer.text) is found, (path, query)


@pytest.mark.parametrize("path", ["/attempts", "/events", "/deliveries", "/dead-letters", "/audit"])
def test_a_time_that_is_none_is_told_beside_its_field(stage, path: str) -> None:
    client = sign_in(stage[0], stage[1].operator)
    for name, value in (("since", "yesterday"), ("until", "2026-01-31T12:00"), ("since", "9" * 200)):
        page = Page(client.get(path, params={name: value}).text)
        (given,) = [own for tag, own in page.elements if tag == "input" and own.get("id") == f"f-{name}"]
        assert (given["aria-invalid"], given["list"]) == ("true", "times")
        assert "time" in page.text.split(f"{name}: ")[1]
        assert [own.get("name") for _, own in page.elements if "aria-invalid" in own] == [name]


def test_a_stream_tells_a_tenant_of_its_own_changes(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.tenant)
    with client.stream("GET", "/live", timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("retry")
        with engine.begin() as connection:
            seeding.record(connection, tenant="acme")
        assert next(line for line in lines if line.startswith("event")) == "event: changed"


def test_a_page_is_read_anew_now_and_then_though_nothing_new_came(stage, monkeypatch) -> None:
    """A relay that stops, or a full disk, makes no row; an open page would show for ever that all is well."""
    monkeypatch.setattr("relay.web.pages.live.QUIET_SECONDS", 0.1)
    address, scene, _ = stage
    client = sign_in(address, scene.tenant)
    with client.stream("GET", "/live", timeout=15) as stream:
        told = [line for line, _ in zip(stream.iter_lines(), range(5), strict=False) if line.startswith("event")]
    assert told == ["event: changed"]


def test_the_keys_of_each_relay_are_shown(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        seeding.sign_in(connection, host="keyed", key_ids=["0e2a3f80f4d6ac20", "77d1a0c2b9e84f13"])
    client = sign_in(address, scene.operator)
    try:
        for path in ("/", "/findings"):
            assert "0e2a3f80f4d6ac20, 77d1a0c2b9e84f13" in Page(client.get(path).text).text, path
    finally:
        with engine.begin() as connection:
            connection.execute(text("delete from outbox.relays where host = 'keyed'"))
