"""examples/leads: each requirement of S4, over HTTP, with real processes, n8n's verification and its callbacks."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from relay.local.embedded import free_port
from tests.support import databases
from tests.support.examples import Caller, query_named, running
from tests.support.far_end import answering, together
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
    """The office, where no event of an earlier test waits for whoever is subscribed next."""
    caller = Caller(leads)
    caller.await_resolved()
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


def signed(content: bytes, secret: str, age: int) -> dict[str, str]:
    """Return the headers of what was signed so many seconds ago."""
    return {
        "X-Webhook-Signature-256": "sha256=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest(),
        "X-Webhook-Timestamp": str(int(time.time()) - age),
    }


def call_back(office: Caller, name: str, body: Any, *, secret: str = SECRET, age: int = 0) -> int:
    """POST a callback as n8n signs it; return the status."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url, headers = f"{office.example.url}{CALLBACKS}/{name}", signed(content, secret, age)
    return httpx.post(url, content=content, headers=headers, timeout=30, trust_env=False, verify=False).status_code


def audited(office: Caller, entity: str) -> list[tuple[str, str, str]]:
    rows = office.ask("GET", f"{API}/webhooks/audit?entity={entity}")
    return [(row["direction"], row["type"], row["outcome"]) for row in rows]


PRIORITIES = {
    "lead_scraped": 0, "lead_qualified": 0, "demo_completed": 1, "demo_failed": 2, "video_completed": 1,
    "video_failed": 2, "email_sent": 0, "email_failed": 2, "lead_responded": 2, "approval_requested": 2,
    "workflow_error": 3,
}  # fmt: skip
"""As the description's table has them."""


@pytest.mark.requirement("S4-01", "S4-03", "S4-04")
def test_what_changes_in_rows_is_told_and_nothing_where_nothing_changed(office: Caller, leads: Example) -> None:
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
        change(office, "videos", video, status=status)  # as it is already
    await_told(office, "approval_requested", id=demo, lead_id=lead)
    await_told(office, "approval_requested", id=video, demo_id=demo)
    for fails, event in (("false", "email_sent"), ("true", "email_failed")):
        office.ask("POST", f"{API}/emails/{lead}?fails={fails}", status=201)
        await_told(office, event, lead_id=lead)
    assert len(told(office, "video_failed", id=video)) == len(told(office, "video_completed", id=video)) == 1
    error = {"callback_id": f"p{lead}", "execution_id": f"p{lead}", "error": "x"}
    assert call_back(office, "error-notification", error) == 200
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        rows = connection.execute(text("select distinct type, priority from outbox.events")).all()
    assert len(rows) == 11
    assert {row.type: row.priority for row in rows} == PRIORITIES


@pytest.mark.requirement("S4-03")
def test_listeners_can_be_removed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.replace("postgresql:", "postgresql+psycopg:"))
    database = importlib.import_module("examples.leads.database")
    events = importlib.import_module("examples.leads.events")
    with databases.engine_on(database_url) as engine:
        database.Base.metadata.create_all(engine)

        def recorded_of_one_lead() -> int:
            with Session(engine) as session:
                session.add(database.Lead(name="Ann"))
                session.commit()
                return session.execute(text("select count(*) from outbox.events")).scalar_one()

        assert recorded_of_one_lead() == 0
        captures = events.start_capture()
        try:
            assert recorded_of_one_lead() == 1
        finally:
            for capture in captures:
                capture.remove()
        assert recorded_of_one_lead() == 1


@pytest.mark.requirement("S4-04")
def test_n8n_takes_what_is_signed_and_not_older_than_five_minutes(office: Caller) -> None:
    body = json.dumps({"event": "lead_scraped", "timestamp": "2026-11-01T00:00:00Z", "data": {"id": 0}}).encode()
    url = office.hook("direct")

    def post(age: int, content: bytes = body) -> int:
        headers = signed(body, SECRET, age)
        return httpx.post(url, content=content, headers=headers, trust_env=False, verify=False).status_code

    assert [post(0), post(290), post(-290), post(310), post(-310)] == [200, 200, 200, 401, 401]
    assert post(0, body.replace(b"0}", b"1}")) == 401


