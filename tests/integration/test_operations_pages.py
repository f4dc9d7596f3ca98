"""Lists are read a page at a time: every row once, in one order, whatever comes in meanwhile."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from outbox.control import attempts, dead_letters, deliveries, events
from outbox.control.audit import list_audit
from outbox.control.dead_letters import list_dead_letters
from outbox.control.deliveries import list_deliveries
from outbox.control.events import list_events
from outbox.control.filters import FilterError, Filters
from outbox.control.pages import Page
from tests.support import seeding

ROWS = 7
LISTS: dict[str, Callable[[Connection, Filters, str | None], Page[Any]]] = {
    "events": lambda c, filters, after: list_events(c, None, filters, after=after),
    "outstanding": lambda c, filters, after: list_deliveries(c, None, filters, after=after),
    "delivered": lambda c, filters, after: list_deliveries(c, None, filters, "delivered", after=after),
    "dead letters": lambda c, filters, after: list_dead_letters(c, None, filters, after=after),
    "audit": lambda c, filters, after: list_audit(c, None, filters, action="added", after=after),
}


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def filled(connection) -> Connection:
    """Seven rows of each list, three of them of one moment, as one statement makes them."""
    for _ in range(ROWS):
        name = seeding.subscribe(connection)
        made = seeding.resolve(connection, seeding.record(connection), name, name, name)
        seeding.attempt(connection, made[0], "delivered")
        seeding.attempt(connection, made[1], "dead")
    for table, column in (("deliveries", "due_at"), ("attempts", "at"), ("dead_letters", "died_at")):
        rows = f"select ctid from outbox.{table} order by {column} limit 3"
        connection.execute(text(f"update outbox.{table} set {column} = now() where ctid = any(array({rows}))"))
    return connection


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("limit", [1, 2, 3, ROWS, ROWS + 1])
def test_pages_together_are_the_list(name, limit, filled) -> None:
    whole = LISTS[name](filled, Filters(), None)
    assert (len(whole), whole.next) == (ROWS, None)
    pages = list(pages_of(filled, name, limit))
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert [item.id for page in pages for item in page] == [item.id for item in whole]


def pages_of(connection: Connection, name: str, limit: int) -> Iterator[Page[Any]]:
    after = None
    while True:
        page = LISTS[name](connection, Filters(limit=limit), after)
        yield page
        if (after := page.next) is None:
            return


def test_what_is_recorded_meanwhile_moves_nothing(filled) -> None:
    first = list_events(filled, None, Filters(limit=3))
    second = list_events(filled, None, Filters(limit=3), after=first.next)
    seeding.record(filled)
    again = list_events(filled, None, Filters(limit=3), after=first.next)
    assert [item.id for item in again] == [item.id for item in second]


@pytest.mark.parametrize("name", LISTS)
def test_a_cursor_of_another_list_and_what_is_none_is_refused(name, filled) -> None:
    others = [LISTS[other](filled, Filters(limit=1), None).next for other in LISTS if other != name]
    for cursor in (*others, "", "?", "bnVsbA", "WyJldmVudHMiLCAiMWUzMCJd", "W" * 5000, "ü"):
        with pytest.raises(FilterError, match=r"^after: is no cursor of this list; give the one"):
            LISTS[name](filled, Filters(), cursor)


def test_what_belongs_to_one_event_goes_on_too(connection, monkeypatch) -> None:
    for module in (attempts, deliveries, dead_letters):
        monkeypatch.setattr(module, "PAGE_ROWS", 2)
    subscription_id, event_id = seeding.subscribe(connection), seeding.record(connection)
    made = seeding.resolve(connection, event_id, *[subscription_id] * 6)
    for delivery_id in made[:3]:
        seeding.attempt(connection, delivery_id, "dead")
    shown = events.show_event(connection, None, event_id)
    rest = (
        deliveries.outstanding_of_event(connection, None, event_id, after=shown.deliveries.next),
        attempts.attempts_of_event(connection, None, event_id, after=shown.attempts.next),
        dead_letters.dead_of_event(connection, None, event_id, after=shown.dead_letters.next),
    )
    assert [len(page) for page in (shown.deliveries, shown.attempts, shown.dead_letters)] == [2, 2, 2]
    assert [(len(page), page.next) for page in rest] == [(1, None)] * 3
    assert {item.delivery_id for item in (*shown.dead_letters, *rest[2])} == {
        item.delivery_id for item in (*shown.attempts, *rest[1])
    }


@pytest.mark.parametrize("value", ["Infinity", "1e999", "NaN", "true", "7", "null", "[]"])
def test_a_forged_cursor_is_one_clear_error(connection: Connection, value: str) -> None:
    """A cursor that we made holds text only; JSON can say numbers that no integer can hold."""
    forged = base64.urlsafe_b64encode(f'["events", {value}]'.encode()).decode().rstrip("=")
    with pytest.raises(FilterError, match=r"^after: is no cursor of this list"):
        list_events(connection, None, Filters(), after=forged)


@pytest.mark.parametrize("moment", ["2026-03-01T12:00:00+23:59", "2026-03-01T12:00:00-16:00"])
def test_a_cursor_in_a_zone_that_the_database_does_not_know_is_read(connection: Connection, moment: str) -> None:
    """Python reads zones up to a day away, PostgreSQL below sixteen hours: it was an error of ours."""
    forged = base64.urlsafe_b64encode(f'["deliveries", "{moment}", "{UUID(int=0)}"]'.encode()).decode()
    assert len(deliveries.list_deliveries(connection, "acme", Filters(), after=forged.rstrip("="))) == 0


def test_a_cursor_before_the_first_year_is_refused(connection: Connection) -> None:
    forged = base64.urlsafe_b64encode(f'["deliveries", "0001-01-01T00:00:00+23:59", "{UUID(int=0)}"]'.encode())
    with pytest.raises(FilterError, match=r"^after: is no cursor of this list"):
        deliveries.list_deliveries(connection, "acme", Filters(), after=forged.decode().rstrip("="))
