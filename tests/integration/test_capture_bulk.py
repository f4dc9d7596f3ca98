"""Statements that change captured rows past the unit of work are refused, covered or ignored, as was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy
from sqlalchemy import bindparam, delete, insert, literal, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox
from tests.support import databases
from tests.support.leads import Base, Bike, Lead, Note, Seat, Truck, Vehicle, empty, recorded, types

TABLE = Lead.__table__


@pytest.fixture(scope="module")
def captured_engine(server_url, migrated_template) -> Iterator[sqlalchemy.Engine]:
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(captured_engine) -> sqlalchemy.Engine:
    with captured_engine.begin() as connection:
        empty(connection)
        for name in ("Ann", "Eve", "Bob"):
            connection.execute(insert(TABLE).values(name=name, status="new"))
    return captured_engine


@pytest.fixture
def capture() -> Iterator:
    made = []

    def capture(model=Lead, **asked):
        made.append(outbox.capture(model, **({"created": "c", "updated": "u", "deleted": "d"} | asked)))

    yield capture
    for one in made:
        one.remove()


def names(engine) -> list[tuple[str, str]]:
    return [(one.type, one.data["name"]) for one in recorded(engine)]


STATEMENTS = {
    "update": lambda session: session.execute(update(Lead).where(Lead.name == "Ann").values(status="won")),
    "update of the table": lambda session: session.execute(update(TABLE).where(TABLE.c.id == 1).values(status="won")),
    "update on the connection": lambda session: session.connection().execute(
        update(TABLE).where(TABLE.c.id == bindparam("b")).values(status="won"), {"b": 1}
    ),
    "update by keys": lambda session: session.execute(update(Lead), [{"id": 1, "status": "won"}]),
    "update of several": lambda session: session.connection().execute(
        update(TABLE).where(TABLE.c.name == bindparam("b")).values(status=bindparam("s")),
        [{"b": "Ann", "s": "won"}, {"b": "nobody", "s": "won"}],
    ),
    "Query.update": lambda session: session.query(Lead).filter_by(name="Ann").update({"status": "won"}),
    "bulk_update_mappings": lambda session: session.bulk_update_mappings(Lead, [{"id": 1, "status": "won"}]),
    "update that returns": lambda session: session.scalars(
        update(Lead).where(Lead.id == 1).values(status="won").returning(Lead)
    ).all(),
    "update from another": lambda session: session.execute(
        update(Lead).where(Lead.id == Seat.number, Seat.hall == "a").values(status="won")
    ),
    "evaluated update": lambda session: session.execute(
        update(Lead).where(Lead.name == "Ann").values(status="won"),
        execution_options={"synchronize_session": "evaluate"},
    ),
}
DELETES = {
    "delete": lambda session: session.execute(delete(Lead).where(Lead.name == "Ann")),
    "delete of the table": lambda session: session.connection().execute(TABLE.delete().where(TABLE.c.id == 1)),
    "Query.delete": lambda session: session.query(Lead).filter_by(name="Ann").delete(),
}
INSERTS = {
    "insert": lambda session: session.execute(insert(Lead), [{"name": "x"}, {"name": "y"}]),
    "insert that returns": lambda session: [
        one.name for one in session.scalars(insert(Lead).returning(Lead), [{"name": "x"}, {"name": "y"}])
    ],
    "insert of values": lambda session: session.execute(
        insert(TABLE).values([{"name": "x", "status": "new"}, {"name": "y", "status": "new"}])
    ),
    "insert of a select": lambda session: session.execute(
        insert(TABLE)
        .from_select(
            ["name", "status"], select(literal("x"), literal("new")).union_all(select(literal("y"), literal("new")))
        )
        .returning(TABLE.c.name, TABLE.c.id)
    ).all(),
    "insert on the connection": lambda session: session.connection().execute(
        TABLE.insert(), [{"name": "x", "status": "new"}, {"name": "y", "status": "new"}]
    ),
    "bulk_insert_mappings": lambda session: session.bulk_insert_mappings(Lead, [{"name": "x"}, {"name": "y"}]),
    "bulk_save_objects": lambda session: session.bulk_save_objects([Lead(name="x"), Lead(name="y")]),
    "bulk_save_objects with keys": lambda session: session.bulk_save_objects(
        [Lead(name="x"), Lead(name="y")], return_defaults=True
    ),
}
every = pytest.mark.parametrize("run", (STATEMENTS | DELETES | INSERTS).values(), ids=(STATEMENTS | DELETES | INSERTS))


@every
def test_a_statement_is_refused_before_it_runs(run, engine, capture):
    capture()
    with Session(engine) as session:
        with pytest.raises(
            outbox.CaptureError, match=r"^(insert|update|delete) of leads by one statement: capture\(Lead: c"
        ):
            run(session)
        if not session.is_active:
            session.rollback()  # the bulk methods of a session have begun something of their own
        session.add(Lead(name="goes on"))
        session.commit()
        assert session.scalars(select(Lead.name).where(Lead.status == "new").order_by(Lead.id)).all() == [
            *("Ann", "Eve", "Bob", "goes on")
        ]
    assert names(engine) == [("c", "goes on")]


@every
def test_a_statement_is_ignored(run, engine, capture):
    capture(bulk="ignore")
    with Session(engine) as session:
        session.add(Seat(hall="a", number=1))
        session.flush()
        run(session)
        session.commit()
    assert types(engine) == []


@pytest.mark.parametrize("run", STATEMENTS.values(), ids=STATEMENTS)
def test_an_update_is_covered(run, engine, capture):
    capture(bulk="cover", data=lambda change: [change.before["status"], change.after["status"], change.changed])
    with Session(engine) as session:
        session.add(Seat(hall="a", number=1))
        session.flush()
        run(session)
        session.commit()
    (event,) = recorded(engine)
    assert event[:2] == ("u", "1")
    assert event.data[:2] == ["new", "won"]
    assert set(event.data[2]) <= {"status", "changes"}


@pytest.mark.parametrize("run", DELETES.values(), ids=DELETES)
def test_a_delete_is_covered(run, engine, capture):
    capture(bulk="cover")
    with Session(engine) as session:
        run(session)
        session.commit()
    assert names(engine) == [("d", "Ann")]


@pytest.mark.parametrize("run", INSERTS.values(), ids=INSERTS)
def test_an_insert_is_covered_and_returns_what_it_would(run, engine, capture):
    capture(bulk="cover")
    with Session(engine) as session:
        found = run(session)
        if isinstance(found, list):
            assert found in (["x", "y"], [("x", 4), ("y", 5)])
        session.commit()
    assert names(engine) == [("c", "x"), ("c", "y")]


def test_what_a_statement_and_objects_did_is_one_event(engine, capture):
    capture(bulk="cover")
    with Session(engine) as session:
        lead = session.get(Lead, 1)
        lead.name = "Zoe"
        session.execute(update(Lead).values(status="won"))
        session.execute(update(Lead).where(Lead.id != 1).values(status="new"))
        session.add(Lead(name="x"))
        session.flush()
        session.execute(delete(Lead).where(Lead.name == "x"))
        with session.begin_nested() as savepoint:
            session.execute(delete(Lead))
            savepoint.rollback()
        session.commit()
    assert [(one.type, one.data["name"], one.data["status"]) for one in recorded(engine)] == [
        ("u", "Zoe", "won"), ("u", "Eve", "new"), ("u", "Bob", "new"),
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["transaction", "savepoint", "savepoint that is kept"])
def test_rows_of_a_statement_whose_events_were_refused_are_not_committed(engine, capture, where):
    """The statement has changed its rows when the third row's event is refused, and its error may be caught."""

    def data(change):
        if change.row["name"] == "Bob":
            raise ValueError("refused")
        return change.row

    capture(bulk="cover", each_flush=True, data=data)
    with Session(engine) as session:
        block = session.begin_nested() if where != "transaction" else session.begin()
        with pytest.raises(ValueError, match="refused"):
            session.execute(update(Lead).values(status="won"))
        if where == "savepoint":
            block.rollback()
            session.execute(update(Lead).where(Lead.name == "Ann").values(status="lost"))
            session.commit()
        else:
            if where == "savepoint that is kept":
                block.commit()
            with pytest.raises(outbox.TransactionError, match="a capture failed in this transaction"):
                session.commit()
    with engine.connect() as connection:
        states = set(connection.execute(select(TABLE.c.status)).scalars())
    assert states == ({"lost", "new"} if where == "savepoint" else {"new"})
    assert names(engine) == ([("u", "Ann")] if where == "savepoint" else [])


