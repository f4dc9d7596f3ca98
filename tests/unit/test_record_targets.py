"""What a connection says of itself is heard before any SQL is sent."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from outbox import TransactionError, record
from outbox.ids import new_uuid7
from outbox.recording.insert import Row, chunks


class Connection:
    """Stands in for psycopg's, whose name and module are all that record() goes by; counts what is sent."""

    def __init__(self, *, transaction_status=0, autocommit=False, read_only=None, **parameters):
        self.info = SimpleNamespace(
            transaction_status=transaction_status, parameter_status=parameters.get, pipeline_status=0
        )
        self.autocommit = autocommit
        self.read_only = read_only
        self.sent = []


Connection.__module__ = "psycopg"


class Cursor:
    """Stands in for psycopg's."""

    description = None

    def __init__(self, connection, row_factory):
        self.sent = connection.sent

    def execute(self, statement, parameters):
        self.sent.append((statement, parameters))
        return self


@pytest.fixture(autouse=True)
def _cursor(monkeypatch):
    monkeypatch.setattr("psycopg.Cursor", Cursor)


@pytest.mark.case("A29")
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"in_hot_standby": "on"}, "standby"),
        ({"read_only": True}, "read-only"),
        ({"autocommit": True}, "autocommit"),
        ({"transaction_status": 3}, "failed"),
        ({"transaction_status": 4}, "closed"),
    ],
)
def test_a_state_that_is_known_costs_no_sql(state, message):
    connection = Connection(**state)
    with pytest.raises(TransactionError, match=message):
        record(connection, "a", 1)
    assert not connection.sent


@pytest.mark.parametrize(
    "state", [{}, {"in_hot_standby": "off"}, {"autocommit": True, "transaction_status": 2}, {"read_only": False}]
)
def test_every_other_state_is_left_to_the_database(state):
    connection = Connection(**state)
    event = record(connection, "order.created", {"id": 7}, key="7")
    ((statement, row),) = connection.sent
    assert statement.startswith("insert into outbox.events ")
    assert row[1:] == ("order.created", "7", "", '{"id":7}', None, None)
    assert event.id.startswith("evt_")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1], [1]),
        ([1] * 5_000, [5_000]),
        ([1] * 12_000, [5_000, 5_000, 2_000]),
        ([9_000_000, 1], [1, 1]),
        ([1, 9_000_000, 1], [1, 1, 1]),
        ([4_000_000] * 5, [2, 2, 1]),
    ],
)
def test_statements_are_bounded_by_rows_and_by_size(sizes, expected):
    rows = [Row(new_uuid7(), "a", None, "", "x" * size, None, None) for size in sizes]
    parts = [part for _, part in chunks(rows)]
    assert [len(part) for part in parts] == expected
    assert [row for part in parts for row in part] == rows
