"""The API of customers' webhooks inside a FastAPI application: its shapes, both kinds of session, its errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI, Header, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox.control import test_messages
from outbox.fastapi import Shape, webhooks_router
from outbox.fastapi.offered_types import OfferedTypes
from outbox.fastapi.owner import Owner, owner_of
from outbox.ids import new_uuid7
from outbox.subscriptions.rows import hold_tenant
from tests.support import databases, seeding
from tests.support.loopback import allow_loopback
from tests.support.recording import Statements

EVENTS = {"product.created": "A product was created", "product.updated": "…", "import.failed": "An import failed"}
URL = "https://customer.example/hook"
NOTELY = Shape(first_delay_seconds=2, retry_count=3, timeout_seconds=10, longest_timeout_seconds=60)
FULFIL = Shape(
    event="event", history_path="/logs", history_is_list=True, first_delay_seconds=2, retry_count=3, timeout_seconds=30,
    most_webhooks=5, unsigned_without_secret=True, test_seconds=0.1,
)  # fmt: skip
SOUNDHASH = Shape(event="event", event_types_path="/events", retry_count=3, first_delay_seconds=60, timeout_seconds=30)


@dataclass(frozen=True)
class User:
    """As an application's own: only its id says who it is."""

    id: str


def signed_in(x_user: str = Header()) -> User:
    if x_user == "nobody":
        raise HTTPException(401, "sign in")
    return User(x_user)


def of_organisation(x_user: str = Header()) -> tuple[str, str]:
    return (*x_user.split("/"),)  # type: ignore[return-value]


@dataclass
class Stage:
    """An application on a database, a client of it in a loop of its own, and what it sends to the database."""

    portal: BlockingPortal
    client: httpx.AsyncClient
    engine: sa.Engine
    statements: Statements

    def ask(self, method: str, path: str, user: str, **more: Any) -> Any:
        return self.portal.call(partial(self.client.request, method, path, headers={"x-user": user}, **more))

    def make(self, path: str, user: str, events: str = "event_types", **more: Any) -> dict[str, Any]:
        answer = self.ask("POST", path, user, json={"url": URL, events: ["product.created"], **more})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def forget_what_all_share(self) -> None:
        """Begin anew with the router whose visitors share one tenant."""
        with self.engine.begin() as connection:
            for one in outbox.subscriptions.list(connection):
                outbox.subscriptions.remove(connection, one.id)


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[Stage]:
    """One application with a router of each shape, on sessions of each kind; it has the rights that the page names."""
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
    ):
        rights: dict[str, Any] = {"connect_args": {"options": "-c role=outbox_operator"}}
        asynchronous = create_async_engine(engine.url, **rights)
        asyncpg = create_async_engine(engine.url.set(drivername="postgresql+asyncpg"))
        operating = sa.create_engine(engine.url, **rights)

        def plain() -> Iterator[Session]:
            with Session(operating) as session:
                yield session

        async def awaited() -> AsyncIterator[AsyncSession]:
            async with AsyncSession(asynchronous) as session:
                yield session

        def begun() -> Iterator[Session]:
            with Session(operating) as session, session.begin():
                yield session

        async def begun_awaited() -> AsyncIterator[AsyncSession]:
            async with AsyncSession(asynchronous) as session, session.begin():
                yield session

        async def scoped() -> AsyncIterator[async_scoped_session[AsyncSession]]:
            found = async_scoped_session(async_sessionmaker(asyncpg), scopefunc=asyncio.current_task)
            try:
                yield found
            finally:
                await found.remove()

        app = FastAPI()
        dependencies = {
            "plain": plain, "awaited": awaited, "begun": begun, "begun_awaited": begun_awaited, "scoped": scoped,
        }  # fmt: skip
        for name, session in dependencies.items():
            router = webhooks_router(session=session, owner=signed_in, event_types=EVENTS, shape=NOTELY)
            app.include_router(router, prefix=f"/{name}")
        more: dict[str, Any] = {"session": plain, "event_types": {"Products": EVENTS}}
        fulfil = webhooks_router(
            **more, owner="", shape=FULFIL, settings={"scheme": "fulfil", "allow_weak_secret": True}
        )
        app.include_router(fulfil, prefix="/fulfil")
        settings = {"scheme": "soundhash", "metadata": {"made": "by us", "owner": "nobody"}}
        soundhash = webhooks_router(**more, owner=of_organisation, shape=SOUNDHASH, settings=settings)
        app.include_router(soundhash, prefix="/soundhash")
        statements = Statements(operating)
        allow_loopback()
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
        with start_blocking_portal() as portal:
            yield Stage(portal, client, engine, statements)
            portal.call(client.aclose)
            portal.call(asynchronous.dispose)
            portal.call(asyncpg.dispose)
        operating.dispose()