@pytest.mark.requirement("S4-07")
def test_the_higher_priority_is_sent_first(office: Caller, leads: Example) -> None:
    """To an endpoint that gets every type, one request at a time, of what gathered while it was paused."""
    with answering() as far_end, databases.engine_on(leads.database_url) as engine, Session(engine) as session:
        every = outbox.subscribe(session, far_end.url("all"), [*PRIORITIES], format="leads", max_in_flight=1).id
        outbox.subscriptions.pause(session, every)
        session.commit()
        lead = add(office, "leads", name="Ann")
        demo = add(office, "demos", lead_id=lead)
        change(office, "demos", demo, status="completed")
        change(office, "leads", lead, status="responded")
        error = {"callback_id": f"e{lead}", "execution_id": "e", "error": "x"}
        assert call_back(office, "error-notification", error) == 200
        await_told(office, "approval_requested", demo_id=demo)  # of the video, which n8n's approval of the demo makes
        waiting = text("select count(*) from outbox.deliveries where subscription_id = outbox.uuid_of(:id)")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(lambda: connection.execute(waiting, {"id": every}).scalar_one() == 6, message="do not wait")
        outbox.subscriptions.resume(session, every)
        session.commit()
        wait_until(lambda: len(far_end.received["all"]) == 6, message="did not come", timeout_seconds=40)
        outbox.subscriptions.remove(session, every)
        session.commit()
        order = [json.loads(one.body)["event"] for one in far_end.received["all"]]
        assert [PRIORITIES[event] for event in order] == [3, 2, 2, 2, 1, 0], order


@pytest.mark.slow
@pytest.mark.requirement("S4-07")
def test_the_queue_shows_the_higher_priority_first(office: Caller) -> None:
    office.ask("POST", f"{API}/webhooks/processing/stopped", status=204)
    before = {one["id"] for one in queue(office)}  # of other leads, if anything of theirs waits still
    waiting = add(office, "leads", name="Later")
    change(office, "leads", waiting, status="responded")
    both = ["lead_responded", "lead_scraped"]

    def new() -> list[str]:
        return [one["event"] for one in queue(office) if one["id"] not in before and one["event"] in both]

    wait_until(lambda: set(both) <= set(new()), message="are not queued")
    assert new() == both


def queue(office: Caller) -> list[dict[str, Any]]:
    return office.ask("GET", f"{API}/webhooks/queue")["pending"]


def queued(office: Caller) -> list[str]:
    return [one["event"] for one in queue(office)]


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


@pytest.mark.slow
@pytest.mark.requirement("S4-02", "S4-11")
def test_an_application_without_a_secret_whose_n8n_is_away_and_whose_relay_has_ended_says_so(
    server_url: str, tmp_path: Path
) -> None:
    away = {"N8N_WEBHOOK_SECRET": "", "N8N_URL_LEAD_SCRAPED": f"http://127.0.0.1:{free_port()}/"}
    with running("leads", server_url, tmp_path, **away) as example:
        office = Caller(example)
        add(office, "leads", name="Ann")
        wait_until(lambda: audited_all(office), message="no attempt")
        health = office.ask("GET", f"{CALLBACKS}/health")
        assert (health["n8n_reachable"], health["queue_processor"]) == (False, "running")
        assert (health["webhooks"], health["security_configured"]) == ("on", False)
        assert call_back(office, "workflow-status", {"callback_id": "1", "execution_id": "1", "status": "x"}) == 503
        example.relay.stop()
        assert office.ask("GET", f"{CALLBACKS}/health")["queue_processor"] == "stopped"
        program = ["uvicorn", "examples.leads.app:app", "--port", str(free_port())]
        wrongs = (
            ({"N8N_ENABLED": "maybe"}, "N8N_ENABLED: 'maybe' is neither"),
            ({"N8N_RETRIES": "x"}, "N8N_RETRIES: 'x' is no"),
            ({"N8N_URL_EMAIL_SENT": "ftp://n8n.example/"}, "url: "),
        )
        children = [example.start(f"wrong-{n}", program, **given) for n, (given, _) in enumerate(wrongs)]
        for child, (_, words) in zip(children, wrongs, strict=True):
            assert child.wait(90) != 0
            assert child.said(words), child.last_words()
        office.close()


