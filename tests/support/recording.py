"""A small shop whose transactions record events, and what the database then holds of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
import sqlalchemy
from psycopg.rows import namedtuple_row
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support import databases


class Base(DeclarativeBase):
    """The tables of the shop."""


class Order(Base):
    """A business row that events tell of; `number` makes a flush fail when it is not unique."""

    __tablename__ = "shop_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None] = mapped_column(unique=True)


class Recorded(NamedTuple):
    """A row of outbox.events."""

    id: str
    type: str
    key: str | None
    tenant: str
    payload: str


@contextmanager
def shop_database(server_url: str, template: str) -> Iterator[str]:
    """Yield the URL of a migrated database with the shop's tables, for several tests one after the other."""
    with databases.database(server_url, template=template) as url:
        engine_of(url).dispose()
        yield url


def emptied(database_url: str) -> str:
    """Return the URL after removing what earlier tests left in that database."""
    with psycopg.connect(database_url) as connection:
        for table in ("outbox.events", "outbox.pending", "shop_order"):
            connection.execute(f"delete from {table}")
    return database_url


def engine_of(database_url: str, driver: str = "psycopg", **options: object) -> Engine:
    """Return an engine on the given driver, with the shop's tables made."""
    engine = sqlalchemy.create_engine(make_url(database_url).set(drivername=f"postgresql+{driver}"), **options)
    Base.metadata.create_all(engine)
    return engine


def recorded(database_url: str) -> list[Recorded]:
    """Return the committed events in the database's order, after checking that exactly they are pending."""
    with psycopg.connect(database_url) as connection:
        cursor = connection.cursor(row_factory=namedtuple_row)
        cursor.execute(
            "select seq, outbox.text_id('evt', id) as id, type, key, tenant, payload from outbox.events order by seq"
        )
        rows = cursor.fetchall()
        pending = connection.execute("select event_seq from outbox.pending order by 1").fetchall()
    assert [seq for (seq,) in pending] == [row.seq for row in rows]
    return [Recorded(*row[1:]) for row in rows]


def recorded_types(database_url: str) -> list[str]:
    """Return the types of the committed events in the database's order."""
    return [row.type for row in recorded(database_url)]


class Statements(list[str]):
    """The statements an engine has sent since this was made."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.append(statement)

    @property
    def of_events(self) -> list[str]:
        """Those that insert events."""
        return [statement for statement in self if "into outbox.events" in statement]
