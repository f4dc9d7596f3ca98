"""A session that routes reads to a follower and writes to the primary: events go where the rows go, or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql import Insert

from outbox import TransactionError, record
from tests.support.recording import Order, engine_of, recorded_types, shop_database

pytestmark = pytest.mark.field("F69")


@pytest.fixture
def primary(server_url: str, migrated_template: str) -> Iterator[sa.Engine]:
    with shop_database(server_url, migrated_template) as url:
        engine = engine_of(url, "psycopg")
        yield engine
        engine.dispose()


@pytest.fixture
def follower(primary: sa.Engine) -> Iterator[sa.Engine]:
    """Another engine: what it commits is another transaction."""
    engine = sa.create_engine(primary.url)
    yield engine
    engine.dispose()


def routing(primary: sa.Engine, follower: sa.Engine, *, sees_inserts: bool) -> Session:
    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> sa.Engine:
            writes = self._flushing or (sees_inserts and isinstance(clause, Insert))
            return primary if writes else follower

    return Routing()


def url_of(engine: sa.Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def test_the_bind_is_asked_for_as_for_an_insert(primary: sa.Engine, follower: sa.Engine) -> None:
    with routing(primary, follower, sees_inserts=True) as session:
        assert session.execute(sa.text("select 1")).scalar() == 1
        session.add(Order(id=1))
        record(session, "order.placed", {})
        session.commit()
    assert recorded_types(url_of(primary)) == ["order.placed"]


def test_an_event_that_would_go_into_another_transaction_is_refused(primary: sa.Engine, follower: sa.Engine) -> None:
    with routing(primary, follower, sees_inserts=False) as session:
        session.add(Order(id=1))
        record(session, "order.placed", {})
        with pytest.raises(TransactionError, match="another transaction: let get_bind"):
            session.commit()
        session.rollback()
    assert recorded_types(url_of(primary)) == []
    with primary.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(Order)).scalar() == 0
