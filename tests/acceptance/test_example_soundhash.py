"""examples/soundhash: each requirement of S3, over HTTP, with real processes and its users' own verification."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from relay.local.embedded import free_port
from tests.support import databases
from tests.support.examples import Caller, running
from tests.support.far_end import HANG, RESET, Answer, answering
from tests.support.loopback import allow_loopback
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("example-soundhash"), pytest.mark.timeout(120)]
WEBHOOKS = "/api/v1/webhooks"
EVENTS = ["match.found", "video.processed", "job.failed", "user.created", "subscription.updated", "api.limit_reached"]


@pytest.fixture(scope="module")
def soundhash(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running("soundhash", server_url, tmp_path_factory.mktemp("soundhash")) as example:
        yield example


class Users:
    """Registers users of the test's tenant, or of another one."""

    def __init__(self, example: Example, tenant: str) -> None:
        self.example, self.tenant = example, tenant
        self.callers: list[Caller] = []

    def register(self, name: str = "ann", tenant: str | None = None) -> Caller:
        given = {"tenant_id": tenant or self.tenant, "username": name, "email": f"{name}@a.example"}
        nobody = Caller(self.example)
        caller = Caller(self.example, nobody.ask("POST", "/api/v1/auth/register", given)["api_key"])
        self.callers += [nobody, caller]
        caller.await_resolved()  # a webhook that is made before would receive the user's event, user.created
        return caller


@pytest.fixture
def users(soundhash: Example, request: pytest.FixtureRequest) -> Iterator[Users]:
    made = Users(soundhash, request.node.name)
    yield made
    for caller in made.callers:
        caller.close()


def add(user: Caller, hook: str, *answers: int, **more: Any) -> str:
    """Make a webhook, save its secret with the receiver, and return its id."""
    made = user.ask("POST", WEBHOOKS, {"url": user.hook(hook), "events": EVENTS, **more}, status=201)
    user.set_up(hook, made["secret"], *answers)
    return str(made["id"])


def find_match(user: Caller, number: int = 1, **more: Any) -> Any:
    given = {"match_id": number, "query_video_id": "abc", "matched_video_id": "xyz", "confidence": 0.95}
    return user.ask("POST", "/api/v1/matches", given | more, status=201)


def failures(user: Caller, hook: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.ask("GET", f"{WEBHOOKS}/{hook}/deliveries?status=failed")["items"]
    return found


@pytest.mark.requirement("S3-01", "S3-05", "S3-06", "S3-07")
def test_each_event_comes_from_code_of_either_kind_in_the_transaction_that_it_tells_of(users: Users) -> None:
    ann = users.register()
    assert [one["name"] for one in ann.ask("GET", f"{WEBHOOKS}/events")] == EVENTS
    add(ann, "kinds")
    find_match(ann)
    for name, fails in (("v-1", "false"), ("v-2", "true")):
        ann.ask("POST", "/api/v1/videos", {"id": f"{users.tenant}-{name}"}, status=201)
        ann.ask("POST", f"/api/v1/videos/{users.tenant}-{name}/process?fails={fails}")
    users.register("bob")
    assert ann.ask("PUT", "/api/v1/plan", {"plan": "trial"})["limit"] == 3
    for number in (2, 3, 4):
        find_match(ann, number)
    requests = ann.await_received("kinds", 9)
    assert all(request["verified"] for request in requests)
    told = {body["type"]: body for body in (json.loads(request["body"]) for request in reversed(requests))}
    assert told.keys() == set(EVENTS)
    assert all(body.keys() == {"type", "timestamp", "data"} for body in told.values())
    user = told["subscription.updated"]["data"]["user_id"]
    assert {event: body["data"] for event, body in told.items() if event not in ("user.created", "match.found")} == {
        "video.processed": {"video_id": f"{users.tenant}-v-1", "segments": 3},
        "job.failed": {"job_id": f"{users.tenant}-v-2", "error": "no sound in it"},
        "subscription.updated": {"user_id": user, "plan": "trial"},
        "api.limit_reached": {"user_id": user, "limit": 3},
    }
    assert told["user.created"]["data"] | {"user_id": 0} == {"user_id": 0, "username": "bob", "email": "bob@a.example"}
    matches = sorted(one["data"]["match_id"] for one in map(json.loads, (one["body"] for one in requests))
                     if one["type"] == "match.found")  # fmt: skip
    assert matches == [1, 2, 3, 4]


@pytest.mark.requirement("S3-06")
def test_a_user_who_is_not_there_in_the_end_is_not_told_of(users: Users, soundhash: Example) -> None:
    refuse = """
        create function refuse() returns trigger language plpgsql as 'begin raise check_violation; end';
        create constraint trigger refuse after insert on users
            deferrable initially deferred for each row execute function refuse()"""
    told = text("select count(*) from outbox.events where tenant = :tenant")
    given = {"tenant_id": users.tenant, "username": "eve", "email": "eve@a.example"}
    nobody = Caller(soundhash)
    with databases.engine_on(soundhash.database_url) as engine, engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(refuse))
        try:
            assert nobody.refused("POST", "/api/v1/auth/register", given)[0] == 500
        finally:
            connection.execute(text("drop function refuse cascade"))
        assert connection.execute(told, {"tenant": users.tenant}).scalar_one() == 0
        nobody.ask("POST", "/api/v1/auth/register", given, status=201)
        assert connection.execute(told, {"tenant": users.tenant}).scalar_one() == 1
    nobody.close()


