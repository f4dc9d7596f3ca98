"""A test message that an application asks for: a running relay sends it, and the application waits for the answer."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import EVERY_TENANT, AnsweredTest, subscriptions
from outbox.control import test_messages
from tests.support.application import Application
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F52")


def ask(app: Application, name: str, **given: object) -> AnsweredTest:
    with Session(app.engine) as session:
        requested = outbox.request_test(session, name, tenant=EVERY_TENANT, **given)
        session.commit()
        return outbox.wait_for_test(session, requested)


def test_a_relay_sends_it_and_the_answer_is_whole(app: Application) -> None:
    """Signed with a secret that the application does not have, and in the history."""
    name = app.subscribe("/hook")
    app.stage.running_relay()
    answer = ask(app, name, type="shop.tried", data={"n": 1})
    assert (answer.ok, answer.sent, answer.outcome, answer.status, answer.error) == (True, True, "delivered", 200, None)
    (received,) = app.receiver.received("/hook")
    assert answer.request is not None
    assert received["id"] == dict(answer.request.headers)["webhook-id"]
    assert answer.request.body.startswith('{"type":"shop.tried",')
    assert answer.request.body.endswith('"data":{"n":1}}')
    assert answer.response is not None
    assert str(answer.response.status_line).startswith("HTTP/1.1 200")
    assert [finding.code for finding in answer.findings] == ["answer.accepted"]
    with Session(app.engine) as session:
        (attempt,) = outbox.deliveries.attempts(session, tenant=EVERY_TENANT)
    assert (attempt.delivery_id, attempt.verdict, attempt.event_id) == (answer.delivery_id, "test", None)


def test_it_goes_out_while_the_subscription_is_paused_or_disabled(app: Application) -> None:
    paused, disabled = app.subscribe("/paused"), app.subscribe("/disabled")
    with app.engine.begin() as connection:
        subscriptions.pause(connection, paused)
        subscriptions.disable(connection, disabled, reason="moved")
    app.stage.running_relay()
    for name, code in ((paused, "hindrance.paused"), (disabled, "hindrance.disabled")):
        answer = ask(app, name)
        assert answer.ok
        assert answer.hindrance is not None
        assert answer.hindrance.code == code


def test_a_failure_is_an_answer_too_with_what_mends_it(app: Application) -> None:
    name, forbidden = app.subscribe("/broken"), app.subscribe("/forbidden")
    app.receiver.plan("/broken", "503")
    with app.engine.begin() as connection:
        connection.execute(
            text("update outbox.subscriptions set url = 'http://10.0.0.1/' where id = outbox.uuid_of(:id)"),
            {"id": forbidden},
        )
    app.stage.running_relay()
    answer = ask(app, name)
    assert (answer.ok, answer.status, answer.outcome) == (False, 503, "http_5xx")
    assert [finding.code for finding in answer.findings] == ["answer.503"]
    answer = ask(app, forbidden)
    assert (answer.ok, answer.sent, answer.outcome) == (False, False, "blocked_address")
    assert answer.findings[0].code == "policy.forbidden"


def test_of_several_relays_one_sends_each_and_an_idle_one_notices(app: Application) -> None:
    names = [app.subscribe(f"/hook{number}") for number in range(3)]
    first, second = app.stage.running_relay("--processes", "2", processes=2), app.stage.running_relay()
    with Session(app.engine) as session:
        asked = [outbox.request_test(session, name, tenant=EVERY_TENANT) for name in names * 4]
        session.commit()
        assert all(outbox.wait_for_test(session, requested).ok for requested in asked)
    assert len(app.receiver.received()) == 12
    assert app.one("select count(*) from outbox.attempts where verdict = 'test'") == 12
    assert (first.stop(), second.stop()) == (0, 0)


def test_asynchronous_code_waits_and_goes_on_meanwhile(app: Application) -> None:
    name = app.subscribe("/hook")
    app.receiver.plan("/hook", "hold")
    app.stage.running_relay()

    async def program() -> tuple[AnsweredTest, int]:
        engine = create_async_engine(app.engine.url)
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1
                if beats == 50:
                    await asyncio.to_thread(app.receiver.wait_for, 1)
                    await asyncio.to_thread(app.receiver.release)

        async with AsyncSession(engine) as session, asyncio.TaskGroup() as tasks:
            requested = await session.run_sync(outbox.request_test, name, tenant=EVERY_TENANT)
            await session.commit()
            beating = tasks.create_task(beat())
            answer = await outbox.await_test(session, requested)
            beating.cancel()
        async with engine.connect() as connection:
            assert await outbox.await_test(connection, requested) == answer
        assert await outbox.await_test(engine, requested) == answer
        scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        assert await outbox.await_test(scoped, requested) == answer
        with Session(app.engine) as plain:
            assert await outbox.await_test(plain, requested) == answer
        assert await outbox.await_test(app.engine, requested) == answer
        await engine.dispose()
        return answer, beats

    answer, beats = asyncio.run(program())
    assert answer.ok
    assert beats >= 50


@pytest.mark.slow
def test_one_that_a_killed_relay_took_has_no_answer_and_is_not_sent_again(app: Application) -> None:
    name = app.subscribe("/hook")
    app.receiver.plan("/hook", "hold")
    relay = app.stage.running_relay()
    with Session(app.engine) as session:
        requested = outbox.request_test(session, name, tenant=EVERY_TENANT)
        session.commit()
        app.receiver.wait_for(1)
        relay.kill()
        app.stage.running_relay()
        with pytest.raises(outbox.NoAnswerError, match=r"a relay took it at .* and may still be waiting"):
            outbox.wait_for_test(session, requested, seconds=3)
        session.rollback()
        known = outbox.read_test(session, requested.id, tenant=EVERY_TENANT)
    assert known.taken_at is not None
    assert known.answer is None
    assert len(app.receiver.received()) == 1


def test_without_a_relay_the_error_says_so_and_a_later_one_does_not_send_what_ran_out(app: Application) -> None:
    name = app.subscribe("/hook")
    with Session(app.engine) as session:
        requested = outbox.request_test(session, name, tenant=EVERY_TENANT)
        session.commit()
        began = time.monotonic()
        with pytest.raises(outbox.NoAnswerError, match="no relay runs on this database; start `relay run`"):
            outbox.wait_for_test(session, requested, seconds=0.3)
        assert time.monotonic() - began >= 0.3
        session.execute(text("update outbox.test_requests set expires_at = clock_timestamp()"))
        fresh = outbox.request_test(session, name, tenant=EVERY_TENANT)
        session.commit()
        app.stage.running_relay()
        assert outbox.wait_for_test(session, fresh).ok
        assert outbox.read_test(session, requested.id, tenant=EVERY_TENANT).taken_at is None
    assert len(app.receiver.received()) == 1


def test_a_removed_subscription_is_refused_in_the_answer(app: Application) -> None:
    name = app.subscribe("/hook")
    with Session(app.engine) as session:
        requested = outbox.request_test(session, name, tenant=EVERY_TENANT)
        subscriptions.remove(session, name)
        session.commit()
        app.stage.running_relay()
        answer = outbox.wait_for_test(session, requested)
    assert (answer.ok, answer.sent, answer.outcome, answer.delivery_id) == (False, False, "refused", None)
    assert "or it is removed" in str(answer.error)


def test_what_was_asked_for_a_day_ago_is_deleted(app: Application) -> None:
    name = app.subscribe("/hook")
    with app.engine.begin() as connection:
        for _ in range(3):
            outbox.request_test(connection, name, tenant=EVERY_TENANT)
        # They ran out, too. What a relay answers just now is locked, and the round passes it over for an hour.
        connection.execute(
            text("""
            update outbox.test_requests set requested_at = requested_at - interval '2 days',
                                            expires_at = expires_at - interval '2 days'""")
        )
    app.stage.running_relay()
    wait_until(lambda: app.one("select count(*) from outbox.test_requests") == 0)


class TestAsking:
    """What needs no relay."""

    def test_waiting_before_the_commit_is_an_error_and_no_wait(self, app: Application) -> None:
        name = app.subscribe("/hook")
        with Session(app.engine) as session:
            requested = outbox.request_test(session, name, tenant=EVERY_TENANT)
            with pytest.raises(outbox.TransactionError, match="commit before you wait"):
                outbox.wait_for_test(session, requested)
        with app.engine.connect() as connection:
            requested = outbox.request_test(connection, name, tenant=EVERY_TENANT)
            with pytest.raises(outbox.TransactionError, match="commit before you wait"):
                outbox.wait_for_test(connection, requested)

    def test_a_session_is_as_it_was_after_the_wait(self, app: Application) -> None:
        name = app.subscribe("/hook")
        with Session(app.engine) as session:
            requested = outbox.request_test(session, name, tenant=EVERY_TENANT)
            session.commit()
            with pytest.raises(outbox.NoAnswerError):
                outbox.wait_for_test(session, requested, seconds=0)
            assert not session.in_transaction()

    def test_too_many_in_a_minute_are_refused(self, app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(test_messages, "MOST_A_MINUTE", 2)
        name = app.subscribe("/hook")
        with app.engine.begin() as connection:
            for _ in range(2):
                outbox.request_test(connection, name, tenant=EVERY_TENANT)
            with pytest.raises(outbox.ProbeError, match=r"2 test messages to sub_.* in the last minute; wait"):
                outbox.request_test(connection, name, tenant=EVERY_TENANT)

    def test_another_tenants_is_not_found_neither_to_ask_nor_to_read(self, app: Application) -> None:
        with app.engine.begin() as connection:
            name = subscriptions.add(connection, app.receiver.url("/x"), ["a"], tenant="acme").id
            requested = outbox.request_test(connection, name, tenant="acme")
            for tenant in ("globex", ""):
                with pytest.raises(outbox.NotFoundError, match="subscription: no sub_"):
                    outbox.request_test(connection, name, tenant=tenant)
                with pytest.raises(outbox.NotFoundError, match="test: no tst_"):
                    outbox.read_test(connection, requested.id, tenant=tenant)
            assert outbox.read_test(connection, str(requested.id), tenant="acme") == requested

    def test_what_is_no_type_or_no_data_is_refused_before_anything_is_written(self, app: Application) -> None:
        name = app.subscribe("/hook")
        with app.engine.begin() as connection:
            for given in ({"type": "no type"}, {"type": "relay.x"}, {"data": float("nan")}, {"data": "x" * 300_000}):
                with pytest.raises(outbox.RecordError):
                    outbox.request_test(connection, name, tenant=EVERY_TENANT, **given)
        assert app.one("select count(*) from outbox.test_requests") == 0

    def test_what_is_no_target_is_refused_by_name(self, app: Application) -> None:
        name = app.subscribe("/hook")
        with app.engine.begin() as connection:
            requested = outbox.request_test(connection, name, tenant=EVERY_TENANT)
        with pytest.raises(outbox.ArgumentError, match="pass a Session, Connection or Engine"):
            outbox.wait_for_test("engine", requested)
        with pytest.raises(outbox.ArgumentError, match="pass an AsyncSession, AsyncConnection or AsyncEngine"):
            asyncio.run(outbox.await_test(sqlalchemy, requested))
