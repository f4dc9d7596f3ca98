"""record(on_error="log"): whatever is wrong with an event, the caller's rows are stored; it is logged and counted."""

from __future__ import annotations

import asyncio
import secrets
import sys
import types
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from outbox import record
from tests.support.databases import engine_on
from tests.support.recording import Base, Order, emptied, engine_of, recorded, recorded_types, shop_database

REFUSE = """
create function refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
create trigger refuse before insert on outbox.events for each row when (new.type = 'refused') execute function refuse();
"""


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        with psycopg.connect(url) as connection:
            connection.execute(REFUSE)
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture(params=["psycopg", "psycopg2"])
def shop(database_url, request):
    engine = engine_of(database_url, request.param)
    yield engine
    engine.dispose()


@pytest.fixture
def once() -> str:
    """An idempotency key that no other test has used."""
    return secrets.token_hex(8)


def orders(engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("select count(*) from shop_order")).scalar_one())


class Broken:
    """An object whose data fails with whatever error."""

    def model_dump(self, mode: str) -> object:
        raise RuntimeError("secret-4711")


WRONG = {
    "data": {"data": object()},
    "model": {"data": Broken()},
    "large": {"data": "x" * 300_000},
    "type": {"type": "no such type"},
    "no type": {"type": None},
    "long type": {"type": "a" * 3000},
    "key": {"key": 7},
    "tenant": {"tenant": "*"},
    "time": {"available_at": "tomorrow"},
    "priority": {"priority": 9},
    "trace": {"trace": {"traceparent": "?"}},
    "idempotency_key": {"idempotency_key": ""},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_refusal_harms_no_row_and_is_logged_once_and_counted(wrong, database_url, caplog):
    before = outbox.refused_events()
    with engine_on(database_url) as engine, Session(engine) as session:
        session.add(Order())
        event = record(session, **{"type": "a.b", "data": {}, **WRONG[wrong]}, on_error="log")
        session.commit()
        assert orders(engine) == 1
    assert not event.recorded
    assert recorded(database_url) == []
    (line,) = [entry.getMessage() for entry in caplog.records if entry.name == "outbox"]
    assert event.id in line
    assert len(line) < 400
    assert "secret-4711" not in line
    assert sum(outbox.refused_events().values()) == sum(before.values()) + 1


def test_a_wrong_target_is_logged_too(caplog):
    assert not record(None, "a", 1, on_error="log").recorded
    assert "NoneType" in caplog.text


@pytest.mark.parametrize("wrong", [None, True, "ignore", "", object()])
def test_another_way_is_no_way(wrong):
    with pytest.raises(outbox.ArgumentError, match="on_error"):
        record(None, "a", 1, on_error=wrong)


def test_what_the_database_refuses_leaves_the_rows_and_the_other_events_in_their_order(shop, database_url, caplog):
    with Session(shop) as session:
        session.add(Order())
        record(session, "first", 1)
        for number in range(20):
            record(session, "refused" if number in (3, 4, 11) else f"n{number}", number, on_error="log")
        record(session, "last", 1)
        session.commit()
    kept = [f"n{number}" for number in range(20) if number not in (3, 4, 11)]
    assert recorded_types(database_url) == ["first", *kept, "last"]
    assert orders(shop) == 1
    assert len([line for line in caplog.messages if "not this one" in line]) == 3


def test_one_that_fails_the_commit_still_does_beside_one_that_may(shop, database_url):
    with Session(shop) as session:
        session.add(Order())
        record(session, "fine", 1, on_error="log")
        record(session, "refused", 1)
        with pytest.raises(Exception, match="not this one"):
            session.commit()
    assert orders(shop) == 0
    assert recorded(database_url) == []


def test_a_savepoint_that_is_undone_takes_it_along(shop, database_url):
    with Session(shop) as session:
        record(session, "a", 1, on_error="log")
        with session.begin_nested():
            record(session, "refused", 1, on_error="log")
            record(session, "b", 1, on_error="log")
        savepoint = session.begin_nested()
        record(session, "undone", 1, on_error="log")
        session.flush()
        savepoint.rollback()
        session.commit()
    assert recorded_types(database_url) == ["a", "b"]


def test_on_connections_it_is_written_at_once_and_nothing_is_committed(shop, database_url, once):
    with shop.connect() as connection:
        connection.execute(text("insert into shop_order default values"))
        record(connection, "refused", 1, on_error="log")
        record(connection, "a", 1, on_error="log", idempotency_key=once)
        assert recorded(database_url) == []
        connection.commit()
    with psycopg.connect(database_url) as raw:
        record(raw, "refused", 1, on_error="log")
        record(raw, "b", 1, on_error="log")
        record(raw, "rolled_back", 1, on_error="log")
        raw.rollback()
        record(raw, "refused", 1, on_error="log")
        with raw.pipeline():
            record(raw, "refused", 1, on_error="log")
            record(raw, "c", 1, on_error="log", idempotency_key=once + "2")
    assert recorded_types(database_url) == ["a", "c"]
    assert orders(shop) == 1


def test_on_raw_asynchronous_connections(database_url, once):
    async def main() -> None:
        connection = await asyncpg.connect(database_url)
        assert not (await outbox.arecord(connection, "unseen", 1, on_error="log")).recorded  # no transaction
        async with connection.transaction():
            await outbox.arecord(connection, "refused", 1, on_error="log")
            await outbox.arecord(connection, "a", 1, on_error="log", idempotency_key=once)
            await outbox.arecord(connection, "never", object(), on_error="log")
        await connection.close()
        async with await psycopg.AsyncConnection.connect(database_url) as raw:
            await outbox.arecord(raw, "refused", 1, on_error="log")
            await outbox.arecord(raw, "b", 1, on_error="log", idempotency_key=once + "2")

    asyncio.run(main())
    assert recorded_types(database_url) == ["a", "b"]


def test_on_an_async_session(database_url, once):
    async def main() -> None:
        engine = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
        async with AsyncSession(engine) as session:
            session.add(Order())
            record(session, "refused", 1, on_error="log")
            record(session, "a", 1, on_error="log", idempotency_key=once)
            await session.commit()
        await engine.dispose()

    asyncio.run(main())
    assert recorded_types(database_url) == ["a"]


class TestAnIdempotencyKey:
    def test_with_other_content_is_logged(self, shop, database_url, caplog, once):
        for number in (1, 2):
            with Session(shop) as session:
                session.add(Order())
                record(session, "a", number, idempotency_key=once, on_error="log")
                session.commit()
        assert [row.payload for row in recorded(database_url)] == ["1"]
        assert orders(shop) == 2
        assert "was used for an event with another type, key or data" in caplog.text

    def test_that_another_transaction_uses_at_the_same_time_harms_no_row(self, shop, database_url, caplog, once):
        """Without a savepoint the second learns of it from COMMIT, which takes its rows along."""
        import threading

        with Session(shop) as first, Session(shop) as second:
            for session, number in ((first, 1), (second, 2)):
                session.add(Order())
                session.flush()
                record(session, "a", number, idempotency_key=once, on_error="log")
            first.flush()
            record(first.connection(), "b", 1, idempotency_key=once, on_error="log")  # claims the key now
            waiting = threading.Thread(target=second.commit)
            waiting.start()
            first.commit()
            waiting.join()
        assert orders(shop) == 2
        assert len(recorded(database_url)) == 1
        assert "idempotency_key" in caplog.text


def test_a_missing_schema_costs_an_event_and_no_row(empty_database_url, caplog):
    engine = engine_of(empty_database_url)
    with Session(engine) as session:
        session.add(Order())
        record(session, "a", 1, on_error="log")
        session.commit()
    assert orders(engine) == 1
    assert "relay migrate" in caplog.text
    engine.dispose()


def test_an_events_database_that_is_away_harms_no_row(shop, caplog):
    away = create_engine("postgresql+psycopg://127.0.0.1:1/nothing")
    with Session(binds={Base: shop, outbox.events_table: away}) as session:
        session.add(Order())
        record(session, "a", 1, on_error="log")
        session.commit()
    assert orders(shop) == 1
    assert "was not recorded" in caplog.text


def test_opentelemetry_counts_where_its_metrics_are_in_use(monkeypatch):
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    api: Any = types.SimpleNamespace(get_meter=provider.get_meter)
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", api)
    for _ in range(2):
        record(None, "a", object(), on_error="log")
    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "outbox.events.refused"
    assert [(dict(p.attributes), p.value) for p in metric.data.data_points] == [({"error.type": "PayloadError"}, 2)]
    provider.shutdown()


@pytest.mark.parametrize("first", ["waits", "was refused at a savepoint"])
def test_who_does_not_ask_for_a_log_hears_of_the_refusal_of_a_key_that_another_recorded_so(
    shop, database_url, once: str, first: str
) -> None:
    with Session(shop) as session:
        session.add(Order())
        if first == "waits":
            record(session, "refused", {}, idempotency_key=once, on_error="log")
        else:
            with session.begin_nested():
                record(session, "refused", {}, idempotency_key=once, on_error="log")
        record(session, "refused", {}, idempotency_key=once)
        with pytest.raises(Exception, match="not this one"):
            session.commit()
    assert orders(shop) == 0
    assert recorded(database_url) == []


def test_a_key_that_both_record_is_one_event(shop, database_url, once: str) -> None:
    with Session(shop) as session:
        session.add(Order())
        made = [
            record(session, "taken", {}, idempotency_key=once, on_error="log"),
            record(session, "taken", {}, idempotency_key=once),
            record(session, "taken", {}, idempotency_key=once, on_error="log"),
        ]
        session.commit()
    assert len({event.id for event in made}) == 1
    assert recorded_types(database_url) == ["taken"]