@pytest.mark.slow
@pytest.mark.requirement("S3-02", "S3-04", "S3-12")
def test_a_user_makes_reads_changes_and_tests_a_webhook(users: Users) -> None:
    ann = users.register()
    given = {"url": ann.hook("crud"), "events": ["match.found"], "description": "Mine", "headers": {"X-Key": "k"}}
    made, other = (ann.ask("POST", WEBHOOKS, given, status=201) for _ in range(2))
    secret = made.pop("secret")
    assert len(secret) >= 32
    assert secret != other["secret"]
    assert ann.ask("GET", f"{WEBHOOKS}/{made['id']}") == made
    assert ann.ask("PATCH", f"{WEBHOOKS}/{made['id']}", {"description": "Ours"})["description"] == "Ours"
    ann.set_up("crud", secret)
    own = {"event": "video.processed", "payload": {"video_id": "own"}}
    assert ann.refused("POST", f"{WEBHOOKS}/{made['id']}/test", own | {"event": "video.proccessed"})[0] == 422
    assert ann.ask("POST", f"{WEBHOOKS}/{made['id']}/test", own)["success"]
    (request,) = ann.received("crud")
    assert (request["headers"]["x-key"], json.loads(request["body"])["data"]) == ("k", {"video_id": "own"})
    assert ann.ask("GET", f"{WEBHOOKS}/{made['id']}/stats")["success_count"] == 0, "a test is no delivery"
    find_match(ann)
    log = f"{WEBHOOKS}/{made['id']}/deliveries"
    wait_until(lambda: len(ann.ask("GET", log)["items"]) == 2, message="did not arrive")
    assert [(one["event"], one["status"]) for one in ann.ask("GET", log)["items"]] == [
        ("match.found", "delivered"), (None, "test"),
    ]  # fmt: skip
    listed = ann.ask("GET", WEBHOOKS)
    assert [one["id"] for one in listed["items"]] == [made["id"], other["id"]]
    assert secret not in json.dumps([listed, ann.ask("GET", f"{WEBHOOKS}/{made['id']}"), ann.ask("GET", log)])
    ann.ask("DELETE", f"{WEBHOOKS}/{other['id']}", status=204)
    assert [one["id"] for one in ann.ask("GET", WEBHOOKS)["items"]] == [made["id"]]


