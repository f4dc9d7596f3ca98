"""The tables of leads, demos and videos."""

from __future__ import annotations

import os

from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_engine(os.environ["DATABASE_URL"])


class Base(DeclarativeBase): ...


class Lead(Base):
    __tablename__ = "leads"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(default="scraped")
    note: Mapped[str] = mapped_column(default="")


class Demo(Base):
    __tablename__ = "demos"
    id: Mapped[int] = mapped_column(primary_key=True)
    lead_id: Mapped[int] = mapped_column(ForeignKey(Lead.id))
    status: Mapped[str] = mapped_column(default="building")
    approved: Mapped[bool | None]


class Video(Base):
    __tablename__ = "videos"
    id: Mapped[int] = mapped_column(primary_key=True)
    demo_id: Mapped[int] = mapped_column(ForeignKey(Demo.id))
    status: Mapped[str] = mapped_column(default="rendering")
    approved: Mapped[bool | None]


class Run(Base):
    """A run of a workflow, as n8n told of it last."""

    __tablename__ = "workflow_runs"
    execution_id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
