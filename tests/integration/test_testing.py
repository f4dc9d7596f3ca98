"""outbox.testing: what was recorded is seen before and after flush and commit; drain() delivers for real."""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import testing
from outbox.signing import schemes
from outbox.signing.verify import new_secret
from outbox.testing import assert_recorded, drain, nothing_recorded, recorded, signed_request
from relay.operations.secrets import rekey
from relay.secrets.keyring import Keyring, new_private_key
from tests.support.recording import Base, Order


@pytest.fixture(scope="module")
def shared_engine(server_url):
    with testing.database(server_url) as url:
        engine = create_engine(url)
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture
def shop(shared_engine):
    yield shared_engine
    testing.empty(shared_engine)


@pytest.fixture
def session(shop):
    with Session(shop) as session:
        yield session


def test_the_public_names_are_these_and_each_says_what_it_is():
    assert sorted(testing.__all__) == testing.__all__
    assert {name for name in testing.__all__ if not inspect.getdoc(getattr(testing, name))} == set()
    modules = {name for name, value in vars(testing).items() if inspect.ismodule(value)}
    assert {name for name in vars(testing) if name[0] != "_"} - modules == {*testing.__all__}


class TestRecorded:
    def test_events_that_wait_and_events_in_the_database(self, session):
        outbox.record(session, "order.placed", {"id": 1}, key="1", tenant="acme", priority=2)
        (unwritten,) = recorded(session)
        session.commit()
        outbox.record(session, "order.paid", [1, None], available_at=timedelta(hours=1))
        stored, later = recorded(session)
        assert (unwritten.unwritten, stored.unwritten, later.unwritten) == (True, False, True)
        assert unwritten.id == stored.id
        assert (stored.type, stored.data, stored.key, stored.tenant, stored.priority) == (
            *("order.placed", {"id": 1}, "1", "acme", 2),
        )
        assert (later.data, later.available_at) == ([1, None], timedelta(hours=1))
        assert [event.type for event in recorded(session, "order.pl*".replace("pl*", "*"))] == [
            "order.placed",
            "order.paid",
        ]
        session.rollback()

    def test_savepoints(self, session):
        with session.begin_nested():
            outbox.record(session, "kept", 1)
        savepoint = session.begin_nested()
        outbox.record(session, "undone", 1)
        savepoint.rollback()
        assert [(event.type, event.unwritten) for event in recorded(session)] == [("kept", False)]
        session.rollback()
        assert nothing_recorded(session)

    def test_a_test_that_looked_is_not_warned_when_its_session_is_closed(self, shop, caplog):
        with Session(shop) as session:
            session.add(Order())
            outbox.record(session, "order.placed", {})
            assert_recorded(session, "order.placed")
        assert caplog.messages == []

    def test_other_targets(self, shop, session):
        outbox.record(session, "order.placed", {"id": 1})
        session.commit()
        raw = psycopg.connect(shop.url.set(drivername="postgresql").render_as_string(hide_password=False))
        with shop.connect() as connection, raw:
            for target in (shop, connection, raw):
                assert [event.data for event in recorded(target)] == [{"id": 1}]
        with pytest.raises(outbox.TargetError, match=r"pass a session, a connection or an Engine, not a builtins\.int"):
            recorded(5)

    def test_an_async_session(self, shop):
        async def main() -> None:
            engine = create_async_engine(shop.url)
            async with AsyncSession(engine) as session:
                outbox.record(session, "order.placed", {"id": 1})
                await session.run_sync(assert_recorded, "order.placed", where={"id": 1}, times=1)
                with pytest.raises(outbox.TargetError, match=r"run_sync\(recorded\)"):
                    recorded(session)
                await session.rollback()
            await engine.dispose()

        asyncio.run(main())