@pytest.mark.requirement("S3-03")
def test_users_manage_their_own_and_tenants_get_their_own(users: Users) -> None:
    ann, bob, other = users.register(), users.register("bob"), users.register("eve", f"{users.tenant}-2")
    hooks = {caller: add(caller, f"own-{name}") for name, caller in (("ann", ann), ("bob", bob), ("eve", other))}
    for caller, hook in hooks.items():
        assert [one["id"] for one in caller.ask("GET", WEBHOOKS)["items"]] == [hook]
        for foreign in set(hooks.values()) - {hook}:
            assert caller.refused("GET", f"{WEBHOOKS}/{foreign}")[0] == 404
            assert caller.refused("PATCH", f"{WEBHOOKS}/{foreign}", {"description": "x"})[0] == 404
            assert caller.refused("DELETE", f"{WEBHOOKS}/{foreign}")[0] == 404
            for method, path in (("POST", "test"), ("GET", "deliveries"), ("GET", "stats")):
                assert caller.refused(method, f"{WEBHOOKS}/{foreign}/{path}")[0] == 404
    find_match(ann, 1)
    find_match(other, 2)
    for name, number in (("own-ann", 1), ("own-bob", 1), ("own-eve", 2)):
        (request,) = ann.await_received(name, 1)
        assert json.loads(request["body"])["data"]["match_id"] == number
    log = f"{WEBHOOKS}/{hooks[ann]}/deliveries"
    event = wait_until(lambda: ann.ask("GET", log)["items"], message="the answer is not settled")[0]["event_id"]
    assert bob.ask("GET", f"/api/v1/events/{event}")["type"] == "match.found"
    assert other.refused("GET", f"/api/v1/events/{event}")[0] == 404
    with httpx.Client(base_url=users.example.url, trust_env=False, verify=False) as nobody:
        assert nobody.get(WEBHOOKS).status_code == 401
        assert nobody.get(f"{WEBHOOKS}/{hooks[ann]}").status_code == 401


@pytest.mark.slow
@pytest.mark.requirement("S3-05")
def test_an_event_that_cannot_be_recorded_fails_nothing_and_is_logged(users: Users, soundhash: Example) -> None:
    ann = users.register()
    add(ann, "fails")
    assert find_match(ann, 1, note="x" * 300_000)["recorded"] is False
    assert find_match(ann, 2)["recorded"]
    (request,) = ann.await_received("fails", 1)
    assert json.loads(request["body"])["data"]["match_id"] == 2
    assert soundhash.said("app", "(match.found) was not recorded: ")