def audited_all(office: Caller) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = office.ask("GET", f"{API}/webhooks/audit")
    return rows


@pytest.mark.requirement("S4-02", "S4-06")
def test_settings_that_change_change_what_is_there(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.replace("postgresql:", "postgresql+psycopg:"))
    events = importlib.import_module("examples.leads.events")
    sent, failed = "N8N_URL_EMAIL_SENT", "N8N_URL_EMAIL_FAILED"
    with databases.engine_on(database_url) as engine, Session(engine) as session:

        def found() -> dict[str, Any]:
            return {one.name: one for one in outbox.subscriptions.list(session)}

        missing = events.subscribe_n8n(session, {sent: "https://n8n.example/a", failed: "https://n8n.example/b"})
        assert sorted(missing) == sorted(PRIORITIES.keys() - {"email_sent", "email_failed"})
        before = found()
        assert {name: (one.types, one.url) for name, one in before.items()} == {
            "email_sent": (("email_sent",), "https://n8n.example/a"),
            "email_failed": (("email_failed",), "https://n8n.example/b"),
        }
        events.subscribe_n8n(session, {sent: "https://n8n.example/c", "N8N_RETRIES": "1", "N8N_ENABLED": "no"})
        (after,) = found().values()
        assert (after.id, after.url, after.schedule_seconds, after.state) == (
            before["email_sent"].id, "https://n8n.example/c", (5,), "paused",
        )  # fmt: skip


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
        retries = text("select distinct schedule_seconds from outbox.subscriptions where name is not null")
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
        before = activity_of(connection)
    cancelled = office.ask("GET", f"{API}/webhooks/queue")["cancelled"]
    office.ask("POST", f"{API}/webhooks/queue/{delivery}/cancel")
    assert office.refused("POST", f"{API}/webhooks/queue/{delivery}/retry")[0] == 409
    wait_until(lambda: len(audited(office, f"lead:{lead}")) == 4, message="not every attempt is kept")
    outcomes = [outcome for _, event, outcome in audited(office, f"lead:{lead}") if event == "email_failed"]
    assert outcomes == ["cancelled", "http_5xx", "http_5xx"]
    (second,) = [row for row in office.ask("GET", f"{API}/webhooks/audit?entity=lead:{lead}")
                 if row["outcome"] == "http_5xx"][:1]  # fmt: skip
    assert (second["direction"], second["entity"], second["status"]) == ("out", f"lead:{lead}", 500)
    assert second["milliseconds"] >= 0
    assert office.ask("GET", f"{API}/webhooks/queue")["cancelled"] == cancelled + 1
    assert call_back(office, "workflow-status", {"callback_id": f"a{lead}", "execution_id": "a", "status": "x"}) == 200
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        failed = query_named(connection, "leads", "last failed")
        assert [(row["type"], row["outcome"], row["status"]) for row in failed[:2]] == [
            ("email_failed", "http_5xx", 500)
        ] * 2
        assert [row["at"] for row in failed] == sorted((row["at"] for row in failed), reverse=True)
        after = activity_of(connection)
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name)} == {
        ("out", "email_failed"): 1, ("in", "n8n.workflow-status"): 1,
    }  # fmt: skip


def activity_of(connection: Connection) -> dict[tuple[str, str], int]:
    rows = query_named(connection, "leads", "activity of 24 hours by direction and type")
    return {(row["direction"], row["type"]): row["count"] for row in rows}


