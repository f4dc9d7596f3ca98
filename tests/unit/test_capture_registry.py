"""Who listens to a class or a table, where another thread captures it while the answer is computed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import outbox
from outbox.capturing import registry
from tests.support.leads import Lead


@pytest.fixture
def capture() -> Iterator:
    """`outbox.capture` of leads, whose captures end with the test."""
    made = []

    def capture() -> outbox.Capture:
        made.append(outbox.capture(Lead, created="lead.made"))
        return made[-1]

    yield capture
    for one in made:
        one.remove()


def test_a_capture_made_while_a_class_is_looked_up_is_found_later(monkeypatch, capture):
    first = capture()
    shape_of, later = registry.shape_of, []

    def interrupted(*arguments):
        if not later:  # as another thread does
            later.append(capture())
        return shape_of(*arguments)

    monkeypatch.setattr(registry, "shape_of", interrupted)
    registry.watch_of(Lead.__mapper__)
    assert registry.watch_of(Lead.__mapper__).captures == (first, *later)


def test_a_capture_made_while_a_table_is_looked_up_is_found_later(monkeypatch, capture):
    first, later = capture(), []

    def interrupted() -> Iterator:
        yield first
        monkeypatch.undo()
        later.append(capture())  # as another thread does, when all captures have been seen

    monkeypatch.setattr("outbox.capturing.registry._registry.captures", interrupted())
    registry.captures_of_table(Lead.__table__)
    assert registry.captures_of_table(Lead.__table__) == (first, *later)