TEXTS = [
    "update leads set status = 'won'",
    "UPDATE ONLY public.Leads l SET status = 'won'",
    "insert into \"leads\" (name, status) values ('x', 'new')",
    "with gone as (delete from leads returning id) select * from gone",
    "select 'it''s' /* first */; delete /* all */ from leads",
    "truncate table leads cascade",
    """select 1 as "it's"; delete from leads where name = 'x'""",
    r"""select e'it\'s'; delete from leads where name = 'x'""",
    "merge into leads using (values (1)) v(id) on leads.id = v.id when matched then delete",
    "copy leads from '/dev/null'",
]
HARMLESS = [
    "select 'update leads set status = 1' -- delete from leads",
    "select id from leads for update of leads",
    "insert into leads_of_others select * from leads",
    "update other.leads set name = 'x'",
    "select $text$ delete from leads $text$ from leads",
    r"select e'\'; delete from leads' from leads",
]


@pytest.mark.parametrize("driver", [False, True], ids=["text()", "driver's SQL"])
@pytest.mark.parametrize("mode", ["refuse", "cover"])
@pytest.mark.parametrize("statement", TEXTS)
def test_sql_as_text_is_refused_before_it_is_sent(engine, capture, statement, mode, driver):
    capture(bulk=mode)
    with Session(engine) as session:
        with pytest.raises(
            outbox.CaptureError, match=r"^SQL as text changes leads: capture\(Lead: c, u, d\) would not"
        ):
            session.connection().exec_driver_sql(statement) if driver else session.execute(text(statement))
        assert session.scalars(select(Lead.status)).all() == ["new"] * 3
        session.commit()
    assert types(engine) == []