@pytest.mark.requirement("S4-09")
def test_what_was_given_up_is_sent_again_by_hand(office: Caller, leads: Example) -> None:
    office.set_up("email_failed", SECRET, 500, 500, 500, 500)
    lead = add(office, "leads", name="Jim")
    office.ask("POST", f"{API}/emails/{lead}?fails=true", status=201)
    attempts = f"{API}/webhooks/audit?entity=lead:{lead}"

    def tried() -> list[dict[str, Any]]:
        return [row for row in office.ask("GET", attempts) if row["type"] == "email_failed"]

    before = office.ask("GET", f"{API}/webhooks/queue")
    for number in (1, 2, 3):
        wait_until(lambda number=number: len(tried()) == number, message="was not tried")  # type: ignore[misc]
        office.ask("POST", f"{API}/webhooks/queue/{tried()[0]['id']}/retry")
    wait_until(lambda: len(tried()) == 4, message="was not tried")
    dead = tried()[0]["id"]
    wait_until(lambda: office.ask("GET", f"{API}/webhooks/queue")["failed"] == before["failed"] + 1, message="lives")
    office.ask("POST", f"{API}/webhooks/queue/{dead}/retry")
    wait_until(lambda: tried()[0]["outcome"] == "delivered", message="was not sent again")
    wait_until(
        lambda: office.ask("GET", f"{API}/webhooks/queue")["sent"] >= before["sent"] + 1, message="is not counted"
    )
    assert office.refused("POST", f"{API}/webhooks/queue/{dead}/retry")[0] == 409
    assert len(told(office, "email_failed", lead_id=lead)) == 5


@pytest.mark.slow
@pytest.mark.requirement("S4-09")
def test_a_clean_up_deletes_what_is_old_and_done_and_nothing_that_waits(office: Caller, leads: Example) -> None:
    done, young = add(office, "leads", name="Old"), add(office, "leads", name="Young")
    for lead in (done, young):
        wait_until(lambda lead=lead: audited(office, f"lead:{lead}"), message="is under way")  # type: ignore[misc]
    office.ask("POST", f"{API}/webhooks/processing/stopped", status=204)
    waits = add(office, "leads", name="Waits")
    wait_until(lambda: "lead_scraped" in queued(office), message="does not wait")
    older = (
        "update outbox.events set recorded_at = recorded_at - interval '100 days' where key = any(:keys)",
        """update outbox.attempts set at = at - interval '100 days' where event_seq = any(array(
            select seq from outbox.events where key = any(:keys)))""",
    )
    with databases.engine_on(leads.database_url) as engine:
        with engine.begin() as connection:
            for statement in older:
                connection.execute(text(statement), {"keys": [f"lead:{done}", f"lead:{waits}"]})
        assert leads.start("prune", ["relay", "prune"]).wait(60) == 0
        with engine.connect() as connection:
            events = text("select key from outbox.events where key = any(:keys)")
            keys = {"keys": [f"lead:{one}" for one in (done, young, waits)]}
            assert set(connection.execute(events, keys).scalars()) == {f"lead:{young}", f"lead:{waits}"}
    assert audited(office, f"lead:{done}") == []
    assert audited(office, f"lead:{young}") == [("out", "lead_scraped", "delivered")]
    office.ask("POST", f"{API}/webhooks/processing/started", status=204)
    await_told(office, "lead_scraped", id=waits)


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


@pytest.mark.requirement("S4-15")
def test_a_refusal_makes_no_next_step(office: Caller, leads: Example) -> None:
    lead = add(office, "leads", name="Kay")
    demo = add(office, "demos", lead_id=lead)
    video = await_told(office, "approval_requested", demo_id=demo)["message"]["data"]["id"]
    assert (
        call_back(office, "video-approval", {"callback_id": f"r{video}", "video_id": video, "approved": False}) == 200
    )
    assert call_back(office, "demo-approval", {"callback_id": f"r{demo}", "demo_id": demo, "approved": False}) == 200
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        videos = text("select approved from videos where demo_id = :demo")
        assert connection.execute(videos, {"demo": demo}).scalars().all() == [False]
        assert (
            connection.execute(text("select approved from demos where id = :demo"), {"demo": demo}).scalar_one()
            is False
        )
        sent = text("select count(*) from outbox.events where type = 'email_sent' and key = :key")
        assert connection.execute(sent, {"key": f"video:{video}"}).scalar_one() == 0


