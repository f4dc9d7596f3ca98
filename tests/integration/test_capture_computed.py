"""Captured values that the database makes of a row in its UPDATE: computed columns, and SQL that a listener sets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest
import sqlalchemy
from sqlalchemy import Computed, event, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import outbox
from tests.support import databases
from tests.support.leads import recorded, types

LONG_AGO = datetime.fromisoformat("2000-01-01")


class Base(DeclarativeBase):
    """The tables."""


class Order(Base):
    """Its total is computed from what is not captured."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[int]
    count: Mapped[int] = mapped_column(default=1)
    total: Mapped[int] = mapped_column(Computed("price * count", persisted=True))


class Parcel(Base):
    """The database computes nothing of it."""

    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int]
    touched: Mapped[datetime | None]


@pytest.fixture(scope="module")
def captured_engine(server_url, migrated_template) -> Iterator[sqlalchemy.Engine]:
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(captured_engine) -> sqlalchemy.Engine:
    with captured_engine.begin() as connection:
        connection.execute(text("truncate orders, parcels"))
        connection.execute(text("insert into orders (id, price, count) values (1, 2, 3)"))
        connection.execute(text("insert into parcels (id, weight, touched) values (1, 1, '2000-01-01')"))
    recorded(captured_engine)
    return captured_engine


@pytest.fixture
def capture() -> Iterator:
    made = []

    def capture(model, **asked) -> None:
        made.append(outbox.capture(model, **asked))

    yield capture
    for one in made:
        one.remove()


@pytest.fixture
def begin_to_touch() -> Iterator:
    """Adds a listener that sets SQL; it is heard after the captures that there are."""

    def touch(_mapper, _connection, parcel) -> None:
        parcel.touched = func.localtimestamp()

    yield lambda: event.listen(Parcel, "before_update", touch)
    event.remove(Parcel, "before_update", touch)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_change_of_a_column_that_is_not_captured_computes_one_that_is(engine, capture, loaded):
    capture(Order, updated="order.changed", columns=["total"])
    with Session(engine) as session:
        order = session.get(Order, 1)
        if not loaded:
            session.expire(order)
        order.price = 10
        session.commit()
        assert [one.data for one in recorded(engine)] == [{"total": 30}]
        order.price, order.count = 30, 1
        session.commit()
        assert types(engine) == []


def test_a_computed_column_becomes_the_value_that_was_named(engine, capture):
    capture(Order, became={"total": {30: "order.thirty"}}, columns=["id"])
    with Session(engine) as session:
        session.get(Order, 1).price = 10
        session.commit()
    assert types(engine) == ["order.thirty"]


@pytest.mark.parametrize("loaded", [True, False])
def test_what_a_later_listener_sets_to_sql_is_read(engine, capture, begin_to_touch, loaded):
    capture(Parcel, updated="parcel.changed")
    begin_to_touch()
    with Session(engine) as session:
        parcel = session.get(Parcel, 1)
        if not loaded:
            session.expire(parcel)
        parcel.weight = 10
        session.commit()
        (told,) = recorded(engine)
        assert told.key == "1"
        assert told.data["touched"] == parcel.touched.isoformat() != LONG_AGO.isoformat()


def test_each_flush_is_told_what_a_later_listener_set(engine, capture, begin_to_touch):
    changes = []
    capture(Parcel, updated="parcel.changed", each_flush=True, data=changes.append)
    begin_to_touch()
    with Session(engine) as session:
        parcel = session.get(Parcel, 1)
        parcel.weight = 10
        session.commit()
        touched = parcel.touched
    assert [(one.before["touched"], one.after["touched"]) for one in changes] == [(LONG_AGO, touched)]
