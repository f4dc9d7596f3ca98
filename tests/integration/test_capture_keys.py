"""Captured rows whose primary key is not the very value that the database returns: UUIDs as text, CHAR(n) and such."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import CHAR, Column, Table, func, text
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import NullType

import outbox
from tests.support import databases
from tests.support.leads import recorded

TEXT = "5b2c9d1e-0000-4000-8000-00000000000a"


class Base(DeclarativeBase):
    """The tables."""


class Named(Base):
    """A row with a value that only the database knows after an UPDATE."""

    __abstract__ = True

    name: Mapped[str]
    touched: Mapped[datetime | None] = mapped_column(onupdate=func.now())


class ByUuid(Named):
    __tablename__ = "by_uuid"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class ByChar(Named):
    __tablename__ = "by_char"
    id: Mapped[str] = mapped_column(CHAR(10), primary_key=True)


class ByNumber(Named):
    __tablename__ = "by_number"
    id: Mapped[int] = mapped_column(primary_key=True)


class ByCitext(Named):
    __tablename__ = "by_citext"
    id: Mapped[str] = mapped_column(CITEXT, primary_key=True)


class ByBoth(Named):
    __tablename__ = "by_both"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(CHAR(4), primary_key=True)


class ByGuess(Named):
    """Its table was made by others; the type of its key is the database's guess."""

    __table__ = Table(
        "by_guess",
        Base.metadata,
        Column("id", NullType, primary_key=True),
        Column("name", sqlalchemy.Text),
        Column("touched", sqlalchemy.DateTime, onupdate=func.now()),
    )


KEYS: list[tuple[type, dict[str, Any]]] = [
    (ByUuid, {"id": TEXT}),
    (ByUuid, {"id": TEXT.upper()}),
    (ByChar, {"id": "ab"}),
    (ByNumber, {"id": "7"}),
    (ByCitext, {"id": "Ab"}),
    (ByBoth, {"id": TEXT, "code": "x"}),
    (ByGuess, {"id": TEXT}),
]


@pytest.fixture(scope="module")
def captured_engine(server_url, migrated_template) -> Iterator[sqlalchemy.Engine]:
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        with engine.begin() as connection:
            connection.execute(text("create extension citext"))
            connection.execute(text("create table by_guess (id uuid primary key, name text, touched timestamp)"))
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(captured_engine) -> Iterator[sqlalchemy.Engine]:
    asked = {"created": "made", "updated": "changed", "deleted": "gone"}
    captures = [outbox.capture(one, **asked) for one in Named.__subclasses__()]
    yield captured_engine
    for one in captures:
        one.remove()
    with captured_engine.begin() as connection:
        names = ", ".join(table.fullname for table in Base.metadata.sorted_tables)
        connection.execute(text(f"truncate {names}"))
        for table in ("events", "pending"):
            connection.execute(text(f"delete from outbox.{table}"))


@pytest.mark.parametrize(("model", "key"), KEYS)
def test_a_change_is_told_as_one_whatever_form_the_key_has(engine, model, key):
    with Session(engine, expire_on_commit=False) as session:
        session.add(row := model(**key, name="a"))
        session.commit()
        row.name = "b"
        session.commit()
        made, changed = recorded(engine)
    assert (made.type, changed.type) == ("made", "changed")
    assert changed.data["name"] == "b"
    assert changed.data["touched"] is not None
    assert changed.key == made.key


@pytest.mark.parametrize(("model", "key"), KEYS)
def test_old_values_that_are_not_loaded_are_read_whatever_form_the_key_has(engine, model, key):
    with Session(engine, expire_on_commit=False) as session:
        session.add(row := model(**key, name="a"))
        session.commit()
        recorded(engine)
        session.expire(row, ["name"])
        row.name = "b"
        session.commit()
        session.expire(row, ["name"])
        session.delete(row)
        session.commit()
        changed, gone = recorded(engine)
    assert (changed.type, gone.type) == ("changed", "gone")
    assert changed.data["name"] == "b"
    assert gone.data["name"] == "b"


@pytest.mark.parametrize(("model", "key"), KEYS)
def test_a_key_in_another_form_is_no_change_of_it(engine, capture_changes, model, key):
    with Session(engine, expire_on_commit=False) as session:
        session.add(row := model(**key, name="a"))
        session.commit()
        changes = capture_changes(model)
        row.name = "b"
        session.commit()
    assert changes == [("name", "touched")]


@pytest.fixture
def capture_changes() -> Iterator:
    captures = []

    def begin(model) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        captures.append(
            outbox.capture(model, updated="told", data=lambda change: found.append(tuple(sorted(change.changed))))
        )
        return found

    yield begin
    for one in captures:
        one.remove()


def test_a_row_that_the_database_deleted_is_gone_beside_one_that_stays(engine):
    with Session(engine, expire_on_commit=False) as session:
        session.add(stays := ByUuid(id=TEXT, name="a"))
        session.commit()
        session.add(goes := ByUuid(id=uuid.uuid4(), name="a"))
        session.commit()
        recorded(engine)
        for row in (stays, goes):  # SQLAlchemy does not sort keys of two types in one flush
            row.name = "b"
            session.flush()
        by_itself = {"outbox_capture": "ignore"}
        gone = text("delete from by_uuid where id <> cast(:id as uuid)")
        session.execute(gone, {"id": TEXT}, execution_options=by_itself)
        session.commit()
        assert {one.type: one.key for one in recorded(engine)} == {"changed": TEXT, "gone": str(goes.id)}
