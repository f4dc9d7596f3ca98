"""What each form and button of subscriptions and deliveries does."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import pytest
from sqlalchemy import Text, text

from outbox import subscriptions
from outbox.subscriptions.declaration import Field
from outbox.subscriptions.value_checks import text as text_check
from relay.web.pages import field_texts, subscription_forms
from tests.support import seeding
from tests.support.visiting import SECRET, Page, paths_of, post, sign_in
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("dashboard")
WAITING = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


def test_a_subscription_is_added_shown_changed_paused_resumed_and_removed(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    form = client.get("/subscriptions/new").text
    name = re.search(r'name="id" value="(sub_\w+)"', form)
    assert name
    fields = {"id": name[1], "url": "http://127.0.0.1:8999/hooks", "types": "order.*\nuser.created", "tenant": "acme",
              "timeout_seconds": "7", "filter": '{"payload": {"total": {"$gte": 100.50}}}', "scheme": "standard",
              "headers": "X-Key: s3cret-value", "authentication": "bearer", "token": "t0ken-value"}  # fmt: skip
    made = post(client, "/subscriptions/new", **fields)
    assert made.status_code == 200
    assert len(SECRET.findall(made.text)) == 1
    again = post(client, "/subscriptions/new", **fields)
    assert again.status_code == 422  # sent twice, made once
    assert "taken" in again.text
    assert "s3cret-value" not in again.text
    assert "t0ken-value" not in again.text
    path = f"/subscriptions/{name[1]}"
    edit = client.get(f"{path}/edit").text
    version = re.search(r'name="version" value="([^"]+)"', edit)
    assert version
    changed = {**fields, "timeout_seconds": "20", "types": "order.*, user.created", "version": unescape(version[1]),
               "headers": "", "authentication": "keep", "schedule_seconds": "none"}  # fmt: skip
    assert post(client, f"{path}/edit", **changed).status_code == 303
    assert post(client, f"{path}/edit", **changed).status_code == 409  # of an older version
    with engine.begin() as connection:
        found = subscriptions.get(connection, name[1], tenant="acme")
    assert (found.timeout_seconds, found.schedule_seconds, found.headers) == (20, (), ("X-Key",))
    assert found.authentication == "bearer"
    shown = client.get(path).text
    assert not SECRET.search(shown)
    assert "s3cret-value" not in shown
    for verb, state in (("pause", "paused"), ("resume", "active")):
        assert post(client, f"{path}/{verb}").status_code == 303
        with engine.begin() as connection:
            assert subscriptions.get(connection, name[1], tenant="acme").state == state
    asked = post(client, f"{path}/remove")
    assert asked.status_code == 200
    assert "Remove it for good" in asked.text
    assert post(client, f"{path}/remove", confirmed="1").headers["location"] == "/subscriptions?done=removed"


def test_a_form_does_not_overwrite_what_a_colleague_changes_just_now(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        made = seeding.subscribe(connection, tenant="acme", url="http://127.0.0.1:8999/meanwhile")
    version = re.search(r'name="version" value="([^"]+)"', client.get(f"/subscriptions/{made}/edit").text)
    assert version
    form = {"url": "http://127.0.0.1:8999/meanwhile", "types": "mine.added", "version": unescape(version[1])}
    with ThreadPoolExecutor() as pool, engine.connect() as colleague, engine.connect() as outside:
        subscriptions.update(colleague, made, tenant="acme", types=["colleague.added"])
        sent = pool.submit(post, client, f"/subscriptions/{made}/edit", **form)
        wait_until(lambda: outside.execute(text(WAITING)).scalar_one())
        colleague.commit()
        assert sent.result().status_code == 409
    with engine.begin() as connection:
        assert subscriptions.get(connection, made, tenant="acme").types == ("colleague.added",)
        subscriptions.remove(connection, made, tenant="acme")


def test_the_form_shows_a_field_that_was_declared_since_it_was_written(stage, monkeypatch) -> None:
    note = Field(name="a_note", column=Text(), default="", check=text_check(9), flags=(), meaning="What `it` is for.")
    monkeypatch.setattr(field_texts, "COLUMNS", (*field_texts.COLUMNS, note))
    monkeypatch.setattr(subscription_forms, "FIELDS", (*subscription_forms.FIELDS, note))
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    page = Page(client.get("/subscriptions/new").text)
    assert any(element.get("name") == "a_note" for _, element in page.elements)
    assert "A note" in page.text
    assert "What it is for." in page.text
    fields = {"url": "http://127.0.0.1:8999/hooks", "types": "order.*", "timeout_seconds": "x", "a_note": "kept"}
    again = Page(post(client, "/subscriptions/new", **fields).text)
    assert any(element.get("name") == "a_note" and element.get("value") == "kept" for _, element in again.elements)


def test_what_a_form_gives_wrong_is_named_at_its_field_and_kept(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    for name, value, said in (
        ("url", "ftp://x", "url"), ("types", "a b!", "types"), ("timeout_seconds", "soon", "no whole number"),
        ("filter", "{", "is no JSON"), ("headers", "nothing", "is not"), ("filter", "@/etc/passwd", "is no JSON"),
    ):  # fmt: skip
        fields = {"url": "http://127.0.0.1:8999/hooks", "types": "order.*", name: value}
        answer = post(client, "/subscriptions/new", **fields)
        assert answer.status_code == 422, name
        assert said in Page(answer.text).text
        assert "root:" not in answer.text
        assert any(e.get("aria-invalid") and e.get("name") == name for _, e in Page(answer.text).elements), name


def test_a_secret_is_shown_when_it_is_made_and_on_no_other_page(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    rotated = post(client, f"/subscriptions/{scene.subscription}/secret", overlap_seconds="0")
    (secret,) = SECRET.findall(rotated.text)
    token = SECRET.findall(post(client, "/tokens", name="shown", right="read", days="30", every_tenant="1").text)
    assert len(token) == 1
    for path in paths_of(scene):
        assert not SECRET.search(client.get(path).text), path
    assert secret.startswith("whsec_")


def test_one_delivery_is_retried_cancelled_and_replayed_by_the_visitors_name(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/one")
        (name,) = seeding.resolve(connection, seeding.record(connection, tenant="hooli"), subscription)
        seeding.attempt(connection, name, "retry")
    assert post(client, f"/deliveries/{name}/retry").status_code == 303
    assert post(client, f"/deliveries/{name}/retry").status_code == 409  # it is due by now
    assert "Cancel the delivery" in post(client, f"/deliveries/{name}/cancel").text
    assert post(client, f"/deliveries/{name}/cancel", confirmed="1").status_code == 303
    assert "cancelled" in client.get(f"/deliveries/{name}").text
    assert post(client, f"/deliveries/{name}/replay").headers["location"].startswith("/deliveries/dlv_")
    with engine.begin() as connection:
        actors = connection.execute(
            text(
                "select distinct actor from outbox.audit where action in ('retried', 'cancelled') and tenant = 'hooli'"
            )
        ).scalars()
        assert list(actors) == ["token:operator of the shop"]


def test_a_subscription_is_disabled_with_a_reason_that_everybody_is_shown(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/disabled")
    path = f"/subscriptions/{name}/disable"
    assert path in Page(client.get(f"/subscriptions/{name}").text).posts_to()
    asked = Page(post(client, path).text)
    (field,) = [own for tag, own in asked.elements if tag == "input" and own.get("name") == "reason"]
    assert "required" in field
    for reason in ("", "  ", "é" * 251):
        refused = post(client, path, confirmed="1", reason=reason)
        assert refused.status_code == 422
        assert any(own.get("aria-invalid") and own.get("name") == "reason" for _, own in Page(refused.text).elements)
    done = post(client, path, confirmed="1", reason="they moved <b>away</b>")
    assert done.headers["location"] == f"/subscriptions/{name}?done=disabled"
    page = client.get(f"/subscriptions/{name}").text
    assert "they moved &lt;b&gt;away&lt;/b&gt;" in page
    assert path not in Page(page).posts_to()


def test_all_sending_is_paused_after_a_question_and_resumed(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    asked = Page(post(client, "/findings/sending", to="paused").text)
    assert "Pause all sending" in asked.text
    assert [own.get("name") for tag, own in asked.elements if tag == "input" and own.get("id")] == ["reason"]
    post(client, "/findings/sending", to="paused", confirmed="1", reason="the bank called")
    shown = Page(client.get("/").text).text
    assert "All sending is paused" in shown
    assert ": the bank called." in shown
    post(client, "/findings/sending", to="resumed")
    assert "All sending is paused" not in client.get("/").text