def fresh() -> str:
    return f"u{new_uuid7().hex}"


@pytest.mark.parametrize("kind", ["plain", "awaited", "begun", "begun_awaited", "scoped"])
def test_a_webhook_lives_with_any_session(stage: Stage, kind: str) -> None:
    user = fresh()
    made = stage.make(f"/{kind}", user, description="mine")
    path = f"/{kind}/{made['id']}"
    assert made["secret"].startswith("whsec_")
    assert (made["event_types"], made["retry_count"], made["timeout_seconds"]) == (["product.created"], 3, 10)
    read = stage.ask("GET", path, user).json()
    assert read == {key: value for key, value in made.items() if key != "secret"}
    changed = stage.ask("PATCH", path, user, json={"description": "ours", "retry_count": 1}).json()
    assert (changed["description"], changed["retry_count"], changed["url"]) == ("ours", 1, URL)
    with Session(stage.engine) as session:
        stored = outbox.subscriptions.get(session, made["id"], tenant=user)
    assert (stored.schedule_seconds, stored.tenant) == ((2,), user)
    assert [one["id"] for one in stage.ask("GET", f"/{kind}", user).json()["items"]] == [made["id"]]
    turned = stage.ask("POST", f"{path}/rotate-secret", user).json()
    assert turned["secret"] not in (made["secret"], "")
    assert stage.ask("GET", f"{path}/deliveries", user).json()["items"] == []
    assert stage.ask("GET", f"{path}/stats", user).json()["success_rate"] is None
    gone = stage.ask("DELETE", path, user)
    assert (gone.status_code, gone.content) == (204, b"")
    assert stage.ask("GET", path, user).status_code == 404
    with stage.engine.connect() as connection:
        said = sa.text("select distinct actor from outbox.audit where tenant = :user")
        assert connection.execute(said, {"user": user}).scalars().all() == [user]


def test_retries_double_from_the_first_delay(stage: Stage) -> None:
    assert (NOTELY.schedule(3), SOUNDHASH.schedule(3), FULFIL.schedule(0)) == ([2, 4, 8], [60, 120, 240], [])
    assert max(Shape(most_retries=20).schedule(20)) == 604_800


def test_what_another_owner_has_is_not_found_by_any_route(stage: Stage) -> None:
    ours, path = "globex/ann", "/soundhash"
    made = stage.make(path, ours, "events")
    for stranger in ("globex/bob", "acme/ann"):
        for method, rest, body in (
            ("GET", "", None), ("PATCH", "", {"description": "x"}), ("PUT", "", {"description": "x"}),
            ("DELETE", "", None), ("POST", "/rotate-secret", {}), ("POST", "/test", {}), ("GET", "/deliveries", None),
            ("GET", "/stats", None), ("POST", "/deliveries/x/retry", None),
        ):  # fmt: skip
            theirs = stage.ask(method, f"{path}/{made['id']}{rest}", stranger, json=body)
            none = stage.ask(method, f"{path}/sub_{'0' * 26}{rest}", stranger, json=body)
            assert (theirs.status_code, none.status_code) == (404, 404), (method, rest, theirs.text)
            assert theirs.text.replace(made["id"], "sub_" + "0" * 26) == none.text
        assert stage.ask("GET", path, stranger).json()["items"] == []
    with Session(stage.engine) as session:
        assert outbox.subscriptions.get(session, made["id"], tenant="globex").metadata == {
            "made": "by us",
            "owner": "ann",
        }


