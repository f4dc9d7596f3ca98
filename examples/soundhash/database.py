"""The tables of SoundHash, an asynchronous session for each request, and who asks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, HTTPException
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import outbox

engine = create_engine(os.environ["DATABASE_URL"])
async_engine = create_async_engine(os.environ["DATABASE_URL"])


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    username: Mapped[str]
    email: Mapped[str]
    api_key: Mapped[str] = mapped_column(unique=True)
    plan: Mapped[str] = mapped_column(default="free")
    calls: Mapped[int] = mapped_column(default=0)


class Video(Base):
    __tablename__ = "videos"
    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    state: Mapped[str] = mapped_column(default="waiting")


async def get_session() -> AsyncIterator[AsyncSession]:
    """Give a session for the request, which is also the one that events are recorded on."""
    async with AsyncSession(async_engine) as session:
        with outbox.use_session(session):
            yield session


Database = Annotated[AsyncSession, Depends(get_session)]


async def current_user(session: Database, authorization: Annotated[str, Header()] = "") -> User:
    """Return who asks, by the key of `Authorization: Bearer …`."""
    key = authorization.removeprefix("Bearer ")
    if (user := await session.scalar(select(User).where(User.api_key == key))) is None:
        raise HTTPException(401, "Authorization: give an API key")
    return user


Me = Annotated[User, Depends(current_user)]


def tenant_and_user(me: Me) -> tuple[str, int]:
    """Return whose webhooks these are: events are a tenant's, and each user manages their own webhooks."""
    return me.tenant_id, me.id