@pytest.mark.parametrize("form", ["columns", "from_statement"])
def test_sql_as_text_is_refused_in_whatever_form_it_is_asked(engine, capture, form):
    capture()
    changing = text("update leads set status = 'won' returning id")
    with Session(engine) as session:
        statement = changing.columns(Lead.id) if form == "columns" else select(Lead.id).from_statement(changing)
        with pytest.raises(outbox.CaptureError, match=r"^SQL as text changes leads"):
            session.execute(statement)


@pytest.mark.parametrize("how", ["capture", "statement", "no session"])
def test_sql_as_text_passes_where_it_is_ignored(engine, capture, how):
    capture(bulk="ignore" if how == "capture" else "refuse")
    statement = text(TEXTS[0])
    if how == "no session":
        with engine.begin() as connection:
            connection.execute(statement)
    with Session(engine) as session:
        if how != "no session":
            session.execute(statement, execution_options={"outbox_capture": "ignore"} if how == "statement" else {})
        session.commit()
        assert set(session.scalars(select(Lead.status))) == {"won"}
    assert types(engine) == []


@pytest.mark.parametrize("statement", HARMLESS)
def test_sql_as_text_that_changes_no_captured_table_passes(engine, capture, statement):
    capture()
    with Session(engine) as session:
        session.execute(text("create temporary table leads_of_others (like leads)"))
        session.execute(text("create schema other create table leads (name text)"))
        session.execute(text(statement))
        session.rollback()


