"""`capture()` on SQLAlchemy's unit of work: which events a transaction's changes give, and what they carry."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import ClassVar

import pytest
import sqlalchemy
from sqlalchemy import event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    make_transient,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.orm.exc import StaleDataError

import outbox
from outbox.capturing.registry import has_captures
from tests.support import databases
from tests.support.leads import Base, Bike, Demo, Lead, Note, Seat, Status, Truck, Vehicle, empty, recorded, types
from tests.support.recording import Statements


@pytest.fixture(scope="module")
def captured_engine(server_url, migrated_template) -> Iterator[sqlalchemy.Engine]:
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
    ):
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(captured_engine) -> sqlalchemy.Engine:
    with captured_engine.begin() as connection:
        empty(connection)
    return captured_engine


@pytest.fixture
def capture() -> Iterator:
    """`outbox.capture`, whose captures end with the test."""
    made = []

    def capture(model, **asked):
        made.append(outbox.capture(model, **asked))
        return made[-1]

    yield capture
    for one in made:
        one.remove()
    assert not has_captures()


ALL = {"created": "lead.scraped", "updated": "lead.updated", "deleted": "lead.deleted"}
WHOLE = {
    "id": 1,
    "name": "Ann",
    "status": "new",
    "owner": "nobody",
    "score": None,
    "extra": None,
    "body": None,
    "changes": 0,
}


@pytest.fixture
def leads(capture):
    return capture(Lead, **ALL)


@pytest.fixture
def ann(engine, leads) -> int:
    """The id of a lead that is there already."""
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann"))
        session.commit()
        types(engine)
        return lead.id


def test_a_new_row_is_recorded_with_what_the_database_gave_it(engine, leads):
    with Session(engine) as session:
        session.add(Lead(name="Ann"))
        session.commit()
    assert recorded(engine) == [("lead.scraped", "1", WHOLE, "")]


def test_one_event_a_row_and_transaction_with_the_final_values(engine, leads):
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann"))
        session.flush()
        lead.name = "Eve"
        session.flush()
        lead.status = "won"
        session.commit()
    assert recorded(engine) == [("lead.scraped", "1", WHOLE | {"name": "Eve", "status": "won", "changes": 2}, "")]


def test_an_update_knows_before_after_and_what_changed(engine, capture):
    seen = []
    capture(Lead, updated="lead.updated", data=lambda change: seen.append(change) or {"n": change.after["name"]})
    with Session(engine) as session:
        session.add(Lead(name="Ann"))
        session.commit()
        lead = session.scalars(select(Lead)).one()
        lead.name = "Eve"
        session.commit()
    assert recorded(engine) == [("lead.updated", "1", {"n": "Eve"}, "")]
    (change,) = seen
    assert (change.kind, change.type, change.instance) == ("updated", "lead.updated", lead)
    assert change.changed == ("name", "changes")
    assert (change.before["name"], change.after["name"], change.row["name"]) == ("Ann", "Eve", "Eve")
    assert (change.before["changes"], change.after["changes"]) == (0, 1)
    assert "Ann" not in repr(change)


def test_a_deleted_row_is_recorded_as_it_was(engine, ann, leads):
    with Session(engine) as session:
        session.delete(session.get(Lead, ann))
        session.commit()
    assert recorded(engine) == [("lead.deleted", "1", WHOLE, "")]


@pytest.mark.parametrize("step", ["nothing", "same", "back", "back_later", "created_and_deleted", "relationship"])
def test_nothing_is_recorded_when_nothing_changed(step, engine, ann, capture):
    with Session(engine) as session:
        lead = session.get(Lead, ann)
        if step == "same":
            lead.name = "Ann"
        elif step == "back":
            lead.name = "Eve"
            lead.name = "Ann"
        elif step == "back_later":
            lead.changes = 7
            session.flush()
            lead.name = "Eve"
            session.flush()
            lead.name, lead.changes = "Ann", 0
        elif step == "created_and_deleted":
            session.add(new := Lead(name="Eve"))
            session.flush()
            session.delete(new)
        elif step == "relationship":
            lead.notes.append(Note(text="n"))
        session.commit()
    assert types(engine) == []


def test_what_the_session_refuses_names_the_captures(capture):
    """Nobody called record(): the error comes out of commit(), and the capture is what is to be mended."""
    lite = sqlalchemy.create_engine("sqlite://")
    Lead.__table__.create(lite)
    capture(Lead, **ALL)
    with Session(lite) as session:
        session.add(Lead(name="Ann"))
        with pytest.raises(outbox.RecordError, match="PostgreSQL") as failed:
            session.commit()
    lite.dispose()
    assert failed.value.__notes__ == ["outbox: in capture(Lead: lead.scraped, lead.updated, lead.deleted)"]


def test_each_flush_records_every_step(engine, capture):
    capture(Lead, **ALL, each_flush=True, data=lambda change: change.row["name"])
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann"))
        session.flush()
        lead.name = "Eve"
        session.flush()
        with session.begin_nested() as savepoint:
            lead.name = "Bob"
            session.flush()
            savepoint.rollback()
        session.delete(lead)
        session.commit()
    assert [one[:3] for one in recorded(engine)] == [
        ("lead.scraped", "1", "Ann"),
        ("lead.updated", "1", "Eve"),
        ("lead.deleted", "1", "Eve"),
    ]


def test_what_each_flush_told_is_not_read_again_for_the_commit(engine, capture):
    capture(Lead, **ALL, each_flush=True)
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann"))
        session.flush()
        lead.name = "Eve"
        session.flush()
        sent = Statements(engine)
        session.commit()
    assert [one for one in sent if one.startswith("SELECT")] == []
    assert types(engine) == ["lead.scraped", "lead.updated"]


def test_became_fires_where_a_value_becomes_the_one(engine, capture):
    capture(
        Lead,
        updated="lead.updated",
        became={"status": {"qualified": "lead.qualified"}, Lead.owner: {"eve": "lead.hers"}},
    )
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann", status="qualified"))
        session.commit()
        assert types(engine) == ["lead.qualified"]
        lead.name = "Eve"
        session.commit()
        assert types(engine) == ["lead.updated"]
        lead.status = "lost"
        session.commit()
        assert types(engine) == ["lead.updated"]
        lead.status, lead.owner = "qualified", "eve"
        session.commit()
        assert types(engine) == ["lead.updated", "lead.qualified", "lead.hers"]
        lead.status = "lost"
        session.flush()
        lead.status = "qualified"
        session.commit()
        assert types(engine) == ["lead.updated"]  # its column `changes` did


def test_became_of_an_enumeration_without_zone_and_of_several_values(engine, capture):
    capture(
        Demo,
        created="demo.created",
        became={"status": {Status.DONE: "demo.completed", Status.FAILED: "demo.failed"}},
        priority=lambda change: 2 if change.type == "demo.failed" else 0,
    )
    with Session(engine) as session:
        session.add(demo := Demo())
        session.commit()
        (made,) = recorded(engine)
        assert (made.type, made.data["status"], len(made.data["at"])) == ("demo.created", "made", 26)
        demo.status = Status.FAILED
        session.commit()
        with engine.connect() as connection:
            assert connection.execute(text("select priority from outbox.events")).scalar() == 2
        assert types(engine) == ["demo.failed"]


def test_key_tenant_and_columns(engine, capture):
    capture(Lead, **ALL, key=Lead.name, tenant=Lead.owner, columns=["id", Lead.status])
    capture(Lead, created="lead.made", key=lambda change: f"L{change.row['id']}", tenant="acme")
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann", owner="eve"))
        session.commit()
        assert [(one.type, one.key, one.tenant) for one in recorded(engine)] == [
            ("lead.scraped", "Ann", "eve"),
            ("lead.made", "L1", "acme"),
        ]
        lead.body = "secret"
        session.commit()
        assert recorded(engine) == []
        lead.status = "won"
        session.commit()
    assert recorded(engine) == [("lead.updated", "Ann", {"id": 1, "status": "won"}, "eve")]


def test_a_removed_capture_records_nothing_and_leaves_no_listener(engine):
    first, second = outbox.capture(Lead, created="a.made"), outbox.capture(Lead, created="b.made")
    with Session(engine) as session:
        session.add(Lead(name="Ann"))
        session.commit()
        assert types(engine) == ["a.made", "b.made"]
        first.remove()
        first.remove()
        session.add(Lead(name="Ann"))
        session.commit()
        assert types(engine) == ["b.made"]
        session.add(Lead(name="Ann"))
        session.flush()
        second.remove()
        session.commit()
        assert types(engine) == []
    from outbox.capturing import listeners

    assert not any(event.contains(target, name, function) for target, name, function, _ in listeners.HEARD)


def test_savepoints(engine, ann, leads):
    with Session(engine) as session:
        lead = session.get(Lead, ann)
        with session.begin_nested() as kept:
            lead.status = "kept"
            with session.begin_nested() as undone:
                session.add(Lead(name="undone"))
                lead.name = "undone"
                session.flush()
                undone.rollback()
            kept.commit()
        for number in range(3):
            with session.begin_nested() as each:
                session.add(Lead(name=f"n{number}"))
                if number == 1:
                    each.rollback()
        session.commit()
    assert [(one.type, one.data["name"], one.data["status"]) for one in recorded(engine)] == [
        ("lead.updated", "Ann", "kept"),
        ("lead.scraped", "n0", "new"),
        ("lead.scraped", "n2", "new"),
    ]


def test_what_a_released_savepoint_did_goes_with_the_one_around_it(engine, leads):
    with Session(engine) as session:
        outer = session.begin_nested()
        with session.begin_nested():
            session.add(Lead(name="undone"))
        outer.rollback()
        with session.begin_nested(), session.begin_nested():
            session.add(Lead(name="kept"))
        session.commit()
    assert [one.data["name"] for one in recorded(engine)] == ["kept"]


def test_the_outermost_transaction_ends_with_savepoints_open(engine, leads):
    with Session(engine) as session, session.begin():
        session.add(Lead(name="outer"))
        session.begin_nested()
        session.add(Lead(name="inner"))
        session.flush()
        outbox.record(session, "by.hand", 1)
        session.begin_nested()
        session.add(Lead(name="innermost"))
    assert sorted(types(engine)) == ["by.hand", "lead.scraped", "lead.scraped", "lead.scraped"]


def test_rolled_back_closed_and_failed_flushes(engine, leads):
    with Session(engine) as session:
        session.add(Lead(name="Ann"))
        session.flush()
        session.rollback()
        session.add(Lead(name="Ann"))
        session.flush()
        session.close()
        session.add(Lead(id=1, name="Ann"))
        session.commit()
        savepoint = session.begin_nested()
        session.add_all([Lead(id=2, name="Eve"), Lead(id=2, name="Eve")])
        with pytest.raises(IntegrityError):
            session.flush()
        savepoint.rollback()
        session.add(Lead(id=3, name="Bob"))
        session.commit()
    assert [one.data["id"] for one in recorded(engine)] == [1, 3]


def test_expired_deferred_and_detached_rows_are_read_in_one_statement(engine, leads):
    with Session(engine) as session:
        session.add_all([Lead(name=f"n{number}", body="b") for number in range(20)])
        session.commit()
        types(engine)
        found = session.scalars(select(Lead)).all()
        sent = Statements(engine)
        for lead in found:
            lead.name += "!"
        session.commit()
        assert len([one for one in sent if one.startswith("SELECT leads.")]) == 2  # deferred before, `changes` after
        sent.clear()
        for lead in found:
            session.expire(lead)
            session.delete(lead)
        session.commit()
    assert [one.data["body"] for one in recorded(engine)] == ["b"] * 40


def test_no_statement_is_sent_where_all_is_known(engine, leads, capture):
    capture(Seat, created="seat.made", updated="seat.updated", deleted="seat.gone")
    sent = Statements(engine)
    with Session(engine, expire_on_commit=False) as session:
        session.add(lead := Lead(name="Ann"))
        session.add(seat := Seat(hall="a", number=1, guest=None))
        session.commit()
        seat.guest = "Ann"
        session.commit()
        session.delete(seat)
        session.commit()
        del lead
    assert [one for one in sent if one.startswith("SELECT")] == []
    assert len(types(engine)) == 4


def test_a_value_set_without_the_old_one_being_loaded(engine, ann, leads):
    with Session(engine) as session:
        lead = session.get(Lead, ann)
        session.expire(lead)
        lead.name = "Ann"
        session.flush()
        lead.changes = 0
        session.commit()
        assert types(engine) == []
        lead.score = Lead.id + 41
        session.commit()
    assert [one.data["score"] for one in recorded(engine)] == [42]


def test_mutable_values_are_compared_and_kept(engine, leads):
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann", extra={"a": [1]}))
        session.commit()
        types(engine)
        lead.extra["a"] = [2]
        session.flush()
        lead.extra["a"].append("not flushed")
        session.commit()
        assert [one.data["extra"] for one in recorded(engine)] == [{"a": [2]}]


def test_cascades_orphans_and_keys_that_the_flush_sets(engine, capture):
    capture(Note, created="note.made", updated="note.moved", deleted="note.gone")
    capture(Demo, updated="demo.moved", data=lambda change: change.changed)
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann", notes=[Note(text="a"), Note(text="b")], demos=[Demo()]))
        session.commit()
        assert [one.data["lead_id"] for one in recorded(engine)] == [1, 1]
        lead.notes.pop()
        lead.demos.pop()
        session.commit()
        assert [one[:3] for one in sorted(recorded(engine))] == [
            ("demo.moved", "1", ["lead_id"]),
            ("note.gone", "2", {"id": 2, "text": "b", "lead_id": 1}),
        ]
        session.delete(lead)
        session.commit()
        assert types(engine) == ["note.gone"]


def test_merge_and_make_transient(engine, ann, leads):
    with Session(engine) as session:
        session.merge(Lead(id=ann, name="Eve"))
        session.merge(Lead(id=9, name="Bob"))
        session.commit()
        assert sorted((one.type, one.data["name"]) for one in recorded(engine)) == [
            ("lead.scraped", "Bob"),
            ("lead.updated", "Eve"),
        ]


def test_a_row_that_takes_over_another_ones_key_is_an_update(engine, capture):
    capture(Seat, created="seat.made", updated="seat.updated", deleted="seat.gone")
    with Session(engine) as session:
        session.add(Seat(hall="a", number=1, guest="Ann"))
        session.commit()
        types(engine)
        session.delete(session.get(Seat, ("a", 1)))
        session.add(Seat(hall="a", number=1, guest="Eve"))
        session.commit()
        assert recorded(engine) == [("seat.updated", "a,1", {"hall": "a", "number": 1, "guest": "Eve"}, "")]
        session.delete(session.get(Seat, ("a", 1)))
        session.flush()
        session.add(Seat(hall="a", number=1, guest="Eve"))
        session.commit()
        assert types(engine) == []


def test_a_composite_key_that_changes(engine, capture):
    capture(
        Seat, updated="seat.updated", deleted="seat.gone", data=lambda change: [*change.before.values(), change.changed]
    )
    with Session(engine) as session:
        session.add_all([seat := Seat(hall="a", number=1), Seat(hall="a", number=2)])
        session.commit()
        session.delete(session.get(Seat, ("a", 2)))
        session.flush()
        seat.number = 2
        session.flush()
        seat.guest = "Ann"
        session.commit()
    assert [one[:3] for one in recorded(engine)] == [
        ("seat.gone", "a,2", ["a", 2, None, ["hall", "number", "guest"]]),
        ("seat.updated", "a,2", ["a", 1, None, ["number", "guest"]]),
    ]


def test_a_capture_of_the_base_hears_subclasses_once(engine, capture):
    capture(Vehicle, created="vehicle.made", updated="vehicle.updated", deleted="vehicle.gone")
    capture(Truck, updated="truck.updated")
    with Session(engine) as session:
        session.add_all([truck := Truck(name="T", tons=7), Bike(name="B", gears=3), Vehicle(name="V")])
        session.commit()
        assert sorted(str(one.data) for one in recorded(engine)) == [
            "{'id': 1, 'kind': 'truck', 'name': 'T', 'tons': 7}",
            "{'id': 2, 'kind': 'bike', 'name': 'B', 'gears': 3}",
            "{'id': 3, 'kind': 'vehicle', 'name': 'V'}",
        ]
        truck.tons = 8
        session.commit()
        assert types(engine) == ["vehicle.updated", "truck.updated"]
        session.delete(truck)
        session.commit()
        assert types(engine) == ["vehicle.gone"]


def test_versions_of_a_row_and_of_those_it_refers_to_come_in_order(engine, capture, leads):
    capture(Note, created="note.made", updated="note.moved", deleted="note.gone")
    with Session(engine) as session:
        session.add(note := Note(text="a"))
        session.commit()
        types(engine)
        note.text = "b"
        session.flush()
        session.add(lead := Lead(name="Ann"))
        session.flush()
        note.lead = lead
        session.commit()
    assert types(engine) == ["lead.scraped", "note.moved"]


def test_a_failing_function_propagates_and_nothing_is_written(engine, capture):
    capture(Lead, created="lead.scraped", data=lambda change: 1 / 0)
    capture(Lead, updated="lead.updated", data=lambda change: {"bad": object()})
    with Session(engine) as session:
        session.add(lead := Lead(name="Ann"))
        with pytest.raises(ZeroDivisionError) as failed:
            session.commit()
        assert "capture(Lead: lead.scraped)" in failed.value.__notes__[0]
        with pytest.raises(outbox.TransactionError, match="rolled back first"):
            session.commit()
        session.rollback()
        assert session.scalars(select(Lead)).all() == []
        unseen = text("insert into leads (id, name, status) values (5, 'Ann', 'new')")
        session.execute(unseen, execution_options={"outbox_capture": "ignore"})
        session.commit()
        lead = session.get(Lead, 5)
        lead.name = "Eve"
        with pytest.raises(outbox.PayloadError, match=r"data\.bad") as failed:
            session.commit()
        assert "lead.updated of the row with key '5'" in failed.value.__notes__[0]
    assert types(engine) == []


def test_functions_see_relationships_and_may_change_rows(engine, capture):
    capture(Lead, created="lead.scraped", data=lambda change: [note.text for note in change.instance.notes])
    capture(Demo, created="demo.made", updated="demo.updated", data=note_it)
    with Session(engine) as session:
        session.add(Lead(name="Ann", notes=[Note(text="a")]))
        session.flush()
        session.expire_all()
        session.add(Demo(lead=session.get(Lead, 1)))
        session.commit()
        assert [one[:3] for one in recorded(engine)] == [("lead.scraped", "1", ["a"]), ("demo.made", "1", {})]
        assert session.scalars(select(Note.text).order_by(Note.id)).all() == ["a", "noted"]


def note_it(change):
    if change.kind == "created":
        change.instance.lead.notes.append(Note(text="noted"))
    return {}


def test_what_a_later_listener_changes_is_recorded_too(engine, leads):
    with Session(engine) as session:

        @event.listens_for(session, "before_commit")
        def change(session):
            session.scalars(select(Lead)).one().name = "Eve"

        session.add(Lead(name="Ann"))
        session.commit()
    assert [(one.type, one.data["name"]) for one in recorded(engine)] == [
        ("lead.scraped", "Ann"),
        ("lead.updated", "Eve"),
    ]


def test_two_phases(engine, leads):
    with Session(engine, twophase=True) as session:
        session.add(Lead(name="Ann"))
        session.prepare()
        session.commit()
    assert types(engine) == ["lead.scraped"]


def test_scoped_and_joined_sessions(engine, leads):
    scoped = scoped_session(sessionmaker(engine))
    scoped.add(Lead(name="Ann"))
    scoped.commit()
    scoped.remove()
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.add(Lead(name="Eve"))
            session.commit()
        outer.rollback()
    assert types(engine) == ["lead.scraped"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_async_session(driver, engine, leads):
    async def change():
        over = create_async_engine(make_url(engine.url).set(drivername=f"postgresql+{driver}"))
        async with AsyncSession(over) as session:
            session.add(lead := Lead(name="Ann"))
            await session.commit()
            await session.refresh(lead)
            lead.name = "Eve"
            async with session.begin_nested() as savepoint:
                session.add(Lead(name="undone"))
                await session.flush()
                await savepoint.rollback()
            await session.commit()
        await over.dispose()

    asyncio.run(change())
    assert [(one.type, one.data["name"], one.data["changes"]) for one in recorded(engine)] == [
        ("lead.scraped", "Ann", 0),
        ("lead.updated", "Eve", 1),
    ]


def test_a_session_is_forgotten(engine, leads):
    session = Session(engine)
    session.add(lead := Lead(name="Ann"))
    session.flush()
    make_transient(lead)
    session.close()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


def test_another_drivers_rows(engine, leads):
    with databases.engine_on(engine.url.render_as_string(hide_password=False)) as other:
        over = sqlalchemy.create_engine(make_url(other.url).set(drivername="postgresql+psycopg2"))
        with Session(over) as session:
            session.add(lead := Lead(name="Ann"))
            session.commit()
            lead.name = "Eve"
            session.commit()
        over.dispose()
    assert types(engine) == ["lead.scraped", "lead.updated"]


class NotMapped: ...


@pytest.mark.parametrize(
    ("model", "asked", "says"),
    [
        (NotMapped, {"created": "a.b"}, "model: NotMapped is not a class that SQLAlchemy maps"),
        (7, {"created": "a.b"}, "model: 7 is not a class"),
        (Lead, {}, "nothing would be recorded"),
        (Lead, {"created": "a b"}, "created: 'a b' is not dotted words"),
        (Lead, {"created": "relay.x"}, "created: 'relay.x' begins with relay."),
        (Lead, {"became": {"state": {"x": "a.b"}}}, "became: 'state' is no column of the class; it has id, name"),
        (Lead, {"became": {"status": "x"}}, "became.status: must be a mapping"),
        (Lead, {"became": ["status"]}, "became: must be a mapping"),
        (Lead, {"became": {"status": {"x": 7}}}, "became.status: int is not dotted words"),
        (Demo, {"became": {"status": {"done": "a.b"}}}, "became.status: 'done' is no Status; give one of"),
        (Lead, {"created": "a.b", "columns": ["id", "x"]}, "columns: 'x' is no column"),
        (Lead, {"created": "a.b", "key": "id"}, "key: must be an attribute such as"),
        (Lead, {"created": "a.b", "key": Lead.notes}, "key: 'notes' is no column"),
        (Lead, {"created": "a.b", "tenant": "*"}, "tenant: '\\*' is every tenant"),
        (Lead, {"created": "a.b", "tenant": 7}, "tenant: must be an attribute"),
        (Lead, {"created": "a.b", "data": "x"}, "data: must be a function"),
        (Lead, {"created": "a.b", "priority": 4}, "priority: must be 0, 1, 2 or 3"),
        (Lead, {"created": "a.b", "bulk": "no"}, "bulk: must be refuse, cover or ignore"),
        (Lead, {"created": "a.b", "each_flush": 1}, "each_flush: must be True or False"),
    ],
)
def test_a_wrong_argument_is_named(model, asked, says):
    with pytest.raises(outbox.CaptureError, match=f"^(capture: )?{says}"):
        outbox.capture(model, **asked)
    assert not has_captures()


def test_a_row_that_somebody_else_deleted_is_told_by_nobody(engine, ann, leads):
    with Session(engine) as session:
        lead = session.get(Lead, ann)
        with engine.begin() as other:
            other.execute(text("delete from leads"))
        session.delete(lead)
        with pytest.warns(sqlalchemy.exc.SAWarning, match="expected to delete 1 row"):
            session.commit()
    assert types(engine) == []


class TestTwoSessionsDeleteOneObject:
    """What docs/capture.md says of them."""

    @pytest.fixture
    def seat(self, engine, capture):
        """The key of a seat; all that an object has of it is loaded, so nothing is read before it is deleted."""
        capture(Seat, deleted="seat.gone")
        with Session(engine) as session:
            session.add(Seat(hall="a", number=1))
            session.commit()
        return ("a", 1)

    def test_both_tell_it_with_one_key(self, engine, seat):
        with Session(engine) as first, Session(engine) as second:
            for session in (first, second):
                session.delete(session.get(Seat, seat))
            first.commit()
            with pytest.warns(sqlalchemy.exc.SAWarning, match="expected to delete 1 row"):
                second.commit()
        told = recorded(engine)
        assert [event[0] for event in told] == ["seat.gone"] * 2
        assert told[0] == told[1]

    def test_who_locks_the_row_finds_it_gone(self, engine, seat):
        with Session(engine) as first, Session(engine) as second:
            second.get(Seat, seat)
            first.delete(first.get(Seat, seat, with_for_update=True))
            first.commit()
            assert second.get(Seat, seat, with_for_update=True) is None
            second.commit()
        assert types(engine) == ["seat.gone"]

    def test_a_version_makes_the_second_one_fail(self, engine, capture):
        class Local(DeclarativeBase): ...

        class Ticket(Local):
            __tablename__ = "tickets"
            id: Mapped[int] = mapped_column(primary_key=True)
            version: Mapped[int] = mapped_column()
            __mapper_args__: ClassVar = {"version_id_col": version}

        Local.metadata.create_all(engine)
        capture(Ticket, deleted="ticket.gone")
        try:
            with Session(engine) as session:
                session.add(Ticket(id=1))
                session.commit()
            with Session(engine) as first, Session(engine) as second:
                for session in (first, second):
                    session.delete(session.get(Ticket, 1))
                first.commit()
                with pytest.raises(StaleDataError):
                    second.commit()
            assert types(engine) == ["ticket.gone"]
        finally:
            Local.metadata.drop_all(engine)