@pytest.mark.requirement("S4-10")
def test_a_callback_its_row_its_audit_and_the_next_event_are_one_transaction(office: Caller, leads: Example) -> None:
    demo = add(office, "demos", lead_id=add(office, "leads", name="Lea"))
    video = await_told(office, "approval_requested", demo_id=demo)["message"]["data"]["id"]
    body = {"callback_id": f"t{video}", "video_id": video, "approved": True}
    refuse = """
        create function refuse() returns trigger language plpgsql as 'begin raise check_violation; end';
        create constraint trigger refuse after update on videos
            deferrable initially deferred for each row execute function refuse()"""
    counted = text("""
        select (select count(*) from videos where id = :video and approved),
               (select count(*) from outbox.events where key = :key and type = 'email_sent'),
               (select count(*) from outbox.inbox where entity = :key and outcome = 'accepted')""")
    values = {"video": video, "key": f"video:{video}"}
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(refuse))
        try:
            assert call_back(office, "video-approval", body) == 500
        finally:
            connection.execute(text("drop function refuse cascade"))
        assert connection.execute(counted, values).one() == (0, 0, 0)
        assert call_back(office, "video-approval", body) == 200
        assert connection.execute(counted, values).one() == (1, 1, 1)


@pytest.mark.requirement("S4-10", "S4-13")
def test_the_other_callbacks_are_acted_upon_and_bad_ones_get_the_right_status(office: Caller, leads: Example) -> None:
    lead = add(office, "leads", name="Pat")
    run = {"execution_id": "e-1", "lead_id": lead}
    assert call_back(office, "workflow-status", {"callback_id": "s1", **run, "status": "running"}) == 200
    assert call_back(office, "workflow-completed", {"callback_id": "c1", **run}) == 200
    assert call_back(office, "error-notification", {"callback_id": "f1", **run, "error": "x"}) == 200
    with databases.engine_on(leads.database_url) as engine, engine.connect() as connection:
        note = text("select note from leads where id = :id")
        assert connection.execute(note, {"id": lead}).scalar_one() == "workflow e-1 completed"
        assert connection.execute(text("select state from workflow_runs where execution_id = 'e-1'")).scalar_one() == (
            "running"
        )
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
    assert all(row["error"] and row["milliseconds"] >= 0 for row in refused)
    assert SECRET not in json.dumps(refused)


@pytest.mark.requirement("S4-12")
def test_anybody_may_try_whether_it_answers(office: Caller) -> None:
    assert office.ask("POST", f"{API}/webhooks/test", {"hello": 1}) == {"received": {"hello": 1}}


@pytest.mark.requirement("S4-08")
def test_ten_webhooks_are_under_way_at_once(office: Caller, leads: Example) -> None:
    """n8n answers none of ten requests before all ten are there."""
    with answering() as far_end, databases.engine_on(leads.database_url) as engine:
        far_end.will("batch", *[together(10)] * 10)
        with moved(engine, "lead_scraped", far_end.url("batch")):
            # A relay that another test killed has its leases for half a minute yet.
            wait_until(lambda: "lead_scraped" not in queued(office), message="is under way", timeout_seconds=60)
            for number in range(10):
                add(office, "leads", name=f"B{number}")
            wait_until(lambda: len(far_end.received["batch"]) == 10, message="fewer than ten came", timeout_seconds=40)
            statement = text("select outcome from outbox.attempts order by at desc limit 10")
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                wait_until(lambda: "lead_scraped" not in queued(office), message="are under way")
                assert connection.execute(statement).scalars().all() == ["delivered"] * 10
        assert len(far_end.received["batch"]) == 10


@contextmanager
def moved(engine: Engine, name: str, url: str) -> Iterator[None]:
    """Send the events of a type elsewhere meanwhile."""
    with Session(engine) as session:
        before = outbox.subscriptions.get(session, name).url
        outbox.subscriptions.update(session, name, url=url)
        session.commit()
        try:
            yield
        finally:
            outbox.subscriptions.update(session, name, url=before)
            session.commit()


@pytest.mark.slow
@pytest.mark.requirement("S4-03")
def test_every_lead_is_told_of_although_the_relay_is_killed(office: Caller, leads: Example) -> None:
    made = set()
    for number in range(60):
        made.add(add(office, "leads", name=f"K{number}"))
        if number in (20, 40):
            leads.kill_relay()

    def arrived() -> set[int]:
        return {one["message"]["data"]["id"] for one in told(office, "lead_scraped") if one["verified"]}

    wait_until(lambda: arrived() >= made, message="some were not told of", timeout_seconds=60)
