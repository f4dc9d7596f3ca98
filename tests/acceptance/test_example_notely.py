"""examples/notely: each requirement of S1, over HTTP, with real processes and its users' own verification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from relay.cli import cli
from tests.support import databases
from tests.support.examples import Caller, query_named, running
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("example-notely"), pytest.mark.timeout(120)]
EVENTS = ["email.received", "task.completed"]
WEBHOOKS = "/api/webhooks"


@pytest.fixture(scope="module")
def notely(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running("notely", server_url, tmp_path_factory.mktemp("notely")) as example:
        yield example


@pytest.fixture
def user(notely: Example, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """A user of notely, whose hook at the receiver has the test's name."""
    nobody = Caller(notely)
    caller = Caller(notely, nobody.ask("POST", "/api/users", {"name": request.node.name})["token"])
    yield caller
    caller.close()
    nobody.close()


def add(user: Caller, hook: str, *answers: int, **more: object) -> str:
    """Make a webhook, save its secret with the receiver, and return its id."""
    made = user.ask("POST", WEBHOOKS, {"url": user.hook(hook), "event_types": EVENTS, **more}, status=201)
    user.set_up(hook, made["secret"], *answers)
    return str(made["id"])


def receive_email(user: Caller, name: str = "msg-123") -> str:
    return str(user.ask("POST", "/api/emails", {"id": name, "subject": "Réunion", "sender": "a@b.example"})["event"])


@pytest.mark.requirement("S1-01", "S1-14")
def test_sixteen_types_in_six_groups_are_listed(user: Caller) -> None:
    types = user.ask("GET", f"{WEBHOOKS}/event-types")
    assert {"name": "task.completed", "description": "Task completed", "group": "Tasks"} in types
    assert [one["group"] for one in types].count("Calendar") == 3
    assert len({one["group"] for one in types}) == 6
    assert len(types) == 17, "the description counts sixteen and names seventeen"


@pytest.mark.requirement("S1-02", "S1-03")
def test_the_secret_is_in_the_first_answer_only_and_bad_values_are_refused(user: Caller) -> None:
    given = {"url": user.hook("x"), "event_types": EVENTS, "description": "My webhook"}
    made = user.ask("POST", WEBHOOKS, given, status=201)
    assert (made["retry_count"], made["timeout_seconds"], made["description"]) == (3, 10, "My webhook")
    secret = made.pop("secret")
    assert len(secret) >= 32
    shown = user.ask("GET", f"{WEBHOOKS}/{made['id']}")
    assert shown == made
    assert secret not in json.dumps(user.ask("GET", WEBHOOKS))
    for wrong, said in (
        ({"event_types": ["email.recieved"]}, "did you mean 'email.received'"),
        ({"timeout_seconds": 61}, "timeout_seconds"),
        ({"url": "ftp://a.example/"}, "url"),
    ):
        status, told = user.refused("POST", WEBHOOKS, given | wrong)
        assert (status, said in told) == (422, True), told


@pytest.mark.requirement("S1-04")
def test_a_user_sees_changes_and_removes_their_own_only(user: Caller, notely: Example) -> None:
    mine = add(user, "mine")
    other = Caller(notely, user.ask("POST", "/api/users", {"name": "other"})["token"])
    for method, body in (("GET", None), ("PATCH", {"description": "x"}), ("DELETE", None)):
        assert other.refused(method, f"{WEBHOOKS}/{mine}", body)[0] == 404
    assert other.ask("GET", WEBHOOKS)["items"] == []
    other.close()
    assert user.ask("PATCH", f"{WEBHOOKS}/{mine}", {"retry_count": 1})["retry_count"] == 1
    assert [one["id"] for one in user.ask("GET", WEBHOOKS)["items"]] == [mine]
    user.ask("DELETE", f"{WEBHOOKS}/{mine}", status=204)
    assert user.refused("GET", f"{WEBHOOKS}/{mine}")[0] == 404


@pytest.mark.slow
@pytest.mark.requirement("S1-05", "S1-07")
def test_a_test_is_one_signed_request_in_the_form_that_receivers_know(user: Caller) -> None:
    hook = add(user, "tested")
    tried = user.ask("POST", f"{WEBHOOKS}/{hook}/test")
    assert (tried["success"], tried["status_code"]) == (True, 200)
    (request,) = user.received("tested")
    assert request["verified"]
    assert request["headers"]["x-webhook-signature"].startswith("sha256=")
    assert json.loads(request["body"]).keys() == {"event_type", "data"}


