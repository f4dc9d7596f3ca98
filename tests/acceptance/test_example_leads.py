"""examples/leads: each requirement of S4, over HTTP, with real processes, n8n's verification and its callbacks."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from tests.support import databases
from tests.support.examples import Caller, query_named, running
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("example-leads"), pytest.mark.timeout(120)]
API, CALLBACKS = "/api/v1", "/api/v1/webhooks/n8n"
SECRET = "n8n-secret-of-the-example-0123456789"


@pytest.fixture(scope="module")
def leads(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running("leads", server_url, tmp_path_factory.mktemp("leads")) as example:
        yield example


@pytest.fixture
def office(leads: Example) -> Iterator[Caller]:
    caller = Caller(leads)
    yield caller
    caller.ask("POST", f"{API}/webhooks/processing/started", status=204)
    caller.close()


def add(office: Caller, kind: str, **fields: Any) -> int:
    return int(office.ask("POST", f"{API}/{kind}", fields, status=201)["id"])


def change(office: Caller, kind: str, number: int, **fields: Any) -> None:
    office.ask("PATCH", f"{API}/{kind}/{number}", fields, status=204)


def told(office: Caller, event: str, **of: Any) -> list[dict[str, Any]]:
    """What n8n got of a type, of the events whose data has these values."""
    found = [request | {"message": json.loads(request["body"])} for request in office.received(event)]
    return [one for one in found if of.items() <= one["message"]["data"].items()]


def await_told(office: Caller, event: str, number: int = 1, **of: Any) -> dict[str, Any]:
    wait_until(lambda: len(told(office, event, **of)) >= number, message=f"no {event}", timeout_seconds=30)
    return told(office, event, **of)[-1]


def call_back(office: Caller, name: str, body: Any, *, secret: str = SECRET, age: int = 0, **headers: str) -> int:
    """POST a callback as n8n signs it; return the status."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = {
        "X-Webhook-Signature-256": "sha256=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest(),
        "X-Webhook-Timestamp": str(int(time.time()) - age),
    } | headers
    url = f"{office.example.url}{CALLBACKS}/{name}"
    return httpx.post(url, content=content, headers=signed, timeout=30, trust_env=False, verify=False).status_code


def audited(office: Caller, entity: str) -> list[tuple[str, str, str]]:
    rows = office.ask("GET", f"{API}/webhooks/audit?entity={entity}")
    return [(row["direction"], row["type"], row["outcome"]) for row in rows]


@pytest.mark.requirement("S4-01", "S4-03", "S4-04")
def test_what_changes_in_rows_is_told_and_nothing_where_nothing_changed(office: Caller) -> None:
    lead = add(office, "leads", name="Ann")
    request = await_told(office, "lead_scraped", id=lead)
    assert request["verified"]
    assert request["headers"]["x-webhook-signature-256"].startswith("sha256=")
    assert abs(time.time() - int(request["headers"]["x-webhook-timestamp"])) < 300
    assert request["message"].keys() == {"event", "timestamp", "data"}
    change(office, "leads", lead, status="qualified")
    change(office, "leads", lead, status="qualified")
    change(office, "leads", lead, note="called")
    change(office, "leads", lead, status="responded")
    await_told(office, "lead_responded", id=lead)
    assert len(told(office, "lead_qualified", id=lead)) == 1
    assert len(told(office, "lead_scraped", id=lead)) == 1
    demo = add(office, "demos", lead_id=lead)
    for status in ("completed", "failed"):
        change(office, "demos", demo, status=status)
        await_told(office, f"demo_{status}", id=demo)
    video = add(office, "videos", demo_id=demo)
    for status in ("completed", "failed"):
        change(office, "videos", video, status=status)
        await_told(office, f"video_{status}", id=video)
    await_told(office, "approval_requested", id=demo, lead_id=lead)
    for fails, event in (("false", "email_sent"), ("true", "email_failed")):
        office.ask("POST", f"{API}/emails/{lead}?fails={fails}", status=201)
        await_told(office, event, lead_id=lead)


@pytest.mark.slow
@pytest.mark.requirement("S4-01", "S4-07")
def test_each_type_has_its_priority_and_the_higher_is_claimed_first(office: Caller, leads: Example) -> None:
    lead = add(office, "leads", name="Bob")
    change(office, "leads", lead, status="responded")
    call_back(office, "error-notification", {"callback_id": "p", "execution_id": "p", "error": "x"})
    statement = text("select type, priority from outbox.events where type in ('lead_scraped', 'lead_responded',"
                     " 'workflow_error')")  # fmt: skip
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        priorities = {row.type: row.priority for row in connection.execute(statement)}
    assert priorities == {"lead_scraped": 0, "lead_responded": 2, "workflow_error": 3}
    office.ask("POST", f"{API}/webhooks/processing/stopped", status=204)
    waiting = add(office, "leads", name="Later")
    change(office, "leads", waiting, status="responded")
    both = {"lead_responded", "lead_scraped"}
    wait_until(lambda: both <= set(queued(office)), message="are not queued")
    assert [event for event in queued(office) if event in both] == ["lead_responded", "lead_scraped"]


