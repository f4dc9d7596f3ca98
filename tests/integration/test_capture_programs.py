"""Random programs of a session: what was captured, replayed, is the table; and nothing is told that did not happen."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

import outbox
from outbox.capturing import listeners
from tests.support import databases
from tests.support.leads import Base, Seat, empty
from tests.support.property_checks import BESIDE_FIXTURES
from tests.support.savepoint_steps import SavepointSteps

NUMBERS = st.integers(0, 3)
NAMES = (
    *("insert", "insert", "change", "change", "move", "delete", "bulk_change", "bulk_delete", "flush", "expire"),
    *(
        "savepoint",
        "savepoint",
        "savepoint",
        "release",
        "undo",
        "undo",
        "commit",
        "rollback",
        "release_outermost",
        "undo_outermost",
    ),
)
STEPS = st.tuples(st.sampled_from(NAMES), NUMBERS, NUMBERS)
Table = dict[int, Any]


class Program(SavepointSteps):
    """Runs steps on one session, and replays what was recorded at each commit."""

    def __init__(self, engine: sqlalchemy.Engine, session: Session) -> None:
        super().__init__(session)
        self.engine = engine
        self.replayed: Table = {}

    def run(self, steps: list[tuple]) -> None:
        for name, *arguments in steps:
            step = getattr(self, name)
            step(*arguments[: step.__code__.co_argcount - 1])
        self.commit()

    def seat(self, number: int) -> Seat | None:
        return self.session.scalars(select(Seat).where(Seat.number == number)).one_or_none()

    def insert(self, number: int, guest: int) -> None:
        if self.seat(number) is None:
            self.session.add(Seat(hall="a", number=number, guest=str(guest)))

    def change(self, number: int, guest: int) -> None:
        if seat := self.seat(number):
            seat.guest = str(guest)

    def move(self, number: int, to: int) -> None:
        if (seat := self.seat(number)) and self.seat(to) is None:
            seat.number = to

    def delete(self, number: int) -> None:
        if seat := self.seat(number):
            self.session.delete(seat)

    def bulk_change(self, number: int, guest: int) -> None:
        self.session.execute(update(Seat).where(Seat.number >= number).values(guest=str(guest)))

    def bulk_delete(self) -> None:
        self.session.execute(delete(Seat).where(Seat.number % 2 == 0))

    def flush(self) -> None:
        self.session.flush()

    def expire(self) -> None:
        self.session.flush()
        self.session.expire_all()

    def rollback(self) -> None:
        self.session.rollback()
        self.savepoints.clear()
        assert self.events() == []

    def commit(self) -> None:
        """Commit, with savepoints still open or not, and compare."""
        transaction = self.session.get_transaction()
        if transaction is not None and len(self.savepoints) % 2:
            transaction.commit()
        self.session.commit()
        self.savepoints.clear()
        events = self.events()
        with self.engine.connect() as connection:
            table = {row.number: row.guest for row in connection.execute(text("select number, guest from seats"))}
        assert table == replay(self.replayed, events)
        self.replayed = table

    def events(self) -> list[tuple[str, Any, Any]]:
        with self.engine.begin() as connection:
            rows = connection.execute(text("select type, payload from outbox.events order by seq")).all()
            for name in ("events", "pending"):
                connection.execute(text(f"delete from outbox.{name}"))
        return [(row.type, *json.loads(row.payload)) for row in rows]


def replay(table: Table, events: list[tuple[str, Any, Any]]) -> Table:
    """Return the table after one transaction's events; each row's event is its only one, and true."""
    kinds = {(False, True): "made", (True, True): "changed", (True, False): "gone"}
    for kind, before, after in events:
        assert kind == kinds[bool(before), bool(after)]
        assert before != after
        assert not before or table[before["number"]] == before["guest"]
    gone = [before["number"] for _, before, _ in events if before]
    come = [after["number"] for _, _, after in events if after]
    assert len(gone) == len(set(gone))
    assert len(come) == len(set(come))
    kept = {number: guest for number, guest in table.items() if number not in gone}
    return kept | {after["number"]: after["guest"] for _, _, after in events if after}


@pytest.fixture(scope="module")
def engine(server_url, migrated_template):
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        Base.metadata.create_all(engine)
        yield engine


@given(steps=st.lists(STEPS, min_size=10, max_size=25))
@example(steps=[("insert", 0, 0), ("insert", 2, 0), ("bulk_delete", 0, 0), ("insert", 0, 0), ("move", 0, 2)])
@settings(max_examples=150, suppress_health_check=BESIDE_FIXTURES)
def test_what_was_captured_replayed_is_the_table(engine, steps):
    capture = outbox.capture(
        Seat,
        created="made",
        updated="changed",
        deleted="gone",
        bulk="cover",
        data=lambda change: [change.before, change.after],
    )
    try:
        with engine.begin() as connection:
            empty(connection)
        with Session(engine) as session:
            Program(engine, session).run(steps)
    finally:
        capture.remove()
    assert not any(listeners.event.contains(target, name, function) for target, name, function, _ in listeners.HEARD)
