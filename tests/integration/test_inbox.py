"""The inbox: each message once, in the receiver's own transaction; every request leaves a row, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox
import outbox.inbox
from outbox.inbox import Refused, Request, refusals
from outbox.inbox import receiving as inside
from outbox.signing.verify import new_secret
from relay.operations.erase import erasure
from relay.operations.erase.request import EraseRequest, plan_erasure
from tests.support import databases

SECRET = new_secret()
BODY = b'{"type":"demo.approved","timestamp":"2026-11-21T10:00:00Z","data":{"demo":7}}'
EFFECTS = sa.text("select count(*) from effect")


@pytest.fixture(scope="module")
def url(server_url: str, migrated_template: str) -> Iterator[str]:
    """One database for all of these tests, each with a source of its own."""
    with databases.database(server_url, template=migrated_template) as url:
        with psycopg.connect(url) as connection:
            connection.execute("create table effect (source text, message text)")
        yield url


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[sa.Engine]:
    with databases.engine_on(url) as engine:
        yield engine


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    """A name that no other test has."""
    return f"s{abs(hash(request.node.nodeid))}"


@pytest.fixture(autouse=True)
def _unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "refusals_kept", refusals.Bound())


def signed(message_id: str = "evt_1", body: bytes = BODY, secret: str = SECRET, **options: Any) -> Request:
    return Request("POST", "/hooks", outbox.signed_headers(secret, message_id, body, **options), body)


def rows(engine: sa.Engine, source: str) -> list[Any]:
    """What the inbox keeps of a source, the oldest first."""
    with engine.connect() as connection:
        page = outbox.inbox.messages(connection, tenant=outbox.EVERY_TENANT, source=source)
        return list(reversed(page.items))


def outcomes(engine: sa.Engine, source: str) -> list[tuple[str, int | None]]:
    return [(row.outcome, row.status) for row in rows(engine, source)]


def effects(engine: sa.Engine, source: str) -> list[str]:
    with engine.connect() as connection:
        found = connection.execute(sa.text("select message from effect where source = :s"), {"s": source})
        return list(found.scalars())


def ids(engine: sa.Engine, source: str) -> list[str]:
    with engine.connect() as connection:
        found = connection.execute(sa.text("select message_id from outbox.inbox_ids where source = :s"), {"s": source})
        return list(found.scalars())


def act_on(connection: Any, message: outbox.inbox.Received) -> None:
    """The application: a row of its own, and its next event."""
    message.entity = "demo:7"
    statement, values = "insert into effect values (:s, :m)", {"s": message.source, "m": message.id}
    if isinstance(connection, psycopg.Connection):
        connection.execute("insert into effect values (%(s)s, %(m)s)", values)
    else:
        connection.execute(sa.text(statement), values)
    outbox.record(connection, "video.wanted", {"demo": message.json()["data"]["demo"]}, key=message.source)


def next_events(engine: sa.Engine, source: str) -> int:
    with engine.connect() as connection:
        count = sa.text("select count(*) from outbox.events where key = :s")
        return int(connection.execute(count, {"s": source}).scalar_one())


def carriers(engine: sa.Engine, url: str) -> dict[str, Callable[[], Any]]:
    return {
        "Session": lambda: Session(engine),
        "scoped session": lambda: scoped_session(sessionmaker(engine)),
        "Connection": engine.connect,
        "psycopg": lambda: psycopg.connect(url),
    }


@pytest.mark.parametrize("carrier", ["Session", "scoped session", "Connection", "psycopg"])
def test_a_message_is_acted_upon_once_with_its_id_its_row_and_the_next_event(
    engine: sa.Engine, url: str, source: str, carrier: str
) -> None:
    target = carriers(engine, url)[carrier]()
    try:
        answers = [
            outbox.inbox.process(target, signed(), SECRET, lambda message: act_on(target, message), source=source)
            for _ in range(3)
        ]
    finally:
        target.close()
    assert [(answer.status, answer.outcome) for answer in answers] == [(200, "accepted"), *[(200, "duplicate")] * 2]
    assert (effects(engine, source), ids(engine, source), next_events(engine, source)) == (["evt_1"], ["evt_1"], 1)
    first, second, _ = rows(engine, source)
    assert (first.outcome, first.entity, first.size, first.message_id) == ("accepted", "demo:7", len(BODY), "evt_1")
    assert first.milliseconds is not None
    assert (second.outcome, second.entity) == ("duplicate", None)


@pytest.mark.parametrize("carrier", ["Session", "scoped session", "Connection", "psycopg"])
def test_what_raises_leaves_nothing_but_its_row_and_the_retry_is_processed(
    engine: sa.Engine, url: str, source: str, carrier: str
) -> None:
    target = carriers(engine, url)[carrier]()

    def fail(message: outbox.inbox.Received) -> None:
        act_on(target, message)
        raise RuntimeError("the lead is gone\nwith its rows")

    try:
        with pytest.raises(RuntimeError, match="the lead is gone"):
            outbox.inbox.process(target, signed(), SECRET, fail, source=source)
        assert (effects(engine, source), ids(engine, source), next_events(engine, source)) == ([], [], 0)
        (row,) = rows(engine, source)
        found = (row.outcome, row.status, row.reason, row.error, row.entity)
        assert found == ("failed", 500, "RuntimeError", "the lead is gone", "demo:7")
        outbox.inbox.process(target, signed(), SECRET, lambda message: act_on(target, message), source=source)
    finally:
        target.close()
    assert effects(engine, source) == ["evt_1"]


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (signed(secret=new_secret()), 401, "signature"),
        (signed(timestamp=1_000_000_000), 401, "signature"),
        (Request("POST", "/hooks", {}, BODY), 401, "signature"),
        (Request("POST", "/hooks", {}, b"", too_large=True, size=2_000_000), 413, "too_large"),
    ],
)
def test_a_refused_request_is_answered_and_leaves_its_row(
    engine: sa.Engine, session: Session, source: str, request_: Request, status: int, reason: str
) -> None:
    answer = outbox.inbox.process(session, request_, SECRET, pytest.fail, source=source)
    assert (answer.status, answer.outcome, answer.message) == (status, "refused", None)
    (row,) = rows(engine, source)
    assert (row.outcome, row.status, row.reason, row.message_id) == ("refused", status, reason, None)
    assert ids(engine, source) == []
    assert outbox.inbox.get(session, row.id).body is None


@pytest.mark.parametrize("carrier", ["Session", "Connection", "psycopg"])
def test_a_refused_row_stays_although_the_callers_transaction_rolls_back(
    engine: sa.Engine, url: str, source: str, carrier: str
) -> None:
    target = carriers(engine, url)[carrier]()
    try:
        target.execute(sa.text("select 1") if carrier != "psycopg" else "select 1")
        with pytest.raises(Refused) as refused:
            outbox.inbox.receive(target, signed(secret=new_secret()), SECRET, source=source)
        target.rollback()
    finally:
        target.close()
    assert refused.value.status == 401
    assert outcomes(engine, source) == [("refused", 401)]


def test_refusals_are_bounded_and_counted(
    engine: sa.Engine, session: Session, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(inside, "refusals_kept", refusals.Bound(lambda: now))
    for _ in range(refusals.BURST + 7):
        outbox.inbox.process(session, signed(secret=new_secret()), SECRET, pytest.fail, source=source)
    assert len(rows(engine, source)) == refusals.BURST
    now += refusals.ROW_EVERY_SECONDS
    outbox.inbox.process(session, signed(secret=new_secret()), SECRET, pytest.fail, source=source)
    assert rows(engine, source)[-1].unrecorded == 7


def test_rows_of_copies_are_bounded_and_each_is_answered(engine: sa.Engine, session: Session, source: str) -> None:
    """Whoever has recorded one request may repeat it for ever."""

    def handle(message: outbox.inbox.Received) -> None:
        act_on(session, message)

    answers = [outbox.inbox.process(session, signed(), SECRET, handle, source=source) for _ in range(24)]
    assert {(answer.status, answer.outcome) for answer in answers[1:]} == {(200, "duplicate")}
    assert outcomes(engine, source) == [("accepted", 200), *[("duplicate", 200)] * 20]
    assert effects(engine, source) == ["evt_1"]


def test_an_answer_does_not_wait_for_a_row_that_cannot_be_written(source: str) -> None:
    broken = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with Session(broken) as session:
        answer = outbox.inbox.process(session, signed(secret=new_secret()), SECRET, pytest.fail, source=source)
    assert answer.status == 401


def test_an_application_refuses_what_it_will_never_take(engine: sa.Engine, session: Session, source: str) -> None:
    def refuse(message: outbox.inbox.Received) -> None:
        act_on(session, message)
        raise Refused("no such demo", status=422)

    answer = outbox.inbox.process(session, signed(), SECRET, refuse, source=source)
    assert (answer.status, answer.outcome) == (422, "refused")
    (row,) = rows(engine, source)
    assert (row.outcome, row.status, row.reason, row.error) == ("refused", 422, "application", "no such demo")
    assert (effects(engine, source), ids(engine, source)) == ([], [])


@pytest.mark.parametrize("target", ["session", "connection", "psycopg", "asyncio"])
@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_a_function_that_ends_the_transaction_loses_no_message(
    engine: sa.Engine, url: str, source: str, target: str, end: str
) -> None:
    insert = f"insert into effect values ('{source}', 'half')"
    arguments: Any = (signed(), SECRET)

    def act(on: Any, execute: Callable[[str], Any]) -> None:
        execute(insert)
        getattr(on, end)()

    async def on_asyncio() -> None:
        async_engine = create_async_engine(engine.url)
        try:
            async with AsyncSession(async_engine) as session:

                async def handle(_message: object) -> None:
                    await session.execute(sa.text(insert))
                    await getattr(session, end)()

                await outbox.inbox.aprocess(session, *arguments, handle, source=source)
        finally:
            await async_engine.dispose()

    def on_plain() -> None:
        with psycopg.connect(url) as raw, Session(engine) as session, engine.connect() as connection:
            on: Any = {"psycopg": raw, "session": session, "connection": connection}[target]
            run = raw.execute if on is raw else lambda text: on.execute(sa.text(text))
            outbox.inbox.process(on, *arguments, lambda _: act(on, run), source=source)

    with pytest.raises((outbox.TransactionError, psycopg.Error, sa.exc.InvalidRequestError)):
        asyncio.run(on_asyncio()) if target == "asyncio" else on_plain()
    assert ids(engine, source) == []
    assert "accepted" not in [outcome for outcome, _ in outcomes(engine, source)]
    with Session(engine) as session:
        assert session.scalar(sa.text("select count(*) from effect where source = :source"), {"source": source}) == 0

        def in_a_savepoint(_message: object) -> None:
            with session.begin_nested():
                session.execute(sa.text(insert))

        again = outbox.inbox.process(session, *arguments, in_a_savepoint, source=source)
    assert (again.status, again.outcome) == (200, "accepted")


@pytest.mark.parametrize("then", ["raises", "returns", "hides it"])
def test_a_commit_of_the_sessions_connection_loses_no_message(
    engine: sa.Engine, session: Session, source: str, then: str
) -> None:
    """The message's id is not stored without the rest, and the sender's next copy is processed."""

    def half(message: outbox.inbox.Received) -> None:
        session.execute(sa.text("insert into effect values (:s, 'half')"), {"s": source})
        with contextlib.suppress(outbox.TransactionError if then == "hides it" else ()):
            session.connection().commit()
        if then == "raises":
            raise RuntimeError("later")

    with pytest.raises(outbox.TransactionError, match=r"^session: "):
        outbox.inbox.process(session, signed(), SECRET, half, source=source)
    assert (effects(engine, source), ids(engine, source), next_events(engine, source)) == ([], [], 0)
    assert outcomes(engine, source) == [("failed", 500)]
    again = outbox.inbox.process(session, signed(), SECRET, lambda message: act_on(session, message), source=source)
    assert (again.outcome, effects(engine, source), next_events(engine, source)) == ("accepted", ["evt_1"], 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_asynchronous_end_of_the_sessions_connection_loses_no_message(
    engine: sa.Engine, url: str, source: str, driver: str, end: str
) -> None:
    async def run() -> str:
        made = create_async_engine(sa.make_url(url).set(drivername=f"postgresql+{driver}"))
        async with AsyncSession(made) as session:

            async def half(message: outbox.inbox.Received) -> None:
                await session.execute(sa.text("insert into effect values (:s, 'half')"), {"s": source})
                await getattr(await session.connection(), end)()

            with pytest.raises(outbox.TransactionError, match=r"^session: "):
                await outbox.inbox.aprocess(session, signed(), SECRET, half, source=source)
            assert (effects(engine, source), ids(engine, source)) == ([], [])

            async def act(message: outbox.inbox.Received) -> None:
                await session.run_sync(act_on, message)

            again = await outbox.inbox.aprocess(session, signed(), SECRET, act, source=source)
        await made.dispose()
        return again.outcome

    assert asyncio.run(run()) == "accepted"
    assert (effects(engine, source), next_events(engine, source)) == (["evt_1"], 1)


def test_a_body_that_is_no_json_is_refused(engine: sa.Engine, session: Session, source: str) -> None:
    request = signed(body=b"{")
    answer = outbox.inbox.process(session, request, SECRET, lambda message: message.json(), source=source)
    assert (answer.status, answer.outcome) == (400, "refused")
    assert [row.reason for row in rows(engine, source)] == ["body"]


def test_what_is_committed_is_answered_2xx(engine: sa.Engine, session: Session, source: str) -> None:
    def act(message: outbox.inbox.Received) -> None:
        act_on(session, message)
        message.status = 500

    with pytest.raises(outbox.ArgumentError, match="it is answered 2xx"):
        outbox.inbox.process(session, signed(), SECRET, act, source=source)
    assert effects(engine, source) == []


def test_an_asynchronous_function_is_not_taken_for_one_that_acted(
    engine: sa.Engine, session: Session, source: str
) -> None:
    async def act(_: outbox.inbox.Received) -> None: ...

    with pytest.raises(outbox.ArgumentError, match="aprocess"):
        outbox.inbox.process(session, signed(), SECRET, act, source=source)
    assert ids(engine, source) == []


def test_an_error_of_the_application_keeps_its_traceback_and_shows_no_secret(session: Session, source: str) -> None:
    def fail(_: outbox.inbox.Received) -> None:
        raise KeyError("lead")

    with pytest.raises(KeyError) as raised:
        outbox.inbox.process(session, signed(), SECRET, fail, source=source)
    frames = list(traceback.walk_tb(raised.value.__traceback__))
    assert frames[-1][0].f_code.co_name == "fail"
    ours = [frame for frame, _ in frames if "outbox/inbox" in frame.f_code.co_filename]
    assert ours
    assert all(SECRET not in repr(value) for frame in ours for value in frame.f_locals.values())


def test_the_first_step_alone_shares_the_callers_transaction(engine: sa.Engine, session: Session, source: str) -> None:
    message = outbox.inbox.receive(session, signed(), SECRET, source=source)
    assert (message.duplicate, message.json()["data"]) == (False, {"demo": 7})
    session.rollback()
    assert (ids(engine, source), rows(engine, source)) == ([], [])
    message = outbox.inbox.receive(session, signed(), SECRET, source=source)
    act_on(session, message)
    message.answered(202)
    session.commit()
    assert outbox.inbox.receive(session, signed(), SECRET, source=source).duplicate
    session.rollback()
    assert outcomes(engine, source) == [("accepted", 202)]


def test_a_block_is_committed_at_its_end(engine: sa.Engine, session: Session, source: str) -> None:
    for _ in range(2):
        with outbox.inbox.processing(session, signed(), SECRET, source=source) as message:
            if not message.duplicate:
                act_on(session, message)
                message.status = 201
    assert outcomes(engine, source) == [("accepted", 201), ("duplicate", 200)]
    assert effects(engine, source) == ["evt_1"]


def test_of_two_copies_at_once_the_second_waits_and_is_told_a_duplicate(engine: sa.Engine, source: str) -> None:
    answers: list[outbox.inbox.Answer] = []

    def second() -> None:
        with Session(engine) as session:
            answers.append(outbox.inbox.process(session, signed(), SECRET, pytest.fail, source=source))

    with Session(engine) as session:
        act_on(session, outbox.inbox.receive(session, signed(), SECRET, source=source))
        other = threading.Thread(target=second)
        other.start()
        wait_for_a_lock(engine)
        session.commit()
        other.join()
    assert [answer.outcome for answer in answers] == ["duplicate"]
    assert effects(engine, source) == ["evt_1"]


def test_of_two_copies_at_once_the_second_is_processed_where_the_first_rolls_back(
    engine: sa.Engine, source: str
) -> None:
    def second() -> None:
        with Session(engine) as session:
            outbox.inbox.process(session, signed(), SECRET, lambda m: act_on(session, m), source=source)

    with Session(engine) as session:
        outbox.inbox.receive(session, signed(), SECRET, source=source)
        other = threading.Thread(target=second)
        other.start()
        wait_for_a_lock(engine)
        session.rollback()
        other.join()
    assert effects(engine, source) == ["evt_1"]
    assert outcomes(engine, source) == [("accepted", 200)]


def wait_for_a_lock(engine: sa.Engine) -> None:
    waiting = sa.text("select count(*) from pg_stat_activity where datname = current_database()"
                      " and wait_event_type = 'Lock'")  # fmt: skip
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(waiting).scalar_one():
            pass


def test_a_transaction_that_does_not_end_makes_its_copies_busy(engine: sa.Engine, source: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("alter function outbox.inbox_receive(jsonb, bytea) set lock_timeout = '100ms'"))
    with Session(engine) as first, Session(engine) as second:
        outbox.inbox.receive(first, signed(), SECRET, source=source)
        answer = outbox.inbox.process(second, signed(), SECRET, pytest.fail, source=source)
        assert (answer.status, answer.outcome) == (503, "refused")
        first.commit()
    assert [row.reason for row in rows(engine, source)] == [None, "busy"]
    with engine.begin() as connection:
        connection.execute(sa.text("alter function outbox.inbox_receive(jsonb, bytea) set lock_timeout = '5s'"))


def test_serializable_transactions_fail_and_are_told_a_duplicate_the_next_time(engine: sa.Engine, source: str) -> None:
    strict = engine.execution_options(isolation_level="SERIALIZABLE")
    with Session(engine) as first, Session(strict) as second:
        second.execute(sa.text("select count(*) from effect"))
        outbox.inbox.process(first, signed(), SECRET, lambda m: act_on(first, m), source=source)
        with pytest.raises(sa.exc.OperationalError):
            outbox.inbox.process(second, signed(), SECRET, pytest.fail, source=source)
        assert outbox.inbox.process(second, signed(), SECRET, pytest.fail, source=source).outcome == "duplicate"


def test_asynchronous_code_is_the_same(engine: sa.Engine, url: str, source: str) -> None:
    async def run() -> list[str]:
        made = create_async_engine(sa.make_url(url).set(drivername="postgresql+asyncpg"))
        found = []
        async with AsyncSession(made) as session:

            async def act(message: outbox.inbox.Received) -> None:
                await session.run_sync(act_on, message)

            async def fail(message: outbox.inbox.Received) -> None:
                await act(message)
                raise RuntimeError("no")

            with pytest.raises(RuntimeError):
                await outbox.inbox.aprocess(session, signed(), SECRET, fail, source=source)
            for one in (signed(), signed(), signed(secret=new_secret())):
                answer = await outbox.inbox.aprocess(session, one, SECRET, act, source=source)
                found.append(answer.outcome)
            message = await outbox.inbox.areceive(session, signed("evt_2"), SECRET, source=source)
            assert not message.duplicate
            await session.rollback()
        await made.dispose()
        return found

    assert asyncio.run(run()) == ["accepted", "duplicate", "refused"]
    assert (effects(engine, source), next_events(engine, source)) == (["evt_1"], 1)
    assert outcomes(engine, source) == [("failed", 500), ("accepted", 200), ("duplicate", 200), ("refused", 401)]


LEADS = "0123456789abcdef"


def test_a_scheme_that_signs_no_id_is_known_by_its_body(engine: sa.Engine, session: Session, source: str) -> None:
    """Its next attempt has another time and another id header, which anybody could have written."""
    for name in ("one", "two"):
        request = signed(name, secret=LEADS, scheme="leads")
        outbox.inbox.process(session, request, LEADS, lambda m: act_on(session, m), source=source, scheme="leads")
    assert [outcome for outcome, _ in outcomes(engine, source)] == ["accepted", "duplicate"]
    assert ids(engine, source)[0].startswith("sha256:")


@pytest.mark.parametrize("how", ["X-GitHub-Delivery", lambda request: request.header("x-github-delivery") or ""])
def test_an_id_by_header_or_function(engine: sa.Engine, session: Session, source: str, how: Any) -> None:
    def receive(name: str, *more: tuple[str, str]) -> outbox.inbox.Answer:
        headers = outbox.signed_headers(LEADS, name or "x", BODY, scheme="github")
        if not name:
            del headers["X-GitHub-Delivery"]
        request = Request("POST", "/", (*headers.items(), *more), BODY)
        return outbox.inbox.process(session, request, LEADS, lambda _: None, source=source, scheme="github", id=how)

    assert [receive(one).outcome for one in "aba"] == ["accepted", "accepted", "duplicate"]
    for answer in (receive(""), receive("c", ("x-github-delivery", "d"))):
        assert (answer.status, answer.outcome) == (400, "refused")
    assert sorted(ids(engine, source)) == ["a", "b"]


def test_several_secrets_and_a_tolerance(engine: sa.Engine, session: Session, source: str) -> None:
    options: dict[str, Any] = {"source": source, "tolerance_seconds": 10, "now": 1_000_000_000}
    for second, outcome in ((9, "accepted"), (11, "refused")):
        request = signed(f"evt_{second}", timestamp=1_000_000_000 - second)
        answer = outbox.inbox.process(session, request, [new_secret(), SECRET], lambda _: None, **options)
        assert answer.outcome == outcome


def test_ids_are_each_sources_and_each_tenants_own(engine: sa.Engine, session: Session, source: str) -> None:
    for tenant, name in (("", source), ("acme", source), ("acme", f"{source}x")):
        answer = outbox.inbox.process(session, signed(), SECRET, lambda _: None, source=name, tenant=tenant)
        assert answer.outcome == "accepted"
    assert [row.tenant for row in outbox.inbox.messages(session, tenant="acme", source=source)] == ["acme"]


def test_no_secret_and_no_signature_is_kept(session: Session, source: str) -> None:
    headers = [*signed().headers, ("Authorization", "Bearer canary"), ("Cookie", "canary"), ("User-Agent", "n8n")]
    request = Request("POST", "/hooks/0123456789abcdef0123456789abcdef?token=canary", tuple(headers), BODY)
    answer = outbox.inbox.process(session, request, SECRET, lambda _: None, source=source)
    assert answer.message is not None
    kept = outbox.inbox.get(session, answer.message.record_id)
    assert (kept.path, kept.method, kept.body, kept.whole) == ("/hooks/***", "POST", BODY.decode(), True)
    assert {name for name, _ in kept.headers} == {"webhook-id", "webhook-timestamp", "user-agent"}
    assert "canary" not in str(kept)


@pytest.mark.parametrize(("keep", "body"), [(0, None), (4, '{"ty')])
def test_so_much_of_a_body_is_kept_as_was_chosen(session: Session, source: str, keep: int, body: str | None) -> None:
    answer = outbox.inbox.process(session, signed(), SECRET, lambda _: None, source=source, keep_bytes=keep)
    assert answer.message is not None
    kept = outbox.inbox.get(session, answer.message.record_id)
    assert (kept.body, kept.whole, kept.size) == (body, False, len(BODY))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"source": "n 8n"}, "source: must be one word"),
        ({"scheme": "no"}, "scheme: choose one of"),
        ({"tolerance_seconds": -1}, "tolerance_seconds: must be"),
        ({"keep_bytes": -1}, "keep_bytes: must be"),
        ({"tenant": 7}, "tenant: must be a str"),
        ({"id": 7}, "id: must be the name of a header"),
        ({"secrets": "short"}, "secret"),
        ({"request": {"a": 1}}, "request: not"),
        ({"handle": None}, "handle: pass a function"),
        ({"session": object()}, "session: not a builtins.object"),
        ({"typo": 1}, "typo: there is no such argument"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_written(
    engine: sa.Engine, session: Session, source: str, changed: dict[str, Any], why: str
) -> None:
    """A secret that cannot be used shows with a forged request too: else each would be answered 401."""
    for request in (signed(), Request("POST", "/", {}, b"")):
        named: dict[str, Any] = {
            "session": session, "request": request, "secrets": SECRET, "handle": pytest.fail, "source": source
        }  # fmt: skip
        with pytest.raises(outbox.ArgumentError, match=why):
            outbox.inbox.process(**named | changed)
    assert rows(engine, source) == []


def test_what_needs_another_call_is_named(url: str) -> None:
    made = create_async_engine(sa.make_url(url).set(drivername="postgresql+asyncpg"))
    with pytest.raises(outbox.ArgumentError, match="aprocess"):
        outbox.inbox.process(AsyncSession(made), signed(), SECRET, pytest.fail, source="n8n")  # type: ignore[arg-type]


def test_a_list_has_filters_pages_and_refuses_what_it_does_not_know(session: Session, source: str) -> None:
    for number in range(3):
        outbox.inbox.process(session, signed(f"evt_{number}"), SECRET, lambda _: None, source=source)
    first = outbox.inbox.messages(session, source=source, limit=2)
    second = outbox.inbox.messages(session, source=source, limit=2, after=first.next)
    assert [row.message_id for row in (*first, *second)] == ["evt_2", "evt_1", "evt_0"]
    assert [row.message_id for row in outbox.inbox.messages(session, source=source, message="evt_1")] == ["evt_1"]
    assert len(outbox.inbox.messages(session, source=source, outcome="accepted", since=timedelta(hours=1))) == 3
    assert len(outbox.inbox.messages(session, source=source, until=timedelta(hours=1))) == 0
    with pytest.raises(outbox.FilterError, match="outcome"):
        outbox.inbox.messages(session, outcome="lost")  # type: ignore[arg-type]


def test_a_forgotten_id_is_processed_again_and_the_audit_knows(
    engine: sa.Engine, session: Session, source: str
) -> None:
    for _ in range(2):
        answer = outbox.inbox.process(session, signed(), SECRET, lambda m: act_on(session, m), source=source)
        assert answer.message is not None
        if not answer.message.duplicate:
            assert outbox.inbox.get(session, answer.message.record_id).known
            assert outbox.inbox.forget(session, answer.message.record_id)
            assert not outbox.inbox.forget(session, answer.message.record_id)
            session.commit()
    assert effects(engine, source) == ["evt_1", "evt_1"]
    noted = session.execute(sa.text("select action, subject from outbox.audit where details ->> 'source' = :s"),
                            {"s": source}).all()  # fmt: skip
    assert sorted(tuple(row) for row in noted) == sorted(("replayed", str(row.id)) for row in rows(engine, source))


def test_outbox_app_may_receive_and_read_nothing(engine: sa.Engine, url: str, source: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("grant insert on effect to outbox_app; set role outbox_app")
        connection.commit()
        found = [
            outbox.inbox.process(connection, one, SECRET, lambda m: act_on(connection, m), source=source).outcome
            for one in (signed(), signed(), signed(secret=new_secret()))
        ]
        for table in ("inbox", "inbox_ids"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select from outbox.{table}")
            connection.rollback()
    assert found == ["accepted", "duplicate", "refused"]
    assert len(rows(engine, source)) == 3


def test_a_row_is_answered_once(engine: sa.Engine, session: Session, source: str) -> None:
    message = outbox.inbox.receive(session, signed(), SECRET, source=source)
    message.answered(200)
    message.answered(500)
    session.commit()
    assert outcomes(engine, source) == [("accepted", 200)]


def test_what_is_old_goes_with_its_ids_and_nothing_else(engine: sa.Engine, session: Session, source: str) -> None:
    outbox.inbox.process(session, signed(), SECRET, lambda _: None, source=source)
    with engine.begin() as connection:
        connection.execute(sa.text("select outbox.make_inbox_leaf(0, date '2020-01-02')"))
        for day in ("2020-01-02", "2020-01-05"):  # the second has no leaf of its own
            old = sa.text("insert into outbox.inbox (at, source, size, outcome) values (:at, :source, 0, 'refused')")
            connection.execute(old, {"at": day, "source": source})
        aged = sa.text("insert into outbox.inbox_ids values ('', :source, 'old', now() - interval '15 days'),"
                       " ('', :source, 'young', now() - interval '13 days')")  # fmt: skip
        connection.execute(aged, {"source": source})
    gone = []
    while True:
        with engine.begin() as connection:
            gone.append(connection.execute(sa.text("select outbox.prune_inbox()")).scalar_one())
        if not gone[-1]:
            break
    assert gone == [2, 1, 1, 0]  # an id and a row of the default leaf; the leaf emptied; the leaf dropped
    assert sorted(ids(engine, source)) == ["evt_1", "young"]
    assert outcomes(engine, source) == [("accepted", 200)]
    with engine.connect() as connection:
        assert connection.execute(sa.text("select to_regclass('outbox.inbox_20200102')")).scalar() is None


def test_an_erasure_covers_what_was_received(engine: sa.Engine, session: Session, source: str) -> None:
    def receive(message_id: str, body: str, entity: str | None = None, tenant: str = "") -> None:
        def name(message: outbox.inbox.Received) -> None:
            message.entity = entity

        outbox.inbox.process(session, signed(message_id, body.encode()), SECRET, name, source=source, tenant=tenant)

    receive("plain", '{"name": "Zoë \N{PILE OF POO}"}')
    receive("small", json.dumps({"name": "Zoë \N{PILE OF POO}"}))
    receive("capital", '{"name": "Zo\\u00EB \\uD83D\\uDCA9"}')
    receive("form", "name=Zo%C3%AB+%F0%9F%92%A9&x=1")
    receive("about", "{}", entity="Zoë 💩")

    def quote(_message: object) -> None:
        raise LookupError("there is no Zoë 💩")

    with pytest.raises(LookupError):
        outbox.inbox.process(session, signed("quoted"), SECRET, quote, source=source, keep_bytes=0)
    receive("entity", "{}", entity="lead:42")
    receive("tenant", "{}", tenant="gone")
    receive("other", '{"name": "Zoe"}', entity="lead:43")
    for request in (
        EraseRequest(kind="subject", path="name", value="Zoë \N{PILE OF POO}"),
        EraseRequest(kind="key", value="lead:42"),
        EraseRequest(kind="tenant", value="gone"),
    ):
        with engine.connect() as connection:
            with connection.begin():
                name_ = erasure.request_erasure(connection, None, request).id
            done = erasure.run_erasure(connection, None, name_)
        assert (done.state, done.counts["received requests deleted"]) == ("done", 6 if request.path else 1)
    assert [row.message_id for row in rows(engine, source)] == ["other"]
    assert "tenant" not in ids(engine, source)


BODIES = {
    "path": '{"customer": {"id": 42}}',
    "text": '{"customer": {"id": "42"}, "amount": 1}',
    "amount": '{"customer": {"id": 7}, "amount": 4200}',
    "elsewhere": '{"customer": {"id": 8}, "at": 1742000000, "rooms": 42}',
    "form": "customer=42&x=1",
    "other_form": "customer=7&amount=4200",
    "deep": "[" * 100_000,
    "bytes": "\\x00\\xff 42;",
    "other_bytes": "\\x00\\xff 420",
}


def test_an_erasure_of_a_person_takes_no_request_of_another(engine: sa.Engine, session: Session, source: str) -> None:
    """Any request whose body or headers held the digits went, whoever it was about, and the plan said none."""
    for name, body in BODIES.items():
        raw = body.encode().replace(rb"\x00", b"\0").replace(rb"\xff", b"\xff")
        outbox.inbox.process(session, signed(name, raw), SECRET, lambda _: None, source=source)
    request = EraseRequest(kind="subject", path="customer.id", value="42")
    with engine.connect() as connection:
        with connection.begin():
            connection.execute(sa.text("set local role outbox_operator"))
            assert plan_erasure(connection, None, request).received_requests == 4
            name_ = erasure.request_erasure(connection, None, request).id
        done = erasure.run_erasure(connection, None, name_)
    assert (done.state, done.counts["received requests deleted"]) == ("done", 4)
    left = {row.message_id for row in rows(engine, source)}
    assert set(BODIES) - left == {"path", "text", "form", "bytes"}