def test_a_list_has_pages_by_offset_and_by_cursor_in_a_fixed_number_of_statements(stage: Stage) -> None:
    user, numbers = fresh(), []
    made = [stage.make("/plain", user)["id"] for _ in range(5)]
    stage.ask("PATCH", f"/plain/{made[1]}", user, json={"is_active": False})
    page = stage.ask("GET", "/plain?limit=2&offset=1", user).json()
    assert [one["id"] for one in page.pop("items")] == made[1:3]
    assert page == {"total": 5, "limit": 2, "offset": 1, "has_more": True, "next": made[2]}
    page = stage.ask("GET", f"/plain?limit=2&after={made[2]}", user).json()
    assert ([one["id"] for one in page["items"]], page["has_more"], page["next"]) == (made[3:], False, None)
    for wanted, expected in (("true", 4), ("false", 1)):
        page = stage.ask("GET", f"/plain?is_active={wanted}", user).json()
        assert (page["total"], len(page["items"])) == (expected, expected)
    for limit in (1, 5):
        stage.statements.clear()
        stage.ask("GET", f"/plain?limit={limit}", user)
        numbers.append(len(stage.statements))
    assert numbers[0] == numbers[1] <= 4
    for wrong in ("limit=0", "limit=101", "offset=-1"):
        assert stage.ask("GET", f"/plain?{wrong}", user).status_code == 422
    assert stage.ask("GET", "/plain?after=nothing", user).status_code == 404


def test_event_types_are_listed_with_description_and_group(stage: Stage) -> None:
    found = stage.ask("GET", "/plain/event-types", "ann").json()
    assert found[0] == {"name": "product.created", "description": "A product was created", "group": ""}
    assert stage.ask("GET", "/soundhash/events", "a/b").json()[0]["group"] == "Products"


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"event_types": ["product.creatd"]}, "event_types", "did you mean 'product.created'?"),
        ({"event_types": ["*"]}, "event_types", "is no event type; there are product.created, "),
        ({"event_types": []}, "event_types", "is empty"),
        ({"url": "ftp://customer.example/"}, "url", "url: "),
        ({"url": "https://10.0.0.1/"}, "url", "url: "),
        ({"url": 5}, "url", "valid string"),
        ({"retry_count": 11}, "retry_count", "less than or equal to 10"),
        ({"retry_count": True}, "retry_count", "valid integer"),
        ({"timeout_seconds": 61}, "timeout_seconds", "less than or equal to 60"),
        ({"timeout_seconds": 0}, "timeout_seconds", "greater than or equal to 1"),
        ({"headers": {"Host": "x"}}, "headers", "Host"),
        ({"description": "x" * 3000}, "description", "2048"),
        ({"secret": "whsec_short"}, "secret", "secret: "),
        ({"retries": 3}, "retries", "not permitted"),
    ],
)
def test_a_refusal_is_one_error_that_names_the_field_and_repeats_nothing(
    stage: Stage, body: dict[str, Any], field: str, said: str
) -> None:
    user = fresh()
    answer = stage.ask("POST", "/plain", user, json={"url": URL, "event_types": ["product.created"], **body})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["detail"]
    assert error["loc"][:2] == ["body", field]
    assert said in error["msg"]
    assert "input" not in error
    assert stage.ask("GET", "/plain", user).json()["total"] == 0