def test_each_flush_hears_each_statement(engine, capture):
    capture(bulk="cover", each_flush=True, columns=["status"])
    with Session(engine) as session:
        session.execute(update(Lead).where(Lead.id == 1).values(status="won"))
        session.execute(update(Lead).where(Lead.id == 1).values(status="lost"))
        session.execute(insert(Lead).values(name="x"))
        session.execute(delete(Lead).where(Lead.id == 1))
        session.commit()
    assert [(one.type, one.data["status"]) for one in recorded(engine)] == [
        ("u", "won"), ("u", "lost"), ("c", "new"), ("d", "lost"),
    ]  # fmt: skip


def test_a_statement_decides_for_itself(engine, capture):
    capture()
    with Session(engine) as session:
        statement = update(Lead).where(Lead.id == 1).values(status="won")
        session.execute(statement.execution_options(outbox_capture="cover"))
        session.execute(statement.values(status="x"), execution_options={"outbox_capture": "ignore"})
        with pytest.raises(outbox.CaptureError, match="outbox_capture: must be refuse, cover or ignore, not 'no'"):
            session.execute(statement, execution_options={"outbox_capture": "no"})
        session.commit()
    assert types(engine) == ["u"]


def test_captures_of_one_class_differ(engine, capture):
    capture(bulk="cover", columns=["status"])
    capture(bulk="ignore", created="c2", updated="u2", deleted="d2", columns=["status"])
    with Session(engine) as session:
        session.execute(update(Lead).where(Lead.id == 1).values(status="won"))
        session.commit()
        assert types(engine) == ["u"]
        session.get(Lead, 2).status = "won"
        session.commit()
        assert types(engine) == ["u", "u2"]


def test_classes_of_a_hierarchy(engine, capture):
    capture(Vehicle, bulk="cover")
    with Session(engine) as session:
        session.execute(insert(Truck), [{"name": "T", "tons": 7}])
        session.execute(insert(Bike), [{"name": "B", "gears": 3}])
        session.bulk_insert_mappings(Truck, [{"name": "S", "tons": 8}])
        session.commit()
        assert sorted((one.type, one.data["name"], one.data.get("tons")) for one in recorded(engine)) == [
            ("c", "B", None), ("c", "S", 8), ("c", "T", 7),
        ]  # fmt: skip
        session.execute(update(Truck).values(tons=9).where(Truck.id == 1))
        session.execute(update(Vehicle).values(name="V").where(Vehicle.kind != "truck"))
        session.commit()
        assert [(one.type, one.data["name"], one.data.get("tons")) for one in recorded(engine)] == [
            ("u", "T", 9), ("u", "V", None),
        ]  # fmt: skip


def test_a_sibling_that_shares_the_table_is_not_refused(engine, capture):
    capture(Bike)
    with Session(engine) as session:
        session.add(Vehicle(name="V"))
        session.flush()
        with pytest.raises(outbox.CaptureError):
            session.execute(update(Vehicle).values(name="x"))
        with pytest.raises(outbox.CaptureError):
            session.execute(update(Bike).values(name="x"))
        session.execute(update(Note).values(text="x"))
        session.commit()


def test_what_cannot_be_covered_is_refused_with_its_mend(engine, capture):
    capture(bulk="cover")
    upsert = postgresql.insert(Lead).values(id=1, name="x").on_conflict_do_nothing()
    with Session(engine) as session:
        for run in (session.execute, session.connection().execute):
            with pytest.raises(outbox.CaptureError, match="ON CONFLICT"):
                run(upsert)
        with pytest.raises(outbox.CaptureError, match=r"run it by session\.execute\(\)"):
            session.connection().execute(insert(TABLE).values(name="x", status="y").returning(TABLE.c.id))


CHANGES = {
    "update": (update(TABLE).values(status="won"), ["won"] * 3),
    "update of a class": (update(Lead).values(status="won"), ["won"] * 3),
    "delete": (delete(TABLE), []),
    "insert": (insert(TABLE).values(name="x", status="x"), ["new"] * 3 + ["x"]),
}


