"""examples/catalogue: each requirement of S2, over HTTP, with real processes and a receiver's own verification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from tests.support import databases
from tests.support.examples import Caller, query_named, running
from tests.support.loopback import allow_loopback
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("example-catalogue"), pytest.mark.timeout(120)]
WEBHOOKS, PRODUCTS, IMPORTS = "/api/v1/webhooks", "/api/v1/products", "/api/v1/imports"
PRODUCT_EVENTS = ["product.created", "product.updated", "product.deleted"]
SECRET = "my-secret-key"


@pytest.fixture(scope="module")
def catalogue(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running("catalogue", server_url, tmp_path_factory.mktemp("catalogue")) as example:
        yield example


@pytest.fixture
def shop(catalogue: Example) -> Iterator[Caller]:
    """Whoever manages the catalogue; what a test makes is removed after it."""
    caller = Caller(catalogue)
    yield caller
    for one in caller.ask("GET", f"{WEBHOOKS}?limit=100")["items"]:
        caller.ask("DELETE", f"{WEBHOOKS}/{one['id']}", status=204)
    caller.close()


def add(shop: Caller, hook: str, *answers: int, **more: Any) -> str:
    """Make a webhook, tell the receiver its secret, and return its id."""
    given = {"url": shop.hook(hook), "events": PRODUCT_EVENTS, "secret": SECRET, **more}
    shop.set_up(hook, given["secret"], *answers)
    if given["secret"] is None:
        del given["secret"]
    return str(shop.ask("POST", WEBHOOKS, given, status=201)["id"])


def create(shop: Caller, sku: str, query: str = "") -> str:
    return str(shop.ask("POST", f"{PRODUCTS}{query}", {"sku": sku, "name": f"Widget {sku}"}, status=201)["id"])


def bodies(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(request["body"]) for request in requests]


@pytest.mark.requirement("S2-01", "S2-02", "S2-03", "S2-10", "S2-12")
def test_what_is_done_with_a_product_is_told_to_each_webhook_in_parallel(shop: Caller) -> None:
    for hook in ("one", "two"):
        add(shop, hook, headers={"X-API-Key": "abc123"})
    product = create(shop, "W-1")
    shop.ask("PUT", f"{PRODUCTS}/{product}", {"active": False})
    shop.ask("DELETE", f"{PRODUCTS}/{product}", status=204)
    for hook in ("one", "two"):
        requests = shop.await_received(hook, 3)
        assert all(request["verified"] for request in requests)
        told = {body["event"]: body for body in bodies(requests)}
        assert [set(told[event]["data"]) for event in PRODUCT_EVENTS] == [
            {"id", "sku", "name", "description", "active", "created_at"},
            {"id", "sku", "name", "description", "active", "updated_at"},
            {"id", "sku", "name"},
        ]
        assert all(body.keys() == {"event", "timestamp", "data"} for body in told.values())
        for request in requests:
            headers = request["headers"]
            assert headers["user-agent"] == "FulFil-Webhook/1.0"
            assert headers["x-webhook-event"] == json.loads(request["body"])["event"]
            assert headers["x-webhook-signature"].startswith("sha256=")
            assert headers["x-api-key"] == "abc123"


@pytest.mark.requirement("S2-02")
def test_without_a_secret_requests_are_unsigned(shop: Caller) -> None:
    add(shop, "unsigned", secret=None)
    create(shop, "W-2")
    (request,) = shop.await_received("unsigned", 1)
    assert "x-webhook-signature" not in request["headers"]


@pytest.mark.requirement("S2-04")
def test_webhooks_are_listed_in_pages_and_by_whether_they_are_active(shop: Caller) -> None:
    made = [add(shop, f"list-{number}", is_active=number != 1) for number in range(3)]
    first = shop.ask("GET", f"{WEBHOOKS}?limit=2")
    assert (first["total"], first["limit"], first["offset"], first["has_more"]) == (3, 2, 0, True)
    rest = shop.ask("GET", f"{WEBHOOKS}?limit=2&offset=2")
    assert (rest["has_more"], [one["id"] for one in (*first["items"], *rest["items"])]) == (False, made)
    assert [one["id"] for one in shop.ask("GET", f"{WEBHOOKS}?is_active=false")["items"]] == [made[1]]
    assert shop.ask("GET", f"{WEBHOOKS}?is_active=true")["total"] == 2
    for query in ("limit=0", "limit=101", "offset=-1"):
        assert shop.refused("GET", f"{WEBHOOKS}?{query}")[0] == 422


@pytest.mark.slow
@pytest.mark.requirement("S2-05")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "ftp://a.example/"}, "url"),
        ({"events": ["product.creatd"]}, "did you mean 'product.created'"),
        ({"events": []}, "events"),
        ({"retry_count": 11}, "retry_count"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 301}, "timeout_seconds"),
        ({"headers": {"X-A": "a\nb"}}, "headers"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_each_bad_value_is_one_clear_error_and_nothing_is_made(shop: Caller, wrong: dict[str, Any], said: str) -> None:
    status, told = shop.refused("POST", WEBHOOKS, {"url": shop.hook("x"), "events": PRODUCT_EVENTS} | wrong)
    assert status == 422
    assert said in told
    assert shop.ask("GET", WEBHOOKS)["total"] == 0


@pytest.mark.slow
@pytest.mark.requirement("S2-06", "S2-07", "S2-13", "S2-14", "S2-15")
def test_what_failed_is_tried_again_counted_and_can_be_sent_by_hand(shop: Caller, catalogue: Example) -> None:
    hook = add(shop, "counted", 500, 404, retry_count=1)
    create(shop, "W-3")
    wait_until(lambda: shop.ask("GET", f"{WEBHOOKS}/{hook}")["failure_count"] == 1, timeout_seconds=30, message="no")
    shown = shop.ask("GET", f"{WEBHOOKS}/{hook}")
    assert (shown["success_count"], shown["last_error"], bool(shown["last_triggered_at"])) == (0, "http_4xx 404", True)
    failed = shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")[0]
    shop.ask("POST", f"{WEBHOOKS}/{hook}/logs/{failed['id']}/retry", status=202)
    wait_until(lambda: shop.ask("GET", f"{WEBHOOKS}/{hook}")["success_count"] == 1, message="was not sent again")
    assert shop.ask("GET", f"{WEBHOOKS}/{hook}")["last_error"] is None
    changed = shop.ask("PUT", f"{WEBHOOKS}/{hook}", {"description": "Renamed"})
    assert (changed["description"], changed["retry_count"]) == ("Renamed", 1)
    with databases.engine_on(catalogue.database_url) as engine, engine.connect() as connection:
        health = {one["subscription_id"]: one for one in query_named(connection, "catalogue", "health of each webhook")}
        assert (health[hook]["success_count"], health[hook]["failure_count"]) == (1, 2)
        failures = query_named(connection, "catalogue", "recent failures")
        assert {"product.created"} == {one["event"] for one in failures}
        times = query_named(connection, "catalogue", "average response time")
        assert [one["total_executions"] for one in times if one["subscription_id"] == hook] == [1]


@pytest.mark.slow
@pytest.mark.requirement("S2-08", "S2-09")
def test_a_test_is_a_real_request_also_of_an_inactive_webhook_and_is_in_its_log(shop: Caller) -> None:
    hook = add(shop, "tested", 200, 500, is_active=False)
    given = {"event": "product.created", "payload": {"test": True, "id": "test-123"}}
    tried = shop.ask("POST", f"{WEBHOOKS}/{hook}/test", given)
    assert (tried["success"], tried["status_code"], tried["error"]) == (True, 200, None)
    assert tried["response_body"] == '{"status": "ok"}'
    failed = shop.ask("POST", f"{WEBHOOKS}/{hook}/test", given)
    assert (failed["success"], failed["status_code"]) == (False, 500)
    assert [request["verified"] for request in shop.received("tested")] == [True, True]
    assert bodies(shop.received("tested"))[0]["data"] == {"test": True, "id": "test-123"}
    assert [(one["status"], one["status_code"]) for one in shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")] == [
        ("test", 500), ("test", 200),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.requirement("S2-09")
def test_the_log_has_payload_answer_and_time_newest_first_in_pages(shop: Caller) -> None:
    hook = add(shop, "logged")
    for number in range(3):
        create(shop, f"W-L{number}")
    wait_until(lambda: len(shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")) == 3, message="is not in the log")
    log = shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")
    assert sorted(one["payload"]["sku"] for one in log) == ["W-L0", "W-L1", "W-L2"]
    assert [one["created_at"] for one in log] == sorted((one["created_at"] for one in log), reverse=True)
    assert {(one["status_code"], one["response_body"], one["error"]) for one in log} == {
        (200, '{"status": "ok"}', None)
    }
    assert all(one["response_time_ms"] >= 0 for one in log)
    assert shop.ask("GET", f"{WEBHOOKS}/{hook}/logs?limit=1&offset=1") == log[1:2]
    assert shop.refused("GET", f"{WEBHOOKS}/{hook}/logs?limit=101")[0] == 422


@pytest.mark.requirement("S2-10")
def test_an_operation_can_be_done_without_telling_anybody(shop: Caller) -> None:
    add(shop, "silent")
    create(shop, "W-S1", "?trigger_webhooks=false")
    create(shop, "W-S2")
    (request,) = shop.await_received("silent", 1)
    assert json.loads(request["body"])["data"]["sku"] == "W-S2"


@pytest.mark.slow
@pytest.mark.requirement("S2-01", "S2-11")
def test_an_import_tells_of_its_start_and_its_end_or_failure(shop: Caller) -> None:
    events = ["import.started", "import.completed", "import.failed", *PRODUCT_EVENTS]
    add(shop, "imports", events=events)
    text = "sku,name\nI-1,One\n,nothing\nI-2,Two\nI-1,Other\n"
    done = shop.ask("POST", IMPORTS, {"filename": "a.csv", "text": text}, status=201)
    assert (done["created"], done["updated"], done["errors"]) == (2, 1, 1)
    shop.ask("POST", IMPORTS, {"filename": "b.csv", "text": "id\n1\n"}, status=201)
    told = bodies(shop.await_received("imports", 4))
    assert sorted(one["event"] for one in told) == [
        "import.completed", "import.failed", "import.started", "import.started",
    ]  # fmt: skip
    by_event = {one["event"]: one["data"] for one in told if one["data"].get("filename") != "b.csv"}
    assert by_event["import.started"] == {"task_id": done["task_id"], "filename": "a.csv", "total_rows": 4}
    assert by_event["import.completed"] == done
    assert by_event["import.failed"]["error"] == "the columns sku and name are missing"


@pytest.mark.slow
@pytest.mark.requirement("S2-10", "S2-13")
def test_every_product_is_told_of_although_the_relay_is_killed(shop: Caller, catalogue: Example) -> None:
    add(shop, "killed")
    made = set()
    for number in range(60):
        made.add(create(shop, f"K-{number}"))
        if number in (20, 40):
            catalogue.kill_relay()
    wait_until(lambda: told(shop) >= made, message="some were not told of", timeout_seconds=60)
    assert told(shop) == made


def told(shop: Caller) -> set[str]:
    return {body["data"]["id"] for body in bodies(shop.received("killed"))}


@pytest.mark.requirement("S2-16")
def test_what_was_wished_for_are_fields_of_a_subscription(shop: Caller, catalogue: Example) -> None:
    """Only active products, in batches, slowly, by another signature, with an own body."""
    hook = add(shop, "wished", secret=None)
    with databases.engine_on(catalogue.database_url) as engine, Session(engine) as session:
        allow_loopback()
        outbox.subscriptions.update(
            session, hook, filter={"payload": {"active": True}}, rate_limit="50/s", recovery_seconds=60,
            transformation="{sku: data.sku}",
        )  # fmt: skip
        secret = outbox.subscriptions.rotate_secret(session, hook, scheme="standard").secret
        session.commit()
    product = create(shop, "A-1")
    shop.ask("PUT", f"{PRODUCTS}/{product}", {"active": False})
    create(shop, "A-2")
    requests = shop.await_received("wished", 2)
    webhooks = [outbox.verify(secret, one["headers"], one["body"].encode()) for one in requests]
    assert sorted(one.json()["data"]["sku"] for one in webhooks) == ["A-1", "A-2"]