def test_a_secret_beside_a_mistake_is_not_sent_back(stage: Stage) -> None:
    for body in ({"secret": "my-own-secret"}, {"url": URL, "events": 5, "secret": "my-own-secret"}):
        answer = stage.ask("POST", "/fulfil", "", json=body)
        assert answer.status_code == 422
        assert "my-own-secret" not in answer.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"secret": "x"}, "secret comes with each request"),
        ({"shceme": "github"}, "takes no 'shceme'; did you mean scheme"),
        ({"scheme": "githab"}, "githab"),
        ({"format": "xml"}, "format: 'xml' is not known"),
        ({"rate_limit": "fast"}, "rate_limit: "),
    ],
)
def test_settings_are_refused_when_the_application_starts(given: dict[str, Any], said: str) -> None:
    with pytest.raises(outbox.ArgumentError, match=f"settings: .*{said}"):
        webhooks_router(session=signed_in, owner=signed_in, event_types=EVENTS, settings=given)


def test_who_is_not_signed_in_gets_the_applications_own_answer(stage: Stage) -> None:
    assert stage.ask("GET", "/plain", "nobody").json() == {"detail": "sign in"}


def test_the_fields_of_fulfil(stage: Stage) -> None:
    """Own short secrets, unsigned without one, headers whose values stay hidden, inactive from the start, PUT."""
    stage.forget_what_all_share()
    own = stage.make("/fulfil", "", "events", secret="my-secret-key", headers={"X-API-Key": "abc123"}, is_active=False)
    assert (own["secret"], own["headers"], own["is_active"], own["status"]) == (
        "my-secret-key", ["X-API-Key"], False, "paused",
    )  # fmt: skip
    plain = stage.make("/fulfil", "", "events")
    assert plain["secret"] == ""
    path = f"/fulfil/{plain['id']}"
    changed = stage.ask("PUT", path, "", json={"events": ["import.failed"], "is_active": False, "secret": "s" * 20})
    assert "secret" not in changed.json()
    assert (changed.json()["events"], changed.json()["is_active"]) == (["import.failed"], False)
    assert stage.ask("PUT", path, "", json={"is_active": True}).json()["status"] == "active"
    assert stage.ask("PUT", path, "", json={}).json()["detail"][0]["msg"].startswith("nothing to change")
    with Session(stage.engine) as session:
        assert outbox.subscriptions.get(session, plain["id"]).scheme == "fulfil"
    for _ in range(3):
        stage.make("/fulfil", "", "events")
    answer = stage.ask("POST", "/fulfil", "", json={"url": URL, "events": ["product.created"]})
    assert "there are 5 webhooks already" in answer.json()["detail"][0]["msg"]


def test_many_requests_at_once_make_no_more_webhooks_than_one(stage: Stage) -> None:
    stage.forget_what_all_share()

    async def make_many() -> list[int]:
        given = {"url": URL, "events": ["product.created"]}
        asked = (stage.client.post("/fulfil", json=given) for _ in range(20))
        return sorted(answer.status_code for answer in await asyncio.gather(*asked))

    assert stage.portal.call(make_many) == [201] * 5 + [422] * 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "scoped"])