class TestAssertions:
    @pytest.fixture
    def orders(self, session):
        for number in (1, 2):
            outbox.record(session, "order.placed", {"id": number, "customer": {"name": "Ada"}}, key=str(number))
        outbox.record(session, "order.paid", {"id": 1}, tenant="acme")
        yield session
        session.rollback()

    def test_what_matches_is_returned(self, orders):
        assert [event.key for event in assert_recorded(orders, "order.placed", times=2)] == ["1", "2"]
        assert [event.key for event in assert_recorded(orders, "order.*", where={"id": 2}, key="2")] == ["2"]
        assert len(assert_recorded(orders, "order.*", tenant="acme", times=1)) == 1
        assert assert_recorded(orders, "order.placed", where={"id": 3}, times=0) == []

    def test_a_failure_shows_the_nearest_miss_and_everything(self, orders):
        with pytest.raises(AssertionError) as failed:
            assert_recorded(orders, "order.placed", where={"id": 2, "customer": {"name": "Eve"}}, key="2")
        assert str(failed.value).splitlines() == [
            "order.placed, data = {'id': 2, 'customer': {'name': 'Eve'}}, key = '2': wanted some, found none",
            "nearest: order.placed {'id': 2, 'customer': {'name': 'Ada'}}, key = '2', waits for the commit",
            "  data.customer.name: wanted 'Eve', is 'Ada'",
            "3 events were recorded:",
            "  order.placed {'id': 1, 'customer': {'name': 'Ada'}}, key = '1', waits for the commit",
            "  order.placed {'id': 2, 'customer': {'name': 'Ada'}}, key = '2', waits for the commit",
            "  order.paid {'id': 1}, tenant = 'acme', waits for the commit",
        ]

    @pytest.mark.parametrize(("times", "found"), [(1, "wanted 1, found 2"), (3, "wanted 3, found 2"), (0, "wanted 0")])
    def test_the_number_counts(self, orders, times, found):
        with pytest.raises(AssertionError, match=found):
            assert_recorded(orders, "order.placed", times=times)

    def test_none(self, orders, session):
        assert nothing_recorded(orders, "user.*") is True
        with pytest.raises(AssertionError, match=r"1 event was recorded:\n  order\.paid"):
            nothing_recorded(orders, "order.paid")

    @pytest.mark.parametrize("wrong", [-1, "1", True])
    def test_a_wrong_number_is_refused(self, orders, wrong):
        with pytest.raises(outbox.ArgumentError, match="times"):
            assert_recorded(orders, "order.placed", times=wrong)


@pytest.mark.parametrize("number", ["1" * 4301, "1e999"], ids=["long", "huge"])
def test_data_with_a_number_beyond_python_is_seen_as_text(shop, session, number):
    outbox.record(session, "order.placed", outbox.RawJSON(f'{{"n":{number}}}'))
    assert [one.data for one in recorded(session)] == [f'{{"n":{number}}}']
    session.commit()
    assert [one.data for one in recorded(session)] == [f'{{"n":{number}}}']


@pytest.fixture
def receiver():
    with testing.WebhookReceiver() as receiver:
        yield receiver


def placed(session, receiver, *types: str, **subscription: object) -> None:
    receiver.subscribe(session, **subscription)
    for type_ in types:
        outbox.record(session, type_, {"n": 1}, key="k")
    session.commit()


@pytest.mark.field("F55")
class TestDrain:
    def test_retries_take_no_time(self, shop, session, receiver):
        placed(session, receiver, "order.placed", metadata={"a": "b"})
        receiver.answers(500, 429, testing.Answer(503, {"retry-after": "7200"}))
        (delivery,) = drain(shop)
        assert (delivery.verdict, delivery.type, delivery.data, delivery.key) == (
            *("delivered", "order.placed", {"n": 1}, "k"),
        )
        assert delivery.statuses == [500, 429, 503, 200]
        assert [(request.id, request.error, request.status) for request in receiver.requests] == [
            (delivery.event_id, None, status) for status in delivery.statuses
        ]
        assert drain(shop) == []

    def test_what_nobody_takes_is_dead_after_its_whole_schedule(self, shop, session, receiver):
        placed(session, receiver, "order.placed", schedule_seconds=[60, 86_400])
        receiver.answers(*[500] * 9)
        (delivery,) = drain(shop)
        assert (delivery.verdict, delivery.statuses) == ("dead", [500] * 3)
        assert [attempt.verdict for attempt in delivery.attempts] == ["retry", "retry", "dead"]

    def test_time_passes_only_as_far_as_it_may(self, shop, session, receiver):
        placed(session, receiver, "order.placed", schedule_seconds=[60, 7200])
        outbox.record(session, "order.later", 1, available_at=timedelta(days=3))
        session.commit()
        receiver.answers(500, 500)
        (delivery,) = drain(shop, within=timedelta(minutes=30))
        assert (delivery.verdict, delivery.statuses) == ("retry", [500, 500])
        rest = {delivery.type: delivery.statuses for delivery in drain(shop)}
        assert rest == {"order.placed": [200], "order.later": [200]}

    def test_order_holds(self, shop, session, receiver):
        placed(session, receiver, "order.placed", "order.paid", "order.sent", ordered=True)
        receiver.answers(500, 500)
        assert [delivery.verdict for delivery in drain(shop)] == ["delivered"] * 3
        assert [request.type for request in receiver.requests] == ["order.placed"] * 3 + ["order.paid", "order.sent"]

    def test_nobody_elses_endpoint_is_called(self, shop, session):
        outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
        for url in ("https://customer.example/", "https://93.184.215.14/"):
            outbox.subscribe(session, url, ["*"], schedule_seconds=[])
        outbox.record(session, "order.placed", 1)
        session.commit()
        deliveries = drain(shop)
        assert [one.verdict for one in deliveries] == ["dead"] * 2
        assert {attempt.outcome for one in deliveries for attempt in one.attempts} == {"blocked_address"}

    def test_what_cannot_be_sent_ends_it(self, shop, session, receiver):
        """A paused subscription, and an event without a subscriber."""
        placed(session, receiver, "order.placed")
        (one,) = outbox.subscriptions.list(session)
        outbox.subscriptions.pause(session, one.id)
        session.commit()
        assert drain(shop) == []

    @pytest.fixture
    def private_key(self, shop):
        private, _ = new_private_key()
        yield private
        with shop.begin() as connection:
            connection.execute(text("delete from outbox.sealing_keys"))

    def test_sealed_secrets_need_their_key(self, shop, session, receiver, private_key):
        placed(session, receiver, "order.placed")
        with shop.connect() as connection:
            rekey(connection, None, Keyring([private_key]))
        assert drain(shop) == []
        (delivery,) = drain(shop, secret_keys=[private_key])
        assert (delivery.verdict, receiver.requests[0].error) == ("delivered", None)

    def test_inside_of_a_running_loop(self, shop, session, receiver):
        placed(session, receiver, "order.placed")

        async def main() -> None:
            (delivery,) = await asyncio.to_thread(drain, shop)
            assert delivery.verdict == "delivered"
            assert drain(shop) == []

        asyncio.run(main())

    def test_what_is_no_database_is_refused(self, session, empty_database_url):
        with pytest.raises(outbox.ArgumentError, match="pass a URL or an Engine, not a Session"):
            drain(session)
        with pytest.raises(outbox.ArgumentError, match="sqlite"):
            drain("sqlite://")
        with pytest.raises(outbox.ArgumentError, match="within"):
            drain("postgresql://x", within=5)
        with pytest.raises(outbox.SchemaError, match="relay migrate"):
            drain(empty_database_url)

    def test_it_takes_no_longer_than_it_may(self, shop, session, receiver, caplog):
        caplog.set_level(logging.CRITICAL)
        placed(session, receiver, "order.placed")
        with pytest.raises(TimeoutError, match=r"not done after 0.01 s"):
            drain(shop, timeout_seconds=0.01)