def queued(office: Caller) -> list[str]:
    return [one["event"] for one in office.ask("GET", f"{API}/webhooks/queue")["pending"]]


@pytest.mark.requirement("S4-02", "S4-11")
def test_endpoints_come_from_the_settings_and_health_says_what_is_missing(office: Caller, leads: Example) -> None:
    lead = add(office, "leads", name="Eve")
    await_told(office, "lead_scraped", id=lead)
    assert leads.said("app", "N8N_URL_WORKFLOW_ERROR: is not set")
    wait_until(lambda: office.ask("GET", f"{CALLBACKS}/health")["n8n_reachable"], message="is not settled")
    health = office.ask("GET", f"{CALLBACKS}/health")
    assert health == {
        "webhooks": "on", "missing_endpoints": ["workflow_error"], "n8n_reachable": True,
        "queue_processor": "running", "security_configured": True,
    }  # fmt: skip
    office.ask("POST", f"{API}/webhooks/processing/stopped", status=204)
    assert office.ask("GET", f"{CALLBACKS}/health")["webhooks"] == "off"


@pytest.mark.requirement("S4-02", "S4-06")
@pytest.mark.parametrize(
    ("settings", "told"),
    [({"N8N_ENABLED": "maybe"}, "N8N_ENABLED: 'maybe' is neither"), ({"N8N_RETRIES": "-1"}, "N8N_RETRIES: '-1' is no"),
     ({"N8N_RETRIES": "5"}, [5, 30, 300, 300, 300]), ({"N8N_ENABLED": "OFF"}, "paused")],
)  # fmt: skip
def test_settings_are_checked_before_anything_is_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], told: Any
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.replace("postgresql:", "postgresql+psycopg:"))
    events = importlib.import_module("examples.leads.events")
    with databases.engine_on(database_url) as engine, Session(engine) as session:
        given = {"N8N_URL_EMAIL_SENT": "https://n8n.example/hooks"} | settings
        if isinstance(told, str) and told.startswith("N8N"):
            with pytest.raises(ValueError, match=told):
                events.subscribe_n8n(session, given)
            assert outbox.subscriptions.list(session) == []
            return
        events.subscribe_n8n(session, given)
        (made,) = outbox.subscriptions.list(session)
        assert told in (made.state, list(made.schedule_seconds))


@pytest.mark.requirement("S4-05")
@pytest.mark.parametrize("scheme", ["leads", "github"])
def test_a_signature_of_githubs_form_is_read(scheme: str) -> None:
    name = {"leads": "X-Webhook-Signature-256", "github": "X-Hub-Signature-256"}[scheme]
    headers = {name: "sha256=" + hmac.new(SECRET.encode(), b"{}", hashlib.sha256).hexdigest()}
    if scheme == "leads":
        headers["X-Webhook-Timestamp"] = str(int(time.time()))
    assert outbox.verify(SECRET, headers, b"{}", scheme=scheme).json() == {}
    with pytest.raises(outbox.SignatureError):
        outbox.verify(SECRET, headers, b"[]", scheme=scheme)


@pytest.mark.requirement("S4-06", "S4-09", "S4-13", "S4-14")
def test_what_fails_is_tried_again_by_hand_or_cancelled_and_every_attempt_is_kept(
    office: Caller, leads: Example
) -> None:
    office.set_up("email_failed", SECRET, 500, 500, 500)
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        retries = text("select distinct schedule_seconds from outbox.subscriptions")
        assert connection.execute(retries).scalars().all() == [[5, 30, 300]]
    lead = add(office, "leads", name="Joe")
    office.ask("POST", f"{API}/emails/{lead}?fails=true", status=201)
    await_told(office, "email_failed", lead_id=lead)

    def waiting(attempts: int) -> list[str]:
        queue = office.ask("GET", f"{API}/webhooks/queue")["pending"]
        wanted = ("email_failed", attempts, "waiting")  # no more in flight
        return [one["id"] for one in queue if (one["event"], one["attempts"], one["status"]) == wanted]

    wait_until(lambda: waiting(1), message="does not wait for its retry")
    (delivery,) = waiting(1)
    office.ask("POST", f"{API}/webhooks/queue/{delivery}/retry")
    await_told(office, "email_failed", 2, lead_id=lead)
    wait_until(lambda: waiting(2), message="does not wait for its retry")
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        assert {"state": "waiting", "deliveries": 1} in query_named(connection, "leads", "queue by status")
    office.ask("POST", f"{API}/webhooks/queue/{delivery}/cancel")
    assert office.refused("POST", f"{API}/webhooks/queue/{delivery}/retry")[0] == 409
    wait_until(lambda: len(audited(office, f"lead:{lead}")) == 4, message="not every attempt is kept")
    outcomes = [outcome for _, event, outcome in audited(office, f"lead:{lead}") if event == "email_failed"]
    assert outcomes == ["cancelled", "http_5xx", "http_5xx"]
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        assert {row["type"] for row in query_named(connection, "leads", "last failed")} == {"email_failed"}
        activity = query_named(connection, "leads", "activity of 24 hours by direction and type")
    assert {"out"} <= {row["direction"] for row in activity}
    assert office.ask("GET", f"{API}/webhooks/queue")["cancelled"] >= 1


