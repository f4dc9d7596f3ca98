"""Random programs of savepoints, flushes and failures, against an oracle that inserts at once by SQL."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from outbox import record
from tests.support.property_checks import BESIDE_FIXTURES
from tests.support.recording import Order, engine_of
from tests.support.savepoint_steps import SavepointSteps

STEPS = (
    *(
        "record",
        "record",
        "record",
        "attempt",
        "refused",
        "savepoint",
        "savepoint",
        "release",
        "release",
        "undo",
        "flush",
    ),
    *("fail", "commit", "rollback", "close", "release_outermost", "undo_outermost"),
)


REFUSE = """
create function refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
create trigger refuse before insert on outbox.events for each row when (new.type = 'refused') execute function refuse();
"""


class Program(SavepointSteps):
    """Runs steps on one session. Each event is also a row of the table oracle, inserted when it is recorded."""

    numbers = itertools.count()

    def run(self, steps: list[str]) -> None:
        for step in steps:
            getattr(self, step)()
        self.commit()

    def record(self) -> None:
        event = record(self.session, "step", next(self.numbers))
        self.session.connection().execute(text("insert into oracle (id) values (:id)"), {"id": event.id})

    def attempt(self) -> None:
        """Record one that may be refused, between others that may not; its place is kept."""
        event = record(self.session, "attempt", next(self.numbers), on_error="log")
        self.session.connection().execute(text("insert into oracle (id) values (:id)"), {"id": event.id})

    def refused(self) -> None:
        """Record one that the database refuses: nothing else of the transaction suffers."""
        record(self.session, "refused", next(self.numbers), on_error="log")

    def flush(self) -> None:
        self.session.add(Order())
        self.session.flush()

    def fail(self) -> None:
        self.session.add_all([Order(number=1), Order(number=1)])
        with pytest.raises(IntegrityError):
            self.session.flush()
        self.undo() if self.savepoints else self.session.rollback()

    def commit(self) -> None:
        self.session.commit()
        self.savepoints.clear()

    def rollback(self) -> None:
        self.session.rollback()
        self.savepoints.clear()

    def close(self) -> None:
        self.session.close()
        self.savepoints.clear()


@pytest.fixture
def shop(database_url):
    engine = engine_of(database_url)
    with engine.begin() as connection:
        connection.execute(text("create table oracle (place serial primary key, id text)"))
        connection.execute(text(REFUSE))
    yield engine
    engine.dispose()


@pytest.mark.filterwarnings("ignore:events are lost:ResourceWarning")
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
@settings(max_examples=200, suppress_health_check=BESIDE_FIXTURES)
def test_the_events_are_those_a_plain_insert_would_leave_in_the_same_order(shop, steps):
    with Session(shop) as session:
        Program(session).run(steps)
    with shop.begin() as connection:
        expected = connection.scalars(text("select id from oracle order by place")).all()
        actual = connection.scalars(text("select outbox.text_id('evt', id) from outbox.events order by seq")).all()
        for table in ("oracle", "outbox.events", "outbox.pending"):
            connection.execute(text(f"delete from {table}"))
    assert actual == expected
