"""What comes from outside is always text: hostile words, large payloads, URLs that are credentials."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from sqlalchemy import Connection, text

from outbox import subscriptions
from outbox.ids import parse_id
from tests.support import seeding
from tests.support.visiting import Page, paths_of, post, sign_in

pytestmark = pytest.mark.xdist_group("dashboard")


HOSTILE = (
    "<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "{{ 7*77777 }}{% raw %}", "</textarea></pre><b>",
    "\u202eevil\u2066", "&lt;b&gt;", "javascript:alert(1)", "w" * 900,
)  # fmt: skip


@pytest.mark.case("D15")
def test_hostile_text_is_text_on_every_page(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        names = [_hostile(connection, word, place) for place, word in enumerate(HOSTILE)]
    client = sign_in(address, scene.operator)
    own = [
        path
        for subscription, event, delivery in names
        for path in (f"/subscriptions/{subscription}", f"/subscriptions/{subscription}/edit",
                     f"/subscriptions/{subscription}/test", f"/events/{event}", f"/deliveries/{delivery}",
                     f"/deliveries/{delivery}/request", f"/audit?subject={subscription}",
                     f"/dead-letters?subscription={subscription}")
    ]  # fmt: skip
    for path in (*paths_of(scene), *own):
        answer = client.get(path)
        page = Page(answer.text)
        assert answer.status_code == 200, (path, answer.text[-500:])
        assert not [tag for tag, _ in page.elements if tag in ("img", "b")], path
        assert [e for tag, e in page.elements if tag == "script" and "relay.js" not in str(e.get("src"))] == [], path
        assert not [e for _, e in page.elements if any(name.startswith("on") for name in e)], path
        assert not [e for _, e in page.elements if str(e.get("href", "")).startswith("javascript:")], path
        assert "544439" not in answer.text, path
        body = re.sub(r"<textarea[\s\S]*?</textarea>|<input[^>]*>", "", answer.text)
        assert "\u202e" not in body, path
        assert "\0" not in answer.text, path


def _hostile(connection: Connection, word: str, place: int) -> tuple[str, str, str]:
    """Bury a delivery whose every text is this word: tenant, key, payload, description, error, headers, excerpt."""
    tenant = word[:200]
    made = subscriptions.add(
        connection, f"http://127.0.0.1:8999/{place}?b=%3Cb%3E", ["*"], tenant=tenant, description=word,
        metadata={"note": word},
    )  # fmt: skip
    payload = json.dumps({word: word, "nul": "\0", "big": "x" * (250_000 if place == 0 else 1)})
    event = seeding.record(connection, payload, tenant=tenant, key=word)
    (delivery,) = seeding.resolve(connection, event, made.id)
    seeding.attempt(connection, delivery, "dead", error=word)
    connection.execute(_EXCERPT, {
        "id": parse_id("dlv", delivery), "headers": f"x-evil: {word}",
        "excerpt": f"\0\x1b[31m{word}".encode() + b"\xff",
    })  # fmt: skip
    return made.id, event, delivery


_EXCERPT = text("""
update outbox.attempts set headers = :headers, excerpt = :excerpt where delivery_id = :id
""")


def test_a_payload_of_a_megabyte_is_shown_from_its_beginning_and_sent_whole_as_a_file(stage) -> None:
    address, scene, engine = stage
    with engine.begin() as connection:
        connection.execute(text("update outbox.settings set value = 2000000 where name = 'max_payload_bytes'"))
        event = seeding.record(connection, '{"big":"' + "<b>" * 350_000 + '"}', tenant="hooli")
    client = sign_in(address, scene.operator)
    page = client.get(f"/events/{event}")
    assert page.status_code == 200
    assert len(page.text) < 200_000
    assert "The first 20,000 of 1,050,010 characters" in Page(page.text).text
    whole = client.get(f"/events/{event}/payload")
    assert len(whole.text) == 1_050_010
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-disposition"].startswith("attachment")


def test_a_url_that_is_a_credential_is_redacted_on_every_page(stage) -> None:
    address, scene, engine = stage
    url = "https://hooks.slack.com/services/T0/B0/cr3dential"
    with engine.begin() as connection:
        made = subscriptions.add(connection, url, ["*"], tenant="hooli", format="slack")
        event = seeding.record(connection, tenant="hooli")
        (delivery,) = seeding.resolve(connection, event, made.id)
    client = sign_in(address, scene.operator)
    for path in (*paths_of(scene), f"/subscriptions/{made.id}", f"/subscriptions/{made.id}/edit",
                 f"/subscriptions/{made.id}/test", f"/events/{event}", f"/deliveries/{delivery}",
                 f"/audit?subject={made.id}", "/subscriptions?tenant=hooli"):  # fmt: skip
        assert "cr3dential" not in client.get(path).text, path
    version = re.search(r'name="version" value="([^"]+)"', client.get(f"/subscriptions/{made.id}/edit").text)
    assert version
    answer = post(client, f"/subscriptions/{made.id}/edit", url=made.url, types="*", description="changed",
                  version=unescape(version[1]))  # fmt: skip
    assert answer.status_code == 303
    with engine.begin() as connection:
        kept = connection.execute(text("select url from outbox.subscriptions where id = :id"),
                                  {"id": parse_id("sub", made.id)}).scalar_one()  # fmt: skip
    assert kept == url
