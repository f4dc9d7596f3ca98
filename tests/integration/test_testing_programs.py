"""Random programs on a session: `recorded()` shows at each step what a commit now would keep, no more and no less."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

import outbox
from outbox import testing
from tests.support.property_checks import BESIDE_FIXTURES
from tests.support.savepoint_steps import SavepointSteps

STEPS = (
    "record",
    "record",
    "record",
    "silent",
    "refused",
    "savepoint",
    "release",
    "undo",
    "flush",
    "commit",
    "rollback",
)


@pytest.fixture(scope="module")
def engine(server_url: str) -> Iterator[sa.Engine]:
    with testing.database(server_url) as url:
        made = sa.create_engine(url)
        yield made
        made.dispose()


class Program(SavepointSteps):
    """A session, and what is kept of it: the committed events, then a list for each open transaction and savepoint."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.number = 0
        self.committed: list[int] = []
        self.open: list[list[int]] = [[]]

    def run(self, step: str) -> None:
        getattr(self, f"do_{step}")()

    def do_record(self) -> None:
        self.number += 1
        outbox.record(self.session, "noted", self.number)
        self.open[-1].append(self.number)

    def do_silent(self) -> None:
        with outbox.silenced():
            outbox.record(self.session, "noted", 0)

    def do_refused(self) -> None:
        outbox.record(self.session, "noted", object(), on_error="log")

    def do_savepoint(self) -> None:
        self.savepoint()
        self.open.append([])

    def do_release(self) -> None:
        if self.savepoints:
            self.release()
            self.open[-2].extend(self.open.pop())

    def do_undo(self) -> None:
        if self.savepoints:
            self.undo()
            self.open.pop()

    def do_flush(self) -> None:
        self.session.flush()

    def do_commit(self) -> None:
        self.savepoints.clear()
        self.session.commit()
        self.committed += [number for events in self.open for number in events]
        self.open = [[]]

    def do_rollback(self) -> None:
        self.savepoints.clear()
        self.session.rollback()
        self.open = [[]]

    @property
    def kept(self) -> list[int]:
        return self.committed + [number for events in self.open for number in events]


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=BESIDE_FIXTURES)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=15))
def test_what_is_recorded_is_what_a_commit_would_keep(steps: list[str], engine: sa.Engine) -> None:
    testing.empty(engine)
    with Session(engine) as session:
        program = Program(session)
        for step in steps:
            program.run(step)
            found = testing.recorded(session)
            assert [event.data for event in found] == program.kept, step
            assert {event.data for event in found if not event.unwritten} >= set(program.committed)
        session.rollback()
    assert [event.data for event in testing.recorded(engine)] == program.committed