@pytest.mark.slow
@pytest.mark.requirement("S1-06", "S1-07", "S1-08", "S1-10")
def test_an_email_is_tried_again_after_2_4_and_8_seconds_and_all_of_it_is_history(user: Caller) -> None:
    hook = add(user, "emails", 500, 503, 500)
    event = receive_email(user)
    requests = user.await_received("emails", 4)
    assert [request["status"] for request in requests] == [500, 503, 500, 200]
    assert all(request["verified"] for request in requests)
    assert {request["body"] for request in requests} == {
        '{"event_type":"email.received","data":{"email_id":"msg-123","subject":"Réunion","from":"a@b.example"}}'
    }
    sent = [int(request["headers"]["webhook-timestamp"]) for request in requests]
    waits = [later - earlier for earlier, later in pairwise(sent)]
    assert [wait >= least for wait, least in zip(waits, (2, 4, 8), strict=True)] == [True] * 3, waits
    wait_until(lambda: user.ask("GET", f"{WEBHOOKS}/{hook}")["success_count"] == 1, message="is not counted")
    history = user.ask("GET", f"{WEBHOOKS}/{hook}/deliveries")["items"]
    assert [(one["status"], one["attempt"]) for one in history] == [
        ("delivered", 4), ("retry", 3), ("retry", 2), ("retry", 1),
    ]  # fmt: skip
    assert {one["event_id"] for one in history} == {event}


@pytest.mark.slow
@pytest.mark.requirement("S1-08", "S1-09", "S1-11")
def test_what_was_given_up_is_counted_and_delivered_again_by_the_job(user: Caller) -> None:
    hook = add(user, "later", 500, retry_count=0)
    task = user.ask("POST", "/api/tasks", {"title": "Write"})["id"]
    user.ask("POST", f"/api/tasks/{task}/complete", status=204)
    user.await_received("later", 1)
    wait_until(lambda: user.ask("GET", f"{WEBHOOKS}/{hook}")["failure_count"] == 1, message="is not counted")
    assert user.ask("POST", "/api/webhooks-retry") == {"retried": 1}
    first, again = user.await_received("later", 2)
    assert first["body"] == again["body"]
    assert first["headers"]["webhook-id"] == again["headers"]["webhook-id"]
    wait_until(lambda: user.ask("GET", f"{WEBHOOKS}/{hook}/stats")["success_count"] == 1, message="is not counted")
    stats = user.ask("GET", f"{WEBHOOKS}/{hook}/stats")
    assert (stats["failure_count"], stats["failed_attempts"], stats["success_rate"]) == (1, 1, 0.5)


@pytest.mark.requirement("S1-12")
def test_what_was_given_up_is_deleted_after_30_days(user: Caller, notely: Example) -> None:
    add(user, "old", 500, 500, retry_count=0)
    for name in ("old-1", "old-2"):
        receive_email(user, name)
    user.await_received("old", 2)
    count = "select count(*) from outbox.dead_letters where payload like '%old-%'"
    older = "update outbox.dead_letters set died_at = now() - interval '31 days' where payload like '%old-1%'"
    with databases.engine_on(notely.database_url) as engine, engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        wait_until(lambda: connection.execute(text(count)).scalar_one() == 2, message="are no dead letters")
        connection.execute(text(older))
        options = ["--config", str(notely.configuration), "--database-url", notely.database_url]
        CliRunner().invoke(cli, ["prune", *options], catch_exceptions=False)
        assert connection.execute(text(count)).scalar_one() == 1


QUEUE = "size of the retry queue"


@pytest.mark.slow
@pytest.mark.requirement("S1-13")
def test_an_operator_asks_in_sql(user: Caller) -> None:
    hook = add(user, "asked", 500)
    receive_email(user, "asked-1")
    user.await_received("asked", 1)
    with databases.engine_on(user.example.database_url) as engine, Session(engine) as session:
        outbox.subscriptions.pause(session, hook, tenant=outbox.EVERY_TENANT)  # before the retry after two seconds
        session.commit()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as asking:  # now() is each query's
            wait_until(lambda: query_named(asking, "notely", QUEUE)[0]["pending_retries"] == 1, message="is not due")
        outbox.subscriptions.resume(session, hook, tenant=outbox.EVERY_TENANT)
        session.commit()
    user.await_received("asked", 2)
    wait_until(lambda: user.ask("GET", f"{WEBHOOKS}/{hook}")["success_count"] == 1, message="is not counted")
    with databases.engine_on(user.example.database_url) as engine, engine.connect() as connection:
        (rate,) = query_named(connection, "notely", "success rate of 24 hours")
        assert rate["successful"] >= 1
        assert 0 < rate["success_rate"] <= 100
        failing = query_named(connection, "notely", "ten webhooks that fail most in seven days")
        assert {"subscription_id": hook, "failures": 1} in failing


@pytest.mark.slow
@pytest.mark.requirement("S1-10")
def test_every_email_arrives_although_the_relay_is_killed(user: Caller, notely: Example) -> None:
    add(user, "killed")
    events = set()
    for number in range(60):
        events.add(receive_email(user, f"m-{number}"))
        if number in (20, 40):
            notely.kill_relay()
    arrived = wait_until_all(user, events)
    assert arrived == events


def wait_until_all(user: Caller, events: set[str]) -> set[str]:
    def arrived() -> set[str]:
        return {one["headers"]["webhook-id"] for one in user.received("killed") if one["verified"]}

    wait_until(lambda: arrived() >= events, message="some did not arrive", timeout_seconds=60)
    return arrived()