def test_a_request_that_stopped_while_it_added_one_keeps_others_for_a_bounded_time(stage: Stage, kind: str) -> None:
    user = fresh()
    with stage.engine.begin() as stopped:
        hold_tenant(stopped, user)
        answer = stage.ask("POST", f"/{kind}", user, json={"url": URL, "event_types": ["product.created"]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["detail"].startswith("another request of this tenant is adding a subscription; try again")
    stage.make(f"/{kind}", user)


def test_history_counters_statistics_and_retries(stage: Stage) -> None:
    """As a relay leaves them: one delivered, one that waits after two failures, one given up, and one to come."""
    user = fresh()
    hook = stage.make("/plain", user)["id"]
    with stage.engine.begin() as connection:
        events = [seeding.record(connection, f'{{"n":{n}}}', type="product.created", tenant=user) for n in range(4)]
        sent, waiting, dead, due = (seeding.resolve(connection, event, hook)[0] for event in events)
        seeding.attempt(connection, sent, "delivered")
        seeding.attempt(connection, waiting, "retry", error="connection reset")
        seeding.attempt(connection, dead, "dead", error="gave up")
    one = stage.ask("GET", f"/plain/{hook}", user).json()
    assert (one["success_count"], one["failure_count"], one["last_error"]) == (1, 1, "gave up")
    assert one["last_triggered_at"] is not None
    history = stage.ask("GET", f"/plain/{hook}/deliveries", user).json()
    assert [(each["id"], each["status"], each["payload"]) for each in history["items"]] == [
        (dead, "dead", {"n": 2}), (waiting, "retry", {"n": 1}), (sent, "delivered", {"n": 0}),
    ]  # fmt: skip
    entry = history["items"][0]
    assert (entry["event_type"], entry["status_code"], entry["response_time_ms"]) == ("product.created", 500, 12)
    assert (entry["error"], entry["webhook_id"], entry["event_id"]) == ("gave up", hook, events[2])
    for status, expected in (("delivered", [sent]), ("failed", [dead, waiting]), ("pending", [due, waiting])):
        found = stage.ask("GET", f"/plain/{hook}/deliveries?status={status}", user).json()["items"]
        assert [each["id"] for each in found] == expected, status
    page = stage.ask("GET", f"/plain/{hook}/deliveries?limit=1&offset=1", user).json()
    assert ([each["id"] for each in page["items"]], page["has_more"]) == ([waiting], True)
    page = stage.ask("GET", f"/plain/{hook}/deliveries?after={page['next']}", user).json()
    assert [each["id"] for each in page["items"]] == [sent]
    counted = stage.ask("GET", f"/plain/{hook}/stats?over=24h", user).json()
    assert (counted["success_count"], counted["failed_attempts"], counted["success_rate"]) == (1, 2, 1 / 3)
    for wrong in ("over=1", "over=x"):
        assert stage.ask("GET", f"/plain/{hook}/stats?{wrong}", user).status_code == 422
    again = stage.ask("POST", f"/plain/{hook}/deliveries/{waiting}/retry", user)
    assert (again.status_code, again.json()) == (202, {"id": waiting})
    new = stage.ask("POST", f"/plain/{hook}/deliveries/{dead}/retry", user).json()["id"]
    assert new != dead
    refused = stage.ask("POST", f"/plain/{hook}/deliveries/{due}/retry", user)
    assert (refused.status_code, "is due already" in refused.json()["detail"]) == (409, True)
    other = stage.make("/plain", user)["id"]
    assert stage.ask("POST", f"/plain/{other}/deliveries/{due}/retry", user).status_code == 404


@pytest.mark.parametrize(
    "value",
    ["1" * 4301, "1e999", r'"\ud800"', "[" * 300 + "]" * 300, "[" * 1500 + "]" * 1500],
    ids=["long", "huge", "half of a pair", "deep", "deeper"],
)
def test_a_payload_that_python_cannot_write_harms_no_page(stage: Stage, value: str) -> None:
    """It is shown as text; the page was an error 500 for as long as the attempt was on it."""
    user = fresh()
    hook = stage.make("/plain", user)["id"]
    payloads = [f'{{"n":{value}}}', r'{"n":"\u00e9 [[\ud83d\ude00"}']
    with stage.engine.begin() as connection:
        for payload in payloads:
            event = seeding.record(connection, payload, type="product.created", tenant=user)
            seeding.attempt(connection, seeding.resolve(connection, event, hook)[0], "delivered")
    shown = stage.ask("GET", f"/plain/{hook}/deliveries", user).json()["items"]
    assert [each["payload"] for each in shown] == [{"n": "é [[😀"}, payloads[0]]


def test_a_test_without_a_relay_is_a_504_that_says_so(stage: Stage) -> None:
    stage.forget_what_all_share()
    hook = stage.make("/fulfil", "", "events")["id"]
    answer = stage.ask("POST", f"/fulfil/{hook}/test", "", json={"event": "product.created", "payload": {"id": 1}})
    assert answer.status_code == 504
    assert "no relay runs on this database" in answer.json()["detail"]
    with stage.engine.connect() as connection:
        asked = connection.execute(sa.text("select type, payload from outbox.test_requests")).one()
    assert tuple(asked) == ("product.created", '{"id":1}')
    wrong = stage.ask("POST", f"/fulfil/{hook}/test", "", json={"event": "product.sold"})
    assert wrong.json()["detail"][0]["loc"] == ["body", "event"]


def test_too_many_tests_are_a_429(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_messages, "MOST_A_MINUTE", 0)
    user = fresh()
    hook = stage.make("/plain", user)["id"]
    assert stage.ask("POST", f"/plain/{hook}/test", user).status_code == 429


def test_the_description_has_the_shapes_own_names(stage: Stage) -> None:
    described = stage.ask("GET", "/openapi.json", "").json()
    assert "/fulfil/{webhook_id}/logs" in described["paths"]
    assert "/soundhash/events" in described["paths"]
    bodies = described["components"]["schemas"]
    assert {"events", "event_types"} <= {name for body in bodies.values() for name in body.get("properties", {})}


@dataclass(frozen=True)
class Declared:
    """As a catalogue of event types may have them."""

    type: str
    description: str
    group: str = "Orders"


@dataclass(frozen=True)
class Declaring:
    """What holds one."""

    declaration: Declared


ONE = Declared("a.b", "x")


@pytest.mark.parametrize(
    "given",
    [[ONE], {"a.b": ONE}, {"Orders": {"a.b": "x"}}, iter([Declaring(ONE)])],
    ids=["list", "mapping", "groups", "iterator"],
)
def test_event_types_come_as_mappings_or_as_objects(given: object) -> None:
    types = OfferedTypes(given)
    for _ in range(2):
        assert [(one.name, one.description, one.group) for one in types] == [("a.b", "x", "Orders")]


def test_a_catalogue_is_asked_each_time() -> None:
    class Catalogue:
        def __init__(self) -> None:
            self.types: list[Declaring] = []

        def __iter__(self) -> Iterator[Declaring]:
            return iter(self.types)

    types = OfferedTypes(catalogue := Catalogue())
    catalogue.types.append(Declaring(ONE))
    assert types.check("events", ["a.b", "a.b"]) == ["a.b"]
    with pytest.raises(outbox.SubscriptionError, match=r"events: 'a\.c' is no event type; did you mean 'a\.b'"):
        types.check("events", ["a.c"])


@pytest.mark.parametrize("given", [{}, [], None, "a.b", 5, {"a.b": 5}, [None], {"a": {"b": {"c": "d"}}}], ids=repr)
def test_what_describes_no_event_types_is_refused(given: object) -> None:
    with pytest.raises(outbox.ArgumentError, match="event_types: "):
        OfferedTypes(given)


@pytest.mark.parametrize(
    ("given", "owner"),
    [
        (7, Owner("7")),
        ("ann", Owner("ann")),
        (UUID(int=7), Owner(str(UUID(int=7)))),
        (User("ann"), Owner("ann")),
        (("acme", User("ann")), Owner("acme", "ann")),
        (("", 7), Owner("", "7")),
    ],
)
def test_an_owner_is_an_id_a_user_with_one_or_both(given: object, owner: Owner) -> None:
    assert owner_of(given) == owner


@pytest.mark.parametrize(
    "given",
    [None, "", " ", True, 1.5, pytest.param(object(), id="object"), {"id": 7}, "*", ("acme",), ("acme", None),
     ("*", "ann"), ("acme", ""), outbox.EVERY_TENANT, User("a\nb"), b"ann"],
    ids=repr,
)  # fmt: skip
def test_who_is_nobody_in_particular_is_refused(given: object) -> None:
    with pytest.raises(outbox.ArgumentError, match="owner: "):
        owner_of(given)


@pytest.mark.parametrize(
    "given",
    [{"event": "event type"}, {"history_path": "logs"}, {"retry_count": 11}, {"most_retries": 21},
     {"timeout_seconds": 301}, {"most_webhooks": True}, {"event_types_path": "/"}],
    ids=repr,
)  # fmt: skip
def test_a_shape_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(outbox.ArgumentError, match=f"{next(iter(given))}: "):
        Shape(**given)
