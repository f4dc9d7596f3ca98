"""record() where sessions come from elsewhere: scoped ones, Flask, Litestar, SQLModel, binds, test fixtures."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import flask
import httpx
import litestar
import pytest
import sqlmodel
from flask_sqlalchemy import SQLAlchemy
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

import outbox
from outbox import RecordError, record
from tests.support.left_open import take_open
from tests.support.recording import Base, Order, emptied, engine_of, recorded, recorded_types, shop_database


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture
def shop(database_url):
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_scoped_session(shop, database_url):
    scoped = scoped_session(sessionmaker(shop))
    record(scoped, "a", 1)
    scoped.commit()
    record(scoped, "never", 1)
    scoped.remove()
    assert recorded_types(database_url) == ["a"]


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_flask_sqlalchemy(shop, database_url):
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = shop.url.render_as_string(hide_password=False)
    db = SQLAlchemy(app)

    class FlaskOrder(db.Model):
        __tablename__ = "shop_order"
        id = db.Column(db.Integer, primary_key=True)

    with app.app_context():
        order = FlaskOrder()
        db.session.add(order)
        db.session.flush()
        order_id = order.id
        record(db.session, "order.created", {"id": order.id})
        db.session.commit()
        record(db.session, "never", 1)
    with app.app_context():
        db.session.commit()
        db.engine.dispose()
    assert [(row.type, row.payload) for row in recorded(database_url)] == [("order.created", f'{{"id":{order_id}}}')]


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_flask_requests_commit_with_their_event_or_leave_nothing(shop, database_url):
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = shop.url.render_as_string(hide_password=False)
    db = SQLAlchemy(app)

    @app.post("/orders/<what>")
    def place(what):
        record(db.session, "order.placed", {"what": what})
        if what == "broken":
            raise ValueError
        if what == "paid":
            db.session.commit()
        return what

    client = app.test_client()
    assert [client.post(f"/orders/{what}").status_code for what in ("forgotten", "broken", "paid")] == [200, 500, 200]
    with app.app_context():
        db.engine.dispose()
    assert [row.payload for row in recorded(database_url)] == ['{"what":"paid"}']


def test_litestar_requests_commit_with_their_event_or_leave_nothing(shop, database_url):
    engine = create_async_engine(shop.url)

    async def transaction():
        async with AsyncSession(engine) as session, session.begin():
            yield session

    @litestar.post("/orders/{what:str}")
    async def place(what: FromPath[str], session: NamedDependency[AsyncSession]) -> str:
        session.add(Order())
        record(session, "order.placed", {"what": what})
        if what == "broken":
            raise ValueError
        return what

    app = litestar.Litestar([place], dependencies={"session": Provide(transaction)})

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            found = [(await client.post(f"/orders/{what}")).status_code for what in ("broken", "paid")]
        await engine.dispose()
        return found

    assert asyncio.run(ask()) == [500, 201]
    assert [row.payload for row in recorded(database_url)] == ['{"what":"paid"}']


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
def test_sqlmodel_asynchronous_session(shop, database_url):
    async def place():
        engine = create_async_engine(shop.url)
        async with SQLModelSession(engine) as session:
            record(session, "order.placed", {"id": 1})
            await session.commit()
            record(session, "never", 1)
        await engine.dispose()

    asyncio.run(place())
    assert recorded_types(database_url) == ["order.placed"]


def test_sqlmodel_session_and_instance(shop, database_url):
    class ModelOrder(sqlmodel.SQLModel, table=True):
        __tablename__ = "shop_order"
        id: int | None = sqlmodel.Field(default=None, primary_key=True)
        number: int | None = None

    with sqlmodel.Session(shop) as session:
        order = ModelOrder(number=5)
        session.add(order)
        session.flush()
        record(session, "order.created", order)
        expected = order.model_dump_json()
        session.commit()
    assert recorded(database_url)[0].payload == expected
    assert '"id":null' not in expected


def test_binds_per_class_need_one_for_the_outbox(shop, database_url):
    with Session(binds={Base: shop}) as session:
        session.add(Order())
        with pytest.raises(RecordError, match=r"outbox\.events_table"):
            record(session, "refused", 1)
        session.commit()
    with Session(binds={Base: shop, outbox.events_table: shop}) as session:
        session.add(Order())
        record(session, "a", 1)
        session.commit()
    assert recorded_types(database_url) == ["a"]


def test_events_follow_their_bind_to_its_database(shop, database_url):
    elsewhere = create_engine("sqlite://")
    with closing_pool(elsewhere):
        Base.metadata.create_all(elsewhere)
        with Session(binds={Base: elsewhere, outbox.events_table: shop}) as session:
            session.add(Order())
            record(session, "a", 1)
            session.commit()
    assert recorded_types(database_url) == ["a"]


@contextmanager
def closing_pool(engine):
    """Close the engine's connections at the end, also when the test fails."""
    try:
        yield
    finally:
        engine.dispose()


@pytest.mark.field("F57")
def test_a_connection_that_is_left_open_is_found():
    engine = create_engine("sqlite://")
    with closing_pool(engine):
        engine.connect().close()  # back in the pool, which keeps it
        assert len(take_open()) == 1
    with closing_pool(engine):
        engine.connect().close()
    assert take_open() == []


def test_a_session_on_another_kind_of_database_is_refused():
    engine = create_engine("sqlite://", poolclass=NullPool)  # which leaves no connection open
    with Session(engine) as session, pytest.raises(RecordError, match="sqlite"):
        record(session, "a", 1)


def test_the_rollback_fixture_of_test_suites(shop, database_url):
    """An outer transaction that is rolled back at the end, and sessions inside it that believe they commit."""

    def types():
        return list(connection.exec_driver_sql("select type from outbox.events order by seq").scalars())

    with shop.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            record(session, "first", 1)
            session.commit()
            assert types() == ["first"]
            record(session, "undone", 1)
            session.rollback()
            with session.begin_nested():
                record(session, "second", 1)
            session.commit()
            assert types() == ["first", "second"]
        outer.rollback()
        assert types() == []
    assert recorded(database_url) == []


def test_a_session_that_joins_a_connections_transaction(shop, database_url):
    with shop.begin() as connection, Session(connection) as session:
        record(session, "a", 1)
        session.commit()
        assert recorded(database_url) == []
    assert recorded_types(database_url) == ["a"]
