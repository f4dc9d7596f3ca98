"""Random programs of messages that are handled, fail, come again or are forged: each is acted upon once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from outbox.inbox import Received, Refused, Request, refusals
from outbox.inbox import receiving as inside
from outbox.signing.verify import new_secret
from tests.support import databases
from tests.support.property_checks import BESIDE_FIXTURES

SECRET, OTHER = new_secret(), new_secret()
BODY = b'{"type":"a","timestamp":"2026-11-21T10:00:00Z","data":{}}'
STEP = st.tuples(
    st.integers(0, 3),
    st.sampled_from(("handled", "failing", "refused", "forged", "received", "received and rolled back")),
)
sources = count()


@pytest.fixture(scope="module")
def engine(server_url: str, migrated_template: str) -> Iterator[sa.Engine]:
    with databases.database(server_url, template=migrated_template) as url:
        with psycopg.connect(url) as connection:
            connection.execute("create table effect (source text, message text)")
        with databases.engine_on(url) as engine:
            yield engine


def request(number: int, secret: str) -> Request:
    return Request("POST", "/hooks", outbox.signed_headers(secret, f"msg_{number}", BODY), BODY)


def act(session: Session, message: Received) -> None:
    """Write what the message is about, also in a savepoint that is undone, and record the next event."""
    values = {"s": message.source, "m": message.id}
    with session.begin_nested() as undone:
        session.execute(sa.text("insert into effect values (:s, 'undone')"), values)
        undone.rollback()
    session.execute(sa.text("insert into effect values (:s, :m)"), values)
    outbox.record(session, "acted", {"id": message.id}, key=message.source)


def step(session: Session, source: str, number: int, how: str) -> str:
    """Do one step of a program; return what came of it."""

    def handle(message: Received) -> None:
        act(session, message)
        if how == "failing":
            raise ZeroDivisionError
        if how == "refused":
            raise Refused("not now", status=422)

    given = request(number, OTHER if how == "forged" else SECRET)
    if how.startswith("received"):
        message = outbox.inbox.receive(session, given, SECRET, source=source)
        if not message.duplicate:
            act(session, message)
        session.rollback() if how.endswith("back") else session.commit()
        return "rolled back" if how.endswith("back") else "duplicate" if message.duplicate else "accepted"
    try:
        return outbox.inbox.process(session, given, SECRET, handle, source=source).outcome
    except ZeroDivisionError:
        return "failed"


def expected(taken: set[int], number: int, how: str) -> str:
    """What comes of a step where these messages are taken; the set is what they are after it."""
    known = {"forged": "refused", "received and rolled back": "rolled back"}
    if how in known:
        return known[how]
    if number in taken:
        return "duplicate"
    if how in ("failing", "refused"):
        return {"failing": "failed"}.get(how, how)
    taken.add(number)
    return "accepted"


@settings(max_examples=60, suppress_health_check=BESIDE_FIXTURES)
@given(program=st.lists(STEP, max_size=12))
def test_each_message_is_acted_upon_once_whatever_came_before(
    program: list[tuple[int, str]], engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "refusals_kept", refusals.Bound())
    source, taken = f"p{next(sources)}", set[int]()
    with Session(engine) as session:
        for number, how in program:
            assert step(session, source, number, how) == expected(taken, number, how)
    wanted = sorted(f"msg_{number}" for number in taken)
    with engine.connect() as connection:
        for statement in (
            "select message from effect where source = :s",
            "select message_id from outbox.inbox_ids where source = :s",
            "select payload::json ->> 'id' from outbox.events where key = :s",
            "select message_id from outbox.inbox where source = :s and outcome = 'accepted'",
        ):
            assert sorted(connection.execute(sa.text(statement), {"s": source}).scalars()) == wanted, statement