class TestReceiver:
    def test_what_does_not_verify_is_kept_and_answered_401(self, shop, session, receiver):
        placed(session, receiver, "order.placed", secret=new_secret(), schedule_seconds=[])
        (delivery,) = drain(shop)
        (request,) = receiver.requests
        assert (delivery.verdict, delivery.statuses, request.status) == ("dead", [401], 401)
        assert "signature" in (request.error or "")
        assert (request.id, request.type, request.data) == (None, None, None)

    def test_another_scheme_and_a_function_that_answers(self, shop, session):
        with testing.WebhookReceiver(scheme="stripe") as receiver:
            placed(session, receiver, "order.placed")
            receiver.answers(lambda request: testing.Answer(202 if request.webhook else 500, body=b"thanks"))
            (delivery,) = drain(shop)
        assert delivery.statuses == [202]
        assert receiver.requests[0].error is None

    def test_unsigned(self, shop, session):
        with testing.WebhookReceiver(secret="") as receiver:
            placed(session, receiver, "order.placed")
            assert drain(shop)[0].verdict == "delivered"
        assert receiver.requests[0].type == "order.placed"

    def test_it_may_be_subscribed_only_meanwhile(self, session):
        outbox.allow_endpoints()
        with testing.WebhookReceiver() as receiver:
            receiver.subscribe(session, path="/hooks")
        with pytest.raises(outbox.SubscriptionError, match="plain http"):
            receiver.subscribe(session)
        session.rollback()

    @pytest.mark.parametrize("scheme", sorted(schemes.SCHEMES))
    def test_a_signed_request_of_every_scheme_verifies(self, scheme):
        receiver = testing.WebhookReceiver(scheme=scheme)
        request = signed_request(receiver.secret, "order.placed", {"id": 7}, scheme=scheme, id="evt_1")
        assert receiver.receive("/", request.headers, request.body).status == 200
        assert receiver.requests[0].data == {"id": 7}
        other = signed_request(new_secret(scheme), "order.placed", {"id": 7}, scheme=scheme)
        assert receiver.receive("/", other.headers, other.body).status == 401

    def test_a_signed_request_is_checked(self):
        secret = new_secret()
        for wrong in (
            {"type": "no type", "data": 1},
            {"type": "a", "data": object()},
            {"type": "a", "data": 1, "id": 5},
        ):
            with pytest.raises(outbox.RecordError):
                signed_request(secret, **wrong)
        old = signed_request(secret, "a", 1, timestamp=1)
        with pytest.raises(outbox.SignatureError, match="timestamp"):
            outbox.verify(secret, old.headers, old.body)


def test_emptying_leaves_the_settings_and_the_schema(shop, session):
    outbox.record(session, "order.placed", {})
    session.commit()
    with shop.connect() as connection:
        settings = connection.execute(text("select count(*) from outbox.settings")).scalar_one()
    testing.empty(shop)
    testing.install_schema(shop)
    assert nothing_recorded(shop)
    assert settings >= 10
    with shop.connect() as connection:
        for table, rows in (("pending", 0), ("settings", settings)):
            assert connection.execute(text(f"select count(*) from outbox.{table}")).scalar_one() == rows
