"""What is done to many at once: dead letters after a question, and bulk operations."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from outbox.control.filters import Filters
from relay.operations.bulk.operations import list_bulk
from tests.support import seeding
from tests.support.visiting import Page, post, sign_in

pytestmark = pytest.mark.xdist_group("dashboard")


def test_dead_letters_are_put_back_and_deleted_after_a_question(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        names = [_bury(connection) for _ in range(4)]
    assert post(client, "/dead-letters", act="purge").status_code == 422
    assert post(client, "/dead-letters", act="replay", all="1").status_code == 422  # everything is no filter
    assert post(client, "/dead-letters", act="replay", id=names[0]).headers["location"].endswith("done=replayed&n=1")
    asked = post(client, "/dead-letters", act="purge", id=names[1])
    assert "Delete 1 dead letter" in asked.text
    assert post(client, "/dead-letters", act="purge", id=names[1], confirmed="1").headers["location"].endswith("n=1")
    everything = post(client, "/dead-letters", act="purge", all="1", type="gone.bad")
    assert "Delete 2 dead letters" in everything.text
    done = post(client, "/dead-letters", act="purge", all="1", type="gone.bad", confirmed="1")
    assert done.headers["location"].endswith("done=purged&n=2")


def test_the_question_says_how_many_pass_the_filter_and_leads_to_a_bulk_operation(stage, monkeypatch) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    with engine.begin() as connection:
        for _ in range(3):
            _bury(connection)
    monkeypatch.setattr("relay.web.pages.dead_letters.MOST", 2)
    given = {"all": "1", "type": "gone.bad", "tenant": "hooli", "since": "1h"}
    asked = Page(post(client, "/dead-letters", act="replay", **given).text)
    assert "Put back the oldest 2 of 3 dead letters?" in asked.text
    (link,) = [str(own["href"]) for tag, own in asked.elements if tag == "a" and "/bulk/new" in str(own.get("href"))]
    plan = Page(client.get(link).text)
    values = {own["name"]: own["value"] for tag, own in plan.elements if tag == "input" and own.get("id")}
    assert (values["type"], values["tenant"], values["since"], values["until"]) == ("gone.bad", "hooli", "1h", "")
    assert ("option", {"value": "redrive", "selected": None}) in plan.elements
    for more in ({"act": "purge"}, {"act": "replay", "key": "k"}):  # which no bulk operation does
        assert "/bulk/new" not in post(client, "/dead-letters", **given, **more).text
    assert post(client, "/dead-letters", act="purge", confirmed="1", **given).headers["location"].endswith("n=2")
    assert post(client, "/dead-letters", act="purge", confirmed="1", **given).headers["location"].endswith("n=1")


def _bury(connection: Connection) -> str:
    subscription = seeding.subscribe(connection, tenant="hooli", url="http://127.0.0.1:8999/dead")
    event = seeding.record(connection, type="gone.bad", tenant="hooli")
    (delivery,) = seeding.resolve(connection, event, subscription)
    seeding.attempt(connection, delivery, "dead", error="no")
    return delivery


def test_the_form_of_a_bulk_operation_takes_any_time_and_comes_filled_in(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.operator)
    filled = {"kind": "redrive", "type": "order.*", "since": "2026-01-31", "until": "3h", "tenant": "globex"}
    page = Page(client.get("/bulk/new", params=filled).text)
    values = {own["name"]: own["value"] for tag, own in page.elements if tag == "input" and own.get("id")}
    assert {name: values[name] for name in filled if name != "kind"} == {k: v for k, v in filled.items() if k != "kind"}
    assert ("option", {"value": "redrive", "selected": None}) in page.elements
    wrong = Page(post(client, "/bulk/new", kind="redrive", since="soon").text)
    (given,) = [own for tag, own in wrong.elements if tag == "input" and own.get("name") == "since"]
    assert (given["aria-invalid"], given["value"]) == ("true", "soon")
    assert post(client, "/bulk/new", **filled).status_code == 303
    with engine.begin() as connection:
        made = list_bulk(connection, None, Filters(limit=1)).items[0]
    assert made.parameters["since"].startswith("2026-01-31T00:00:00")
    assert made.parameters["type"] == "order.*"


def test_a_bulk_operation_is_planned_started_paused_and_cancelled(stage) -> None:
    address, scene, _ = stage
    client = sign_in(address, scene.operator)
    wrong = post(client, "/bulk/new", kind="recover", since="24h")
    assert wrong.status_code == 422
    assert "subscription: is needed for recover" in Page(wrong.text).text
    planned = post(client, "/bulk/new", kind="recover", subscription=scene.failing, since="24h", rate="7")
    path = planned.headers["location"].partition("?")[0]
    page = client.get(path).text
    assert "7 a second" in page
    assert "The first of them" in page
    for verb, word in (("start", "running"), ("pause", "paused"), ("resume", "running")):
        assert post(client, f"{path}/{verb}").status_code == 303
        assert word in client.get(path).text
    assert post(client, f"{path}/rate", rate="20").status_code == 303
    assert post(client, f"{path}/start").status_code == 409
    assert "Cancel the operation" in post(client, f"{path}/cancel").text
    assert post(client, f"{path}/cancel", confirmed="1").status_code == 303
    assert "cancelled" in client.get("/bulk").text