@pytest.mark.requirement("S4-09")
def test_processing_is_stopped_and_started(office: Caller) -> None:
    office.ask("POST", f"{API}/webhooks/processing/stopped", status=204)
    lead = add(office, "leads", name="Sue")
    wait_until(lambda: "lead_scraped" in queued(office), message="does not wait")
    assert told(office, "lead_scraped", id=lead) == []
    office.ask("POST", f"{API}/webhooks/processing/started", status=204)
    await_told(office, "lead_scraped", id=lead)


@pytest.mark.slow
@pytest.mark.requirement("S4-10", "S4-13", "S4-15")
def test_an_approval_makes_the_next_step_and_both_directions_are_audited(office: Caller) -> None:
    lead = add(office, "leads", name="Kim")
    demo = add(office, "demos", lead_id=lead)
    video = await_told(office, "approval_requested", demo_id=demo)["message"]["data"]["id"]
    assert ("in", "n8n.demo-approval", "accepted") in audited(office, f"demo:{demo}")
    body = {"callback_id": f"v{video}", "video_id": video, "approved": True, "to": "kim@a.example"}
    assert [call_back(office, "video-approval", body) for _ in range(2)] == [200, 200]
    await_told(office, "email_sent", video_id=video)
    wait_until(lambda: len(audited(office, f"video:{video}")) >= 3, message="is not audited")
    audit = audited(office, f"video:{video}")
    assert audit.count(("in", "n8n.video-approval", "accepted")) == 1
    assert audit.count(("out", "email_sent", "delivered")) == 1, "the copy of the callback did nothing"
    change(office, "leads", lead, note="")


@pytest.mark.requirement("S4-10")
def test_the_other_callbacks_are_acted_upon_and_bad_ones_get_the_right_status(office: Caller, leads: Example) -> None:
    lead = add(office, "leads", name="Pat")
    run = {"execution_id": "e-1", "lead_id": lead}
    assert call_back(office, "workflow-status", {"callback_id": "s1", **run, "status": "running"}) == 200
    assert call_back(office, "workflow-completed", {"callback_id": "c1", **run}) == 200
    assert call_back(office, "error-notification", {"callback_id": "f1", **run, "error": "x"}) == 200
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        note = text("select note from leads where id = :id")
        assert connection.execute(note, {"id": lead}).scalar_one() == "workflow e-1 completed"
        assert connection.execute(text("select state from workflow_runs")).scalars().all() == ["running"]
    approval = {"callback_id": "d1", "demo_id": 999_999, "approved": True}
    assert call_back(office, "demo-approval", approval) == 404
    for number, wrong in enumerate(({}, {"demo_id": "x", "approved": True}, {"demo_id": [1], "approved": True})):
        assert call_back(office, "demo-approval", {"callback_id": f"w{number}", **wrong}) == 422
    assert call_back(office, "workflow-status", {"callback_id": "w9", "execution_id": ["e"], "status": "x"}) == 422
    for unread in ([], 1, b"not json", {"demo_id": 1, "approved": True}):
        assert call_back(office, "demo-approval", unread) == 400
    assert call_back(office, "demo-approval", approval, secret="another-secret-0123456789-0123456789") == 401
    assert call_back(office, "demo-approval", approval, age=400) == 401
    assert call_back(office, "nothing", approval) == 404
    refused = [row for row in office.ask("GET", f"{API}/webhooks/audit") if row["outcome"] == "refused"]
    assert {row["status"] for row in refused} >= {400, 401, 404, 422}
    assert SECRET not in json.dumps(refused)


@pytest.mark.requirement("S4-12")
def test_anybody_may_try_whether_it_answers(office: Caller) -> None:
    assert office.ask("POST", f"{API}/webhooks/test", {"hello": 1}) == {"received": {"hello": 1}}


@pytest.mark.requirement("S4-08", "S4-16")
def test_every_lead_is_told_of_side_by_side_although_the_relay_is_killed(office: Caller, leads: Example) -> None:
    made = set()
    for number in range(60):
        made.add(add(office, "leads", name=f"K{number}"))
        if number in (20, 40):
            leads.kill_relay()

    def arrived() -> set[int]:
        return {one["message"]["data"]["id"] for one in told(office, "lead_scraped") if one["verified"]}

    wait_until(lambda: arrived() >= made, message="some were not told of", timeout_seconds=60)
