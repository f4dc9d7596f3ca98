"""The tables of notely, a session for each request, and who asks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, HTTPException
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import outbox
import outbox.schema

engine = create_engine(os.environ["DATABASE_URL"])


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    token: Mapped[str] = mapped_column(unique=True)


class Email(Base):
    __tablename__ = "emails"
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    subject: Mapped[str]
    sender: Mapped[str]


class Task(Base):
    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    title: Mapped[str]
    done: Mapped[bool] = mapped_column(default=False)


def init_db() -> None:
    """Create the application's tables, and those of its webhooks; what is there already stays."""
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        outbox.schema.migrate(connection)


async def get_session() -> AsyncIterator[Session]:
    """Give a session for the request, which is also the one that events are recorded on."""
    with Session(engine) as session, outbox.use_session(session):
        yield session


Database = Annotated[Session, Depends(get_session)]


def current_user(session: Database, authorization: Annotated[str, Header()] = "") -> User:
    """Return who asks, by the token of `Authorization: Bearer …`."""
    token = authorization.removeprefix("Bearer ")
    if (user := session.scalar(select(User).where(User.token == token))) is None:
        raise HTTPException(401, "Authorization: give a user's token")
    return user


Me = Annotated[User, Depends(current_user)]