@pytest.mark.parametrize(("change", "then"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("bulk", ["refuse", "cover"])
def test_a_change_inside_another_statement_is_refused_before_it_runs(change, then, bulk, engine, capture):
    capture(bulk=bulk)
    changed = change.returning(TABLE.c.id).cte("changed")
    with Session(engine) as session:
        with pytest.raises(
            outbox.CaptureError, match=r"^(insert|update|delete) of leads by one|^leads is changed in a CTE"
        ):
            session.execute(select(changed))
        session.commit()
        assert session.scalars(select(Lead.status).distinct()).all() == ["new"]
        session.execute(select(changed), execution_options={"outbox_capture": "ignore"})
        session.commit()
        assert sorted(session.scalars(select(Lead.status))) == then
    assert names(engine) == []


def test_a_connection_without_a_session_is_free(engine, capture):
    capture()
    with engine.begin() as connection:
        connection.execute(update(TABLE).values(status="won"))
        connection.execute(text("update leads set status = 'lost'"))
    assert types(engine) == []


def test_a_row_that_meets_the_condition_too_late_is_left(engine, capture):
    """The statement changes what was locked and read, and nothing that came since."""
    capture(bulk="cover")
    with Session(engine) as session:

        @sqlalchemy.event.listens_for(session.connection(), "before_cursor_execute")
        def add(_connection, _cursor, statement, *_):
            if statement.startswith("UPDATE"):
                with engine.begin() as other:
                    other.execute(text("insert into leads (name, status) values ('late', 'new')"))

        session.execute(update(Lead).where(Lead.status == "new").values(status="won"))
        session.commit()
        assert session.scalars(select(Lead.name).where(Lead.status == "new")).all() == ["late"]
    assert names(engine) == [("u", "Ann"), ("u", "Eve"), ("u", "Bob")]


def test_statements_of_an_async_session(engine, capture):
    capture(bulk="cover")

    async def change():
        over = create_async_engine(engine.url)
        async with AsyncSession(over) as session:
            await session.execute(update(Lead).where(Lead.id == 1).values(status="won"))
            made = await session.scalars(insert(Lead).returning(Lead.name), [{"name": "x"}])
            assert made.all() == ["x"]
            await session.commit()
        await over.dispose()

    asyncio.run(change())
    assert names(engine) == [("u", "Ann"), ("c", "x")]


MOVES = {
    "of the class": lambda: (update(Lead).where(Lead.id == 1).values(id=9), None),
    "by an attribute": lambda: (update(Lead).where(Lead.id == 1).values({Lead.id: Lead.id + 8}), None),
    "in order": lambda: (update(Lead).where(Lead.id == 1).ordered_values((Lead.name, "x"), (Lead.id, 9)), None),
    "of the table": lambda: (update(TABLE).where(TABLE.c.id == 1).values(id=9), None),
    "by a column": lambda: (update(TABLE).where(TABLE.c.id == 1).values({TABLE.c.id: 9}), None),
    "by parameters": lambda: (
        update(TABLE).where(TABLE.c.id == bindparam("b")),
        [{"b": 1, "id": 9}, {"b": 2, "id": 8}],
    ),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_an_update_of_the_primary_key_is_not_covered(engine, capture, move):
    capture(bulk="cover")
    statement, parameters = move()
    with Session(engine) as session:
        with pytest.raises(outbox.CaptureError, match=r"sets leads\.id, .*change the objects"):
            session.connection().execute(statement, parameters)
        with pytest.raises(outbox.CaptureError, match=r"sets leads\.id, .*change the objects"):
            session.execute(statement, parameters)
        session.commit()
    assert recorded(engine) == []
    with Session(engine) as session:
        assert session.scalars(select(Lead.id).order_by(Lead.id)).all() == [1, 2, 3]
        session.execute(statement, parameters, execution_options={"outbox_capture": "ignore"})