FORBIDDEN = [
    "localhost", "127.0.0.1", "[::1]", "10.0.0.7", "172.16.0.1", "192.168.1.1", "169.254.169.254", "[::ffff:10.0.0.7]",
    "2130706433", "0.0.0.0", "printer.local",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.requirement("S3-08")
def test_this_machine_and_private_addresses_are_refused_when_a_webhook_is_made_and_when_it_is_called(
    server_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As SoundHash runs elsewhere than here: no network is named that may be called."""
    with running("soundhash", server_url, tmp_path, RELAY_ALLOW_NETWORKS="") as example, answering() as far_end:
        users = Users(example, request.node.name)
        ann = users.register()
        for host in FORBIDDEN:
            status, told = ann.refused("POST", WEBHOOKS, {"url": f"https://{host}/hook", "events": EVENTS})
            assert (status, '["body","url"]' in told) == (422, True), told
        made = ann.ask("POST", WEBHOOKS, {"url": "https://hooks.example.com/in", "events": EVENTS}, status=201)
        for host in ("localhost", "127.0.0.1"):
            assert ann.refused("PATCH", f"{WEBHOOKS}/{made['id']}", {"url": f"https://{host}/hook"})[0] == 422
        # What the application would refuse is made here, as if the name had meant another address then.
        hosts = (f"127.0.0.1:{far_end.port}", f"localhost:{far_end.port}")
        with databases.engine_on(example.database_url) as engine, Session(engine) as session:
            allow_loopback()
            metadata = outbox.subscriptions.get(session, made["id"], tenant=users.tenant).metadata
            outbox.subscriptions.remove(session, made["id"], tenant=users.tenant)
            hooks = [
                outbox.subscribe(session, f"http://{host}/in", EVENTS, tenant=users.tenant, metadata=metadata).id
                for host in hosts
            ]
            session.commit()
        find_match(ann)
        for hook in hooks:
            log = f"{WEBHOOKS}/{hook}/deliveries"
            wait_until(lambda log=log: ann.ask("GET", log)["items"], message="no attempt")  # type: ignore[misc]
            (attempt,) = ann.ask("GET", log)["items"]
            assert (attempt["status_code"], "allow_networks" in attempt["error"]) == (None, True), attempt["error"]
        with databases.engine_on(example.database_url) as engine, Session(engine) as session:
            made_of_all = outbox.deliveries.attempts(session, tenant=users.tenant).items
            assert [one.outcome for one in made_of_all] == ["blocked_address"] * 2
        assert not far_end.received
        for caller in users.callers:
            caller.close()


@pytest.mark.requirement("S3-11")
def test_each_webhook_has_a_rate_of_its_own(users: Users) -> None:
    """Six matches at once: a second passes between the first and the last at two a second; none does at a hundred."""
    ann = users.register()
    slow, fast = add(ann, "slow"), add(ann, "fast")
    with databases.engine_on(users.example.database_url) as engine, Session(engine) as session:
        assert outbox.subscriptions.get(session, fast, tenant=outbox.EVERY_TENANT).rate_limit == "100/s"
        allow_loopback()
        outbox.subscriptions.update(session, slow, tenant=outbox.EVERY_TENANT, rate_limit="2/s")
        session.commit()
    for number in range(6):
        find_match(ann, number)
    ann.await_received("slow", 6)
    log = f"{WEBHOOKS}/{slow}/deliveries?limit=50"
    wait_until(lambda: len(ann.ask("GET", log)["items"]) >= 6, message="the last answer is not settled")
    times = sorted(datetime.fromisoformat(one["created_at"]) for one in ann.ask("GET", log)["items"])
    assert len(times) == 6
    assert (times[-1] - times[0]).total_seconds() > 1
    assert len(ann.received("fast")) == 6


@pytest.mark.slow
@pytest.mark.requirement("S3-09", "S3-10")
def test_what_fails_is_tried_after_1_2_and_4_minutes_and_then_given_up(users: Users) -> None:
    ann = users.register()
    hook = add(ann, "schedule", 500, 503, 500, 502)
    find_match(ann)
    waits = []
    for attempt in (1, 2, 3):
        wait_until(lambda attempt=attempt: len(failures(ann, hook)) == attempt, message="no attempt")  # type: ignore[misc]
        (waiting,) = ann.ask("GET", f"{WEBHOOKS}/{hook}/deliveries?status=pending")["items"]
        failed_at, due_at = (
            datetime.fromisoformat(at) for at in (failures(ann, hook)[0]["created_at"], waiting["due_at"])
        )
        waits.append((due_at - failed_at).total_seconds())
        assert ann.ask("GET", f"/api/v1/events/{waiting['event_id']}")["processed"] is False
        ann.ask("POST", f"{WEBHOOKS}/{hook}/deliveries/{waiting['id']}/retry", status=202)
    assert [60 <= waits[0] <= 70, 120 <= waits[1] <= 140, 240 <= waits[2] <= 280] == [True] * 3, waits
    event = failures(ann, hook)[0]["event_id"]
    wait_until(lambda: ann.ask("GET", f"{WEBHOOKS}/{hook}")["failure_count"] == 1, message="was not given up")
    told = ann.ask("GET", f"/api/v1/events/{event}")
    assert (told["type"], told["processed"]) == ("match.found", True)


AGAIN: dict[str, Answer] = {"500": 500, "502": 502, "503": 503, "504": 504, "429": 429, "timeout": HANG, "reset": RESET}
FINAL = (400, 401, 402, 403, 404, 405, 406, 409, 411, 413, 415, 422, 451)


@pytest.mark.slow
@pytest.mark.requirement("S3-09")
def test_what_may_pass_is_tried_again_and_other_4xx_end_it_at_once(users: Users) -> None:
    ann = users.register()
    with answering() as far_end:
        hooks = {}
        for name, answer in {**AGAIN, **{str(status): status for status in FINAL}}.items():
            far_end.will(name, answer)
            hooks[name] = ann.ask("POST", WEBHOOKS, {"url": far_end.url(name), "events": EVENTS}, status=201)
        closed = {"url": f"http://127.0.0.1:{free_port()}/", "events": EVENTS}
        hooks["closed"] = ann.ask("POST", WEBHOOKS, closed, status=201)
        assert {hook["timeout_seconds"] for hook in hooks.values()} == {30}
        with databases.engine_on(users.example.database_url) as engine, Session(engine) as session, session.begin():
            outbox.subscriptions.update(session, hooks["timeout"]["id"], tenant=users.tenant, timeout_seconds=1)
        find_match(ann)

        def verdict(name: str) -> str | None:
            items = ann.ask("GET", f"{WEBHOOKS}/{hooks[name]['id']}/deliveries")["items"]
            return str(items[0]["status"]) if items else None

        wait_until(lambda: all(verdict(name) for name in hooks), message="no attempt", timeout_seconds=40)
        assert {name: verdict(name) for name in hooks} == {
            **dict.fromkeys([*AGAIN, "closed"], "retry"), **dict.fromkeys(map(str, FINAL), "dead"),
        }  # fmt: skip
        assert all(len(far_end.received[name]) == 1 for name in hooks if name != "closed")


@pytest.mark.slow
@pytest.mark.requirement("S3-13", "S3-14", "S3-15")
def test_the_log_has_requests_and_answers_by_status_in_pages_and_goes_with_its_webhook(users: Users) -> None:
    ann = users.register()
    hook = add(ann, "log", 200, 404)
    for number in (1, 2):
        find_match(ann, number)
    log = f"{WEBHOOKS}/{hook}/deliveries"
    wait_until(lambda: len(ann.ask("GET", log)["items"]) == 2, message="is not in the log")
    (failed,) = failures(ann, hook)
    assert (failed["status_code"], failed["response_body"]) == (404, '{"status": "ok"}')
    (delivered,) = ann.ask("GET", f"{log}?status=delivered")["items"]
    sent = {one["status"]: json.loads(one["body"])["data"] for one in ann.received("log")}
    assert {404: failed["payload"], 200: delivered["payload"]} == sent
    first = ann.ask("GET", f"{log}?limit=1")
    rest = ann.ask("GET", f"{log}?limit=1&after={first['next']}")
    assert {one["id"] for one in (*first["items"], *rest["items"])} == {failed["id"], delivered["id"]}
    stats = ann.ask("GET", f"{WEBHOOKS}/{hook}/stats")
    assert (stats["success_count"], stats["failure_count"], stats["success_rate"]) == (1, 1, 0.5)
    ann.set_up("log", None, 500)
    event = find_match(ann, 3)["event"]
    wait_until(lambda: ann.ask("GET", f"{log}?status=pending")["items"], message="does not wait")
    assert ann.ask("GET", f"/api/v1/events/{event}")["processed"] is False
    ann.ask("DELETE", f"{WEBHOOKS}/{hook}", status=204)
    for path in ("", "/deliveries", "/stats"):
        assert ann.refused("GET", f"{WEBHOOKS}/{hook}{path}")[0] == 404
    wait_until(lambda: ann.ask("GET", f"/api/v1/events/{event}")["processed"], message="what waited did not go along")
    find_match(ann, 5)
    add(ann, "log-2")
    find_match(ann, 4)
    ann.await_received("log-2", 1)
    assert len(ann.received("log")) == 3


@pytest.mark.slow
@pytest.mark.requirement("S3-05", "S3-07")
def test_every_match_arrives_although_the_relay_is_killed(users: Users, soundhash: Example) -> None:
    ann = users.register()
    add(ann, "killed")
    for number in range(60):
        find_match(ann, number)
        if number in (20, 40):
            soundhash.kill_relay()

    def arrived() -> set[int]:
        return {json.loads(one["body"])["data"]["match_id"] for one in ann.received("killed") if one["verified"]}

    wait_until(lambda: arrived() == set(range(60)), message="some did not arrive", timeout_seconds=60)
