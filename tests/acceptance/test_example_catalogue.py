"""examples/catalogue: each requirement of S2, over HTTP, with real processes and a receiver's own verification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from relay.local.embedded import free_port
from tests.support import databases
from tests.support.examples import Caller, query_named, running
from tests.support.far_end import HANG, RESET, Answer, answering, together, waits
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
    """Whoever manages the catalogue, where no event of an earlier test waits; what a test makes is removed after it."""
    caller = Caller(catalogue)
    caller.await_resolved()
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


@pytest.mark.requirement("S2-01", "S2-02", "S2-03", "S2-10")
def test_what_is_done_with_a_product_is_told_to_each_webhook(shop: Caller) -> None:
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
        created, updated = (told[event]["data"] for event in PRODUCT_EVENTS[:2])
        assert (created["id"], created["sku"], created["active"]) == (product, "W-1", True)
        assert (updated["id"], updated["active"]) == (product, False)
        assert all(body.keys() == {"event", "timestamp", "data"} for body in told.values())
        for request in requests:
            headers = request["headers"]
            assert headers["user-agent"] == "FulFil-Webhook/1.0"
            assert headers["x-webhook-event"] == json.loads(request["body"])["event"]
            assert headers["x-webhook-signature"].startswith("sha256=")
            assert headers["x-api-key"] == "abc123"


@pytest.mark.requirement("S2-12")
def test_webhooks_of_one_event_are_called_side_by_side(shop: Caller) -> None:
    """Each of five answers only while the requests to all five are there."""
    with answering() as far_end:
        all_there = together(5)
        for number in range(5):
            far_end.will(f"side-{number}", all_there)
            given = {"url": far_end.url(f"side-{number}"), "events": PRODUCT_EVENTS, "retry_count": 0}
            shop.ask("POST", WEBHOOKS, given, status=201)
        create(shop, "W-P")
        assert await_counts(shop, 5) == [(1, 0)] * 5


def await_counts(shop: Caller, count: int) -> list[tuple[int, int]]:
    """Return what arrived and what was given up of each webhook, once that is so many in all."""

    def counts() -> list[tuple[int, int]]:
        return [(one["success_count"], one["failure_count"]) for one in shop.ask("GET", WEBHOOKS)["items"]]

    wait_until(lambda: sum(map(sum, counts())) >= count, message="did not end", timeout_seconds=40)
    return counts()


@pytest.mark.slow
@pytest.mark.requirement("S2-13")
def test_whatever_is_no_success_is_tried_again_after_2_4_and_8_seconds(shop: Caller, catalogue: Example) -> None:
    """No answer in time, connections that break, and answers of every class but 2xx."""
    kinds: dict[str, list[Answer]] = {
        "timeout": [HANG] * 3, "reset": [RESET] * 3, "redirect": [302, 307, 301], "client": [400, 404, 422],
        "server": [500, 502, 503],
    }  # fmt: skip
    with answering() as far_end:
        hooks = {}
        for kind, answers in kinds.items():
            far_end.will(kind, *answers)
            given = {"url": far_end.url(kind), "events": PRODUCT_EVENTS, "timeout_seconds": 1}
            hooks[kind] = shop.ask("POST", WEBHOOKS, given, status=201)["id"]
        port = free_port()
        given = {"url": f"http://127.0.0.1:{port}/closed", "events": PRODUCT_EVENTS}
        nobody = hooks["closed"] = shop.ask("POST", WEBHOOKS, given, status=201)["id"]
        with databases.engine_on(catalogue.database_url) as engine, Session(engine) as session:
            assert {one.schedule_seconds for one in outbox.subscriptions.list(session)} == {(2, 4, 8)}
        create(shop, "W-R")
        wait_until(lambda: len(shop.ask("GET", f"{WEBHOOKS}/{nobody}/logs")) == 2, message="is not tried again")
        with answering(port) as late:
            wait_until(lambda: late.received["closed"], message="is not tried again", timeout_seconds=30)
            wait_until(lambda: all(len(far_end.received[kind]) == 4 for kind in kinds), message="", timeout_seconds=60)
            assert await_counts(shop, 6) == [(1, 0)] * 6
        for kind in kinds:
            assert [wait >= least for wait, least in zip(waits(far_end.received[kind]), (2, 4, 8), strict=True)] == [
                True
            ] * 3, kind
        for kind, hook in hooks.items():
            log = shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")
            assert [one["status"] for one in log] == ["delivered", *["retry"] * (len(log) - 1)], kind
            assert all(one["error"] for one in log[1:]), kind


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
    plain = shop.ask("GET", WEBHOOKS)
    assert (plain["limit"], plain["offset"], len(plain["items"]), plain["has_more"]) == (20, 0, 3, False)
    assert shop.ask("GET", f"{WEBHOOKS}?limit=100")["limit"] == 100
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
        ({"retry_count": -1}, "retry_count"),
        ({"retry_count": 11}, "retry_count"),
        ({"secret": ""}, "secret"),
        ({"is_active": "maybe"}, "is_active"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 301}, "timeout_seconds"),
        ({"headers": {"X-A": "a\nb"}}, "headers"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_each_bad_value_is_one_clear_error_and_nothing_is_made(shop: Caller, wrong: dict[str, Any], said: str) -> None:
    status, told = shop.refused("POST", WEBHOOKS, {"url": shop.hook("x"), "events": PRODUCT_EVENTS} | wrong)
    assert status == 422
    (error,) = json.loads(told)["detail"]
    assert said in f"{error['loc']} {error['msg']}"
    assert shop.ask("GET", WEBHOOKS)["total"] == 0


@pytest.mark.requirement("S2-05")
def test_every_field_is_kept_to_its_bounds(shop: Caller) -> None:
    for retries, seconds in ((0, 1), (10, 300)):
        given = {
            "url": "https://hooks.example.com/in", "events": ["import.failed"], "secret": "s", "description": "Mine",
            "is_active": False, "headers": {"X-Slack-Token": "xoxb"}, "retry_count": retries,
            "timeout_seconds": seconds,
        }  # fmt: skip
        made = shop.ask("POST", WEBHOOKS, given, status=201)
        assert {name: made[name] for name in given} == given | {"headers": ["X-Slack-Token"]}
    plain = shop.ask("POST", WEBHOOKS, {"url": shop.hook("plain"), "events": ["product.created"]}, status=201)
    assert (plain["retry_count"], plain["timeout_seconds"], plain["is_active"]) == (3, 30, True)


@pytest.mark.slow
@pytest.mark.requirement("S2-06", "S2-14", "S2-15")
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
    with databases.engine_on(catalogue.database_url) as engine, engine.connect() as connection:
        health = {one["subscription_id"]: one for one in query_named(connection, "catalogue", "health of each webhook")}
        found = health[hook]
        assert (found["success_count"], found["failure_count"], round(float(found["success_rate"]))) == (1, 2, 33)
        failures = query_named(connection, "catalogue", "recent failures")
        assert [(one["event"], one["error"]) for one in failures[:2]] == [
            ("product.created", "http_4xx"), ("product.created", "http_5xx"),
        ]  # fmt: skip
        assert [one["at"] for one in failures] == sorted((one["at"] for one in failures), reverse=True)
        (times,) = [
            one for one in query_named(connection, "catalogue", "average response time")
            if one["subscription_id"] == hook
        ]  # fmt: skip
    (arrived,) = [one for one in shop.ask("GET", f"{WEBHOOKS}/{hook}/logs") if one["status"] == "delivered"]
    assert times["total_executions"] == 1
    assert times["avg_response_time_ms"] == arrived["response_time_ms"]


@pytest.mark.requirement("S2-07")
def test_a_webhook_is_changed_in_part_and_removed(shop: Caller) -> None:
    hook = add(shop, "changed", description="Mine", retry_count=1)
    before = shop.ask("GET", f"{WEBHOOKS}/{hook}")
    changed = shop.ask("PUT", f"{WEBHOOKS}/{hook}", {"is_active": False, "description": "Temporarily disabled"})
    same = before.keys() - {"is_active", "status", "description", "updated_at"}
    assert {name: changed[name] for name in same} == {name: before[name] for name in same}
    assert (changed["is_active"], changed["description"]) == (False, "Temporarily disabled")
    create(shop, "W-C1")
    shop.await_resolved()
    shop.ask("PUT", f"{WEBHOOKS}/{hook}", {"is_active": True})
    create(shop, "W-C2")
    (request,) = shop.await_received("changed", 1)
    assert json.loads(request["body"])["data"]["sku"] == "W-C2", "while it is not active, events pass it by"
    shop.ask("DELETE", f"{WEBHOOKS}/{hook}", status=204)
    assert shop.refused("GET", f"{WEBHOOKS}/{hook}")[0] == 404


@pytest.mark.slow
@pytest.mark.requirement("S2-08", "S2-09")
def test_a_test_is_a_real_request_also_of_an_inactive_webhook_and_is_in_its_log(shop: Caller) -> None:
    hook = add(shop, "tested", 200, 500, is_active=False, headers={"X-Own": "abc"})
    given = {"event": "product.created", "payload": {"test": True, "id": "test-123"}}
    tried = shop.ask("POST", f"{WEBHOOKS}/{hook}/test", given)
    assert (tried["success"], tried["status_code"], tried["error"]) == (True, 200, None)
    assert tried["response_body"] == '{"status": "ok"}'
    assert tried["response_time_ms"] >= 0
    failed = shop.ask("POST", f"{WEBHOOKS}/{hook}/test", given)
    assert (failed["success"], failed["status_code"], failed["error"]) == (False, 500, "http_5xx")
    assert [request["verified"] for request in shop.received("tested")] == [True, True]
    sent = bodies(shop.received("tested"))[0]
    assert (sent["event"], sent["data"]) == ("product.created", {"test": True, "id": "test-123"})
    assert shop.received("tested")[0]["headers"]["x-own"] == "abc"
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


@pytest.mark.slow
@pytest.mark.requirement("S2-09")
def test_the_log_has_50_entries_a_page_and_1000_characters_of_an_answer(shop: Caller) -> None:
    with answering() as far_end:
        far_end.will("long", 500, b"x" * 3_000)
        given = {"url": far_end.url("long"), "events": PRODUCT_EVENTS, "retry_count": 1}
        hook = shop.ask("POST", WEBHOOKS, given, status=201)["id"]
        create(shop, "W-M0")
        wait_until(lambda: len(shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")) == 2, message="is not in the log")
        arrived, failed = shop.ask("GET", f"{WEBHOOKS}/{hook}/logs")
        assert arrived["response_body"] == "x" * 1_000
        assert (failed["status_code"], failed["error"], failed["response_body"]) == (500, "http_5xx", "ok")
        for number in range(50):
            create(shop, f"W-M{number + 1}")
        log = f"{WEBHOOKS}/{hook}/logs"
        wait_until(lambda: len(shop.ask("GET", f"{log}?limit=100")) == 52, message="is not in the log")
        assert len(shop.ask("GET", log)) == 50
        assert shop.ask("GET", f"{log}?offset=50") == [arrived, failed]


@pytest.mark.requirement("S2-10")
def test_an_operation_can_be_done_without_telling_anybody(shop: Caller) -> None:
    add(shop, "silent")
    create(shop, "W-S1", "?trigger_webhooks=false")
    create(shop, "W-S2")
    (request,) = shop.await_received("silent", 1)
    assert json.loads(request["body"])["data"]["sku"] == "W-S2"


@pytest.mark.requirement("S2-10")
def test_an_event_goes_with_its_operation_when_that_fails_at_commit(shop: Caller, catalogue: Example) -> None:
    add(shop, "refused")
    product = create(shop, "W-T1")
    refuse = """
        create function refuse() returns trigger language plpgsql as 'begin raise check_violation; end';
        create constraint trigger refuse after insert or update or delete on products
            deferrable initially deferred for each row execute function refuse()"""
    with databases.engine_on(catalogue.database_url) as engine:
        with engine.begin() as connection:
            connection.execute(text(refuse))
        try:
            assert shop.refused("POST", PRODUCTS, {"sku": "W-T2", "name": "Refused"})[0] == 500
            assert shop.refused("PUT", f"{PRODUCTS}/{product}", {"active": False})[0] == 500
            assert shop.refused("DELETE", f"{PRODUCTS}/{product}")[0] == 500
        finally:
            with engine.begin() as connection:
                connection.execute(text("drop function refuse cascade"))
        with engine.connect() as connection:
            assert connection.execute(text("select count(*) from products where sku = 'W-T2'")).scalar_one() == 0
            types = text("select type from outbox.events where key = :key or payload like '%W-T2%'")
            assert connection.execute(types, {"key": product}).scalars().all() == ["product.created"]


@pytest.mark.slow
@pytest.mark.requirement("S2-01", "S2-11")
def test_an_import_tells_of_its_start_and_its_end_or_failure(shop: Caller) -> None:
    events = ["import.started", "import.completed", "import.failed", *PRODUCT_EVENTS]
    add(shop, "imports", events=events)
    rows = "sku,name\nI-1,One\n,nothing\nI-2,Two\nI-1,Other\n"
    done = shop.ask("POST", IMPORTS, {"filename": "a.csv", "text": rows}, status=201)
    assert (done["created"], done["updated"], done["errors"]) == (2, 1, 1)
    shop.ask("POST", IMPORTS, {"filename": "b.csv", "text": "id\n1\n"}, status=201)
    told = bodies(shop.await_received("imports", 4))
    assert sorted(one["event"] for one in told) == [
        "import.completed", "import.failed", "import.started", "import.started",
    ]  # fmt: skip
    by_event = {one["event"]: one["data"] for one in told if one["data"].get("filename") != "b.csv"}
    assert by_event["import.started"] == {"task_id": done["task_id"], "filename": "a.csv", "total_rows": 4}
    assert by_event["import.completed"] == done
    failed = by_event["import.failed"]
    assert failed.keys() == {"task_id", "error"}
    assert failed["error"] == "the columns sku and name are missing"


@pytest.mark.slow
@pytest.mark.requirement("S2-10")
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
