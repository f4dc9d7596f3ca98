"""History, dead letters and replays by Python, in whatever session an application has, for its own tenant."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox
from outbox import EVERY_TENANT
from outbox.ids import SubscriptionId
from tests.support import seeding
from tests.support.page_turning import all_pages

FACES = {
    "outbox.deliveries": outbox.deliveries,
    "outbox.events": outbox.events,
    "outbox.dead_letters": outbox.dead_letters,
    "outbox.replays": outbox.replays,
}
FUNCTIONS = {
    f"{name}.{each}": getattr(module, each)
    for name, module in FACES.items()
    for each in module.__all__
    if inspect.isfunction(getattr(module, each))
}
SYNCHRONOUS = ("connection", "session", "scoped session", "psycopg2 session")
ASYNCHRONOUS = ("psycopg", "asyncpg")


class World:
    """What acme has: an event delivered to one, waiting for another, dead for a third; globex has nothing."""

    def __init__(self, connection: Connection) -> None:
        names = [seeding.subscribe(connection, tenant="acme") for _ in range(3)]
        self.event = seeding.record(connection, '{"n": 1}', key="k", tenant="acme")
        self.delivered, self.waiting, self.dead = seeding.resolve(connection, self.event, *names)
        for delivery, verdict in ((self.delivered, "delivered"), (self.waiting, "retry"), (self.dead, "dead")):
            seeding.attempt(connection, delivery, verdict, error=None if verdict == "delivered" else "answered 500")
        self.subscription = names[0]
        connection.commit()


@pytest.fixture
def world(engine: sqlalchemy.Engine) -> World:
    with engine.connect() as connection:
        return World(connection)


@pytest.fixture(params=[*SYNCHRONOUS, *ASYNCHRONOUS])
def ask(request, engine: sqlalchemy.Engine) -> Callable[..., Any]:
    """Call a function as an application with such a session would, and commit."""

    def plainly(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        url = engine.url.set(drivername="postgresql+psycopg2") if request.param.startswith("psycopg2") else engine.url
        own = sqlalchemy.create_engine(url)
        targets: dict[str, Callable[[], Any]] = {
            "connection": own.connect,
            "scoped session": lambda: scoped_session(sessionmaker(own)),
        }
        target = targets.get(request.param, lambda: Session(own))()
        try:
            found = function(target, *arguments, **named)
            target.commit()
        finally:
            target.close()
            own.dispose()
        return found

    def from_async_code(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        async def program() -> Any:
            own = create_async_engine(engine.url.set(drivername=f"postgresql+{request.param}"))
            try:
                async with AsyncSession(own) as session:
                    found = await session.run_sync(function, *arguments, **named)
                    await session.commit()
                    return found
            finally:
                await own.dispose()

        return asyncio.run(program())

    return from_async_code if request.param in ASYNCHRONOUS else plainly


def test_what_became_of_an_event_is_read_in_every_session(ask, world: World) -> None:
    (event,) = ask(outbox.events.list, tenant="acme", since=timedelta(hours=1), type="order.*", key="k", text='"n"')
    assert (str(event.id), event.state, event.delivered, event.outstanding, event.dead) == (
        world.event,
        "dead",
        1,
        1,
        1,
    )
    assert ask(outbox.events.get, world.event, tenant="acme").payload == '{"n": 1}'
    (waiting,) = ask(outbox.deliveries.list, tenant="acme", event=world.event)
    assert (str(waiting.id), waiting.state) == (world.waiting, "waiting")
    (done,) = ask(outbox.deliveries.list, tenant="acme", state="delivered", subscription=world.subscription)
    assert (str(done.id), done.key) == (world.delivered, "k")
    assert ask(outbox.deliveries.get, world.dead, tenant="acme").reason == "http_5xx"
    attempts = ask(outbox.deliveries.attempts, tenant="acme", until=event.recorded_at + timedelta(hours=1))
    assert [attempt.status for attempt in attempts] == [500, 500, 204]
    failed = ask(outbox.deliveries.attempts, tenant="acme", outcome="failed", status="5xx", text="answered")
    assert {str(attempt.delivery_id) for attempt in failed} == {world.waiting, world.dead}
    assert isinstance(failed.items[0].at, datetime)
    (dead,) = ask(outbox.dead_letters.list, tenant="acme", subscription=None)
    assert ask(outbox.dead_letters.get, str(dead.id), tenant="acme").payload == '{"n": 1}'


def test_pages_are_turned_in_every_session(ask, world: World, engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        names = [seeding.record(connection, tenant="acme") for _ in range(5)]
        parked = [name for event in names for name in seeding.resolve(connection, event, world.subscription)]
        connection.execute(text("update outbox.deliveries set due_at = 'infinity' where due_at <= clock_timestamp()"))
    turned = all_pages(lambda after: ask(outbox.events.list, tenant="acme", limit=2, after=after))
    assert [str(item.id) for item in turned] == [*names[::-1], world.event]
    outstanding = list(all_pages(lambda after: ask(outbox.deliveries.list, tenant="acme", limit=2, after=after)))
    assert [str(item.id) for item in outstanding] == [world.waiting, *sorted(parked)]
    assert [item.at for item in outstanding[1:]] == [None] * 5
    attempts = all_pages(lambda after: ask(outbox.deliveries.attempts, tenant="acme", limit=1, after=after))
    assert len(list(attempts)) == 3


def test_a_delivery_is_retried_cancelled_replayed_and_purged_in_every_session(
    ask, world: World, engine: sqlalchemy.Engine
) -> None:
    assert [str(name) for name in ask(outbox.deliveries.retry, world.waiting, tenant="acme").deliveries] == [
        world.waiting
    ]
    assert ask(outbox.deliveries.list, tenant="acme").items[0].state == "due"
    cancelled = ask(outbox.deliveries.cancel, [world.waiting], tenant="acme")
    assert [str(name) for name in cancelled.subscriptions] != [world.subscription]
    assert [str(item.id) for item in ask(outbox.deliveries.list, tenant="acme", state="cancelled")] == [world.waiting]
    replayed = ask(outbox.replays.replay, world.delivered, tenant="acme")
    assert (replayed.count, replayed.more, replayed.matching) == (1, False, None)
    assert ask(outbox.deliveries.get, replayed.deliveries[0], tenant="acme").state == "due"
    asked = ask(outbox.replays.replay_matching, tenant="acme", since=timedelta(hours=1), dry_run=True)
    assert (asked.count, asked.deliveries) == (1, ())
    made = ask(outbox.replays.replay_matching, tenant="acme", since=timedelta(hours=1))
    assert (made.count, len(made.deliveries)) == (1, 1)
    assert ask(outbox.dead_letters.list, tenant="acme").items == ()
    with engine.begin() as connection:
        (again,) = seeding.resolve(connection, world.event, world.subscription)
        seeding.attempt(connection, again, "dead")
    assert ask(outbox.dead_letters.purge, [again], tenant="acme") == 1


@pytest.mark.field("F74")
def test_a_replay_by_filter_says_that_more_match_than_its_limit(engine: sqlalchemy.Engine) -> None:
    with Session(engine) as session:
        connection = session.connection()
        subscription = seeding.subscribe(connection)
        for _ in range(5):
            (delivery,) = seeding.resolve(connection, seeding.record(connection), subscription)
            seeding.attempt(connection, delivery, "dead")
        asked = {"subscription": subscription, "limit": 2}
        planned = outbox.replays.replay_matching(session, dry_run=True, **asked)
        assert (planned.count, planned.more) == (2, True)
        assert planned.matching == outbox.replays.Matching(count=5, exact=True)
        turns = [outbox.replays.replay_matching(session, **asked) for _ in range(3)]
        assert [(turn.count, turn.more) for turn in turns] == [(2, True), (2, True), (1, False)]
        assert [turn.matching and turn.matching.count for turn in turns] == [5, 3, 1]


@pytest.fixture
def session(engine: sqlalchemy.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_another_tenant_sees_and_changes_nothing(session: Session, world: World, name: str) -> None:
    """Tenant '' too, who is meant where none is named; the operator names all of them."""
    arguments: dict[str, dict[str, Any]] = {
        "outbox.deliveries.get": {"delivery_id": world.delivered},
        "outbox.deliveries.retry": {"delivery_ids": world.waiting},
        "outbox.deliveries.cancel": {"delivery_ids": world.waiting},
        "outbox.events.get": {"event_id": world.event},
        "outbox.events.explain": {"event_id": world.event},
        "outbox.events.payloads": {"event_ids": [world.event]},
        "outbox.dead_letters.get": {"delivery_id": world.dead},
        "outbox.dead_letters.purge": {"delivery_ids": world.dead},
        "outbox.replays.replay": {"names": world.dead},
        "outbox.replays.replay_matching": {"since": timedelta(hours=1)},
    }
    given = arguments.get(name, {})
    for tenant in ({}, {"tenant": "globex"}):
        if name.endswith((".list", ".attempts")):
            assert FUNCTIONS[name](session, **given, **tenant).items == ()
        elif name.endswith("matching"):
            assert FUNCTIONS[name](session, **given, **tenant).count == 0
        elif name.endswith("payloads"):
            assert FUNCTIONS[name](session, **given, **tenant) == []
        else:
            with pytest.raises(outbox.NotFoundError):
                FUNCTIONS[name](session, **given, **tenant)
    found = FUNCTIONS[name](session, **given, tenant=EVERY_TENANT)
    assert found
    assert getattr(found, "items", True)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_takes_the_callers_connection_and_the_tenant_by_name(name: str) -> None:
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    assert (parameters[0].name, parameters[0].annotation) == ("connection", "Session | Connection")
    tenants = [each for each in parameters if each.name == "tenant"]
    assert [(each.kind, each.default) for each in tenants] == [(inspect.Parameter.KEYWORD_ONLY, "")]
    assert "Raises" in (inspect.getdoc(FUNCTIONS[name]) or "")


def test_what_is_wrong_is_said_by_name(session: Session, engine: sqlalchemy.Engine) -> None:
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"since": "yesterday"}, outbox.FilterError, "since: must be a datetime or a timedelta, not 'yesterday'"),
        (
            {"since": datetime(2026, 1, 1)},  # noqa: DTZ001
            outbox.FilterError,
            "since: a datetime without time zone",
        ),
        ({"limit": "50"}, outbox.FilterError, "limit: '50' is not a number from 1 to 10000"),
        ({"type": 7}, outbox.FilterError, "type: must be a str, not 7"),
        ({"after": "x"}, outbox.FilterError, "after: is no cursor of this list"),
        ({"tenant": None}, outbox.SubscriptionError, "tenant: None is nobody"),
    ]
    for given, kind, why in refused:
        with pytest.raises(kind) as raised:
            outbox.events.list(session, **given)
        assert str(raised.value).startswith(why)
    with pytest.raises(outbox.ArgumentError, match="pass a SQLAlchemy Session or Connection"):
        outbox.events.list(engine)
    with pytest.raises(outbox.NotFoundError, match="is not an id of the form dlv_"):
        outbox.deliveries.get(session, "x")


def test_a_sessions_changes_are_the_callers_to_commit(session: Session, world: World) -> None:
    outbox.deliveries.cancel(session, world.waiting, tenant="acme")
    session.rollback()
    assert [str(item.id) for item in outbox.deliveries.list(session, tenant="acme")] == [world.waiting]


def test_an_id_may_be_a_uuid(session: Session, world: World) -> None:
    uuid = SubscriptionId.of(world.subscription)
    assert len(outbox.deliveries.attempts(session, tenant="acme", subscription=uuid)) == 1
