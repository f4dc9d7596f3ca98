"""Tables that are captured: leads of several kinds, their notes and demos, and what the outbox then holds of them."""

from __future__ import annotations

import enum
import json
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import JSON, Connection, Engine, FetchedValue, ForeignKey, func, text
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    """The tables."""


class Status(enum.Enum):
    """Where a demo stands."""

    MADE = "made"
    FAILED = "failed"
    DONE = "done"


class Lead(Base):
    """A row with defaults of either side, and children that go with it."""

    __tablename__ = "leads"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="new")
    owner: Mapped[str] = mapped_column(server_default="nobody")
    score: Mapped[Decimal | None]
    extra: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(JSON))
    body: Mapped[str | None] = mapped_column(deferred=True)
    changes: Mapped[int] = mapped_column(server_default="0", onupdate=text("leads.changes + 1"))
    notes: Mapped[list[Note]] = relationship(back_populates="lead", cascade="all, delete-orphan")
    demos: Mapped[list[Demo]] = relationship(back_populates="lead")


class Note(Base):
    """A child that dies with its lead, or without it."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("leads.id"))
    lead: Mapped[Lead | None] = relationship(back_populates="notes")


class Demo(Base):
    """A child that stays, with an enumeration, a time without zone, and a column that its trigger would set."""

    __tablename__ = "demos"

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[Status] = mapped_column(default=Status.MADE)
    at: Mapped[datetime] = mapped_column(server_default=func.localtimestamp())
    lead_id: Mapped[int | None] = mapped_column(ForeignKey("leads.id"))
    touched: Mapped[int | None] = mapped_column(server_onupdate=FetchedValue())
    lead: Mapped[Lead | None] = relationship(back_populates="demos")


class Seat(Base):
    """A composite key, part of which may change."""

    __tablename__ = "seats"

    hall: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    guest: Mapped[str | None]


class Vehicle(Base):
    """The base of a hierarchy of joined tables."""

    __tablename__ = "vehicles"
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]


class Truck(Vehicle):
    """Has a table of its own."""

    __tablename__ = "trucks"
    __mapper_args__: ClassVar = {"polymorphic_identity": "truck"}

    id: Mapped[int] = mapped_column(ForeignKey("vehicles.id"), primary_key=True)
    tons: Mapped[int]


class Bike(Vehicle):
    """Shares the table of its base."""

    __mapper_args__: ClassVar = {"polymorphic_identity": "bike"}

    gears: Mapped[int | None]


class Recorded(NamedTuple):
    """An event: its type, key, tenant and data."""

    type: str
    key: str | None
    data: Any
    tenant: str


def recorded(engine: Engine) -> list[Recorded]:
    """Return the committed events in order, and delete them."""
    with engine.begin() as connection:
        rows = connection.execute(text("select type, key, payload, tenant from outbox.events order by seq")).all()
        for table in ("events", "pending"):
            connection.execute(text(f"delete from outbox.{table}"))
    return [Recorded(row.type, row.key, json.loads(row.payload), row.tenant) for row in rows]


def types(engine: Engine) -> list[str]:
    """Return the types of the committed events in order, and delete the events."""
    return [one.type for one in recorded(engine)]


def empty(connection: Connection) -> None:
    """Delete all rows and events, and begin to count anew."""
    names = ", ".join(table.fullname for table in Base.metadata.sorted_tables)
    connection.execute(text(f"truncate {names} restart identity cascade"))
    for table in ("events", "pending"):
        connection.execute(text(f"delete from outbox.{table}"))


def add_lead(engine: Engine, **values: Any) -> int:
    """Commit a lead, unheard by what the caller captures only later; return its id."""
    with Session(engine) as session:
        lead = Lead(**{"name": "Ann"} | values)
        session.add(lead)
        session.commit()
        return lead.id
