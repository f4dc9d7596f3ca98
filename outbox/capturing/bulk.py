"""Statements that change captured rows past the unit of work: refuse them, or cover them by reading the rows.

`update(Lead)`, `delete()`, `insert()`, Query.update(), the bulk methods of a session, and statements of the Core on a
connection of the session all end in `before_execute` of its connection; those of `session.execute()` are met earlier,
in `do_orm_execute`. To cover an UPDATE or DELETE, the rows that it names are locked and read first, and the statement
is kept to them; what became of them is read when the commit decides. An INSERT returns its primary keys. SQL as text is
refused or ignored (texts.py). A COPY by the driver, and what the database does by itself (cascades, triggers), is not
seen. A change inside a CTE shows when its statement is compiled, in `before_cursor_execute`: it is refused or ignored,
and never covered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from sqlalchemy import (
    ARRAY,
    BindParameter,
    CompoundSelect,
    Connection,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    any_,
    literal,
    or_,
    select,
)
from sqlalchemy.engine import CursorResult, Result
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, SessionTransaction
from sqlalchemy.sql import visitors

from outbox._text import brief
from outbox.capturing import rows
from outbox.capturing.deciding import connection_of, note
from outbox.capturing.images import UNKNOWN
from outbox.capturing.journal import Journal, Step, find_journal, journal_of
from outbox.capturing.registry import BULK, Capture, captures_of_table, watch_of
from outbox.capturing.setting import set_columns
from outbox.capturing.texts import refuse_text
from outbox.errors import CaptureError

__all__ = ["after_execute", "before_cursor_execute", "before_execute", "do_orm_execute", "note_connection"]

OPTION = "outbox_capture"
_LOCKED_AT_ONCE = 100

_Statement = Insert | Update | Delete

_sessions: WeakKeyDictionary[Connection, ref[Session]] = WeakKeyDictionary()


class _Plan(NamedTuple):
    """A statement on captured rows: its table, who hears it, and who does not."""

    table: Table
    covers: tuple[Capture, ...]
    ignores: frozenset[Capture]


def note_connection(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    """Remember whose connection it is."""
    _sessions[connection] = ref(session)


def _plan(statement: _Statement, options: Mapping[str, Any]) -> _Plan | None:
    """Return who captures what a statement changes; None: nobody, or all ignore it. Raises where one refuses it."""
    table: Any = statement.table
    while not isinstance(table, Table) and hasattr(table, "element"):
        table = table.element
    if not isinstance(table, Table) or not (captures := captures_of_table(table)):
        return None
    entity = statement.entity_description.get("entity")
    if entity is not None:  # other classes may have rows in the same table
        mapper = entity.__mapper__
        captures = tuple(one for one in captures if mapper.isa(one.mapper) or one.mapper.isa(mapper))
    option = options.get(OPTION)
    if option is not None and option not in BULK:
        raise CaptureError(f"{OPTION}: must be refuse, cover or ignore, not {brief(option)}")
    modes = {one: option or one.bulk for one in captures}
    if refusing := [one for one, mode in modes.items() if mode == "refuse"]:
        raise _refusal(statement, table, refusing[0])
    covers = tuple(one for one, mode in modes.items() if mode == "cover")
    return _Plan(table, covers, frozenset(modes) - set(covers)) if covers else None


def _refusal(statement: _Statement, table: Table, capture: Capture) -> CaptureError:
    verb = "insert" if isinstance(statement, Insert) else "update" if isinstance(statement, Update) else "delete"
    return CaptureError(
        f"{verb} of {table.fullname} by one statement: {capture!r} would not see it. Change"
        f' the objects instead; or add execution_options({OPTION}="cover") to the statement, or bulk="cover" to the'
        f' capture, to read the rows and record them; or "ignore" to record nothing'
    )


def do_orm_execute(state: ORMExecuteState) -> Result[Any] | None:
    """Refuse a statement before anything of it runs; cover an INSERT, whose result is at hand here."""
    statement = state.statement
    if not isinstance(statement, Insert | Update | Delete):
        return None
    plan = _plan(statement, state.execution_options)
    if plan is None or not isinstance(statement, Insert):
        return None
    _require_no_conflict_clause(statement)
    entity = statement.entity_description.get("entity")
    key = _key_attributes(entity) if entity is not None else list(plan.table.primary_key)
    journal = journal_of(state.session)
    journal.covering = True
    try:
        result = state.invoke_statement(statement=statement.returning(*key))
        kept = result.freeze()
    finally:
        journal.covering = False
    width = len(kept().keys()) - len(key)
    _note_new(state.session, plan, [tuple(row[width:]) for row in kept()])
    return kept().columns(*range(width)) if width else result


def _key_attributes(entity: Any) -> list[Any]:
    mapper = entity.__mapper__
    return [getattr(entity, mapper.get_property_by_column(column).key) for column in mapper.primary_key]


def _require_no_conflict_clause(statement: Insert) -> None:
    if getattr(statement, "_post_values_clause", None) is not None:
        raise CaptureError(
            f"insert of {statement.table} with ON CONFLICT: whether a row is new is not seen, so it cannot be covered;"
            f' change the objects instead, or add execution_options({OPTION}="ignore") and record() yourself'
        )


def before_execute(
    connection: Connection, statement: Any, multiparams: Any, params: Any, options: Mapping[str, Any]
) -> tuple[Any, Any, Any]:
    """Refuse or cover what comes by the connection itself, or by the bulk methods of the session."""
    if isinstance(statement, Insert | Update | Delete) and (session := _session_of(connection)) is not None:
        journal = journal_of(session)
        if not (journal.covering or _is_of_flush(journal, statement, options)):
            plan = _plan(statement, options)
            if plan is not None:
                statement = _cover(connection, session, plan, statement, multiparams or params)
    return statement, multiparams, params


def before_cursor_execute(
    connection: Connection, _cursor: Any, statement_text: str, _parameters: Any, context: Any, _executemany: Any
) -> None:
    """Refuse a change of captured rows by SQL as text, or inside a CTE, before anything is sent."""
    if not isinstance(getattr(context.compiled, "statement", None), _Statement | Select | CompoundSelect):
        if _session_of(connection) is not None:
            refuse_text(statement_text, context, OPTION)
        return
    for cte in getattr(context.compiled, "ctes", None) or ():
        statement = cte.element
        if not isinstance(statement, Insert | Update | Delete) or _session_of(connection) is None:
            continue
        if (plan := _plan(statement, context.execution_options)) is not None:
            raise CaptureError(
                f"{plan.table.fullname} is changed in a CTE, whose rows are not seen, so it cannot be covered: change"
                f' them by a statement of its own, or add execution_options({OPTION}="ignore") and record() yourself'
            )


def _session_of(connection: Connection) -> Session | None:
    found = _sessions.get(connection)
    session = found() if found is not None else None
    return session if session is not None and session.in_transaction() else None


def _is_of_flush(journal: Journal, statement: _Statement, options: Mapping[str, Any]) -> bool:
    """Tell whether the unit of work sends it: it has caches of its own, and has told which classes it writes."""
    return "compiled_cache" in options and any(statement.table in mapper.tables for mapper in journal.writers)


def _cover(connection: Connection, session: Session, plan: _Plan, statement: _Statement, given: Any) -> _Statement:
    """Note what a statement is about to change, and return the statement to run."""
    if isinstance(statement, Insert):
        return _returning_keys(plan, statement)
    sets: Sequence[Mapping[str, Any]] = given if isinstance(given, list | tuple) else [given or {}]
    if isinstance(statement, Update):
        _require_same_keys(plan, statement, sets)
    located = _locate(connection, plan.table, statement.whereclause, sets)
    _note_located(connection, session, plan, located)
    key = list(plan.table.primary_key)
    if len(sets) > 1 or len(key) > 1:
        return statement
    wanted = literal([each[0] for each in located], ARRAY(key[0].type))
    return statement.where(key[0] == any_(wanted))


def _require_same_keys(plan: _Plan, statement: Update, sets: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to cover an UPDATE of the primary key: no statement tells which row became which."""
    keys = {*plan.table.primary_key, *(column for one in plan.covers for column in one.mapper.primary_key)}
    for each in set_columns(plan.table, statement, sets):
        if any(each.shares_lineage(key) for key in keys):
            raise CaptureError(
                f"update of {plan.table.fullname} by one statement sets {each}, which is of the primary key: which row"
                " became which is not seen, so it cannot be covered; change the objects instead, or add"
                f' execution_options({OPTION}="ignore") and record() yourself'
            )


def _returning_keys(plan: _Plan, statement: Insert) -> Insert:
    _require_no_conflict_clause(statement)
    several = bool(getattr(statement, "_multi_values", None)) or statement.select is not None
    if several or len(statement.exported_columns):
        raise CaptureError(
            f"insert of {plan.table.fullname} on a connection, with RETURNING, a SELECT or several rows of values: its"
            " keys are not seen, so it cannot be covered; run it by session.execute()"
        )
    return statement.return_defaults(*plan.table.primary_key)


def _locate(
    connection: Connection, table: Table, where: Any, sets: Sequence[Mapping[str, Any]]
) -> Collection[rows.Key]:
    """Return the primary keys of the rows that a statement names, locked."""
    key = list(table.primary_key)
    every = select(*key).order_by(*key).with_for_update(of=table)
    if where is None:
        return [tuple(row) for row in connection.execute(every)]
    found: dict[rows.Key, None] = {}
    for start in range(0, len(sets), _LOCKED_AT_ONCE):
        named = or_(*(_with_values(where, one) for one in sets[start : start + _LOCKED_AT_ONCE]))
        found |= dict.fromkeys(tuple(row) for row in connection.execute(every.where(named)))
    return list(found)


def _with_values(where: Any, values: Mapping[str, Any]) -> Any:
    """Return the condition with these values for its parameters."""

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, BindParameter) and element.key in values:
            return literal(values[element.key], element.type)
        return None

    return visitors.replacement_traverse(where, {}, replace) if values else where


def _mappers(plan: _Plan) -> Iterable[Mapper[Any]]:
    """Return one class for each hierarchy that has rows in the table."""
    return {one.mapper.base_mapper: one.mapper for one in plan.covers}.values()


def _note_located(connection: Connection, session: Session, plan: _Plan, keys: Collection[rows.Key]) -> None:
    journal = journal_of(session)
    for mapper in _mappers(plan):
        for concrete, found in rows.classes_of(connection, mapper, keys).items():
            if (watch := watch_of(concrete)) is not None and watch.captures:
                images = rows.read(connection, concrete, watch.shape, found)
                for key, image in zip(found, images, strict=True):
                    if image is not None:
                        _note(journal, plan, concrete, key, image)


def _note_new(session: Session, plan: _Plan, keys: Collection[rows.Key]) -> None:
    journal = journal_of(session)
    for mapper in _mappers(plan):
        for concrete, found in rows.classes_of(connection_of(session, mapper), mapper, keys).items():
            for key in found:
                _note(journal, plan, concrete, key, None)
    _finish(session, journal)


def _note(journal: Journal, plan: _Plan, mapper: Mapper[Any], key: rows.Key, before: Any) -> None:
    watch = watch_of(mapper)
    if watch is None or not watch.captures:
        return
    identity = (mapper.base_mapper, key)
    after = dict.fromkeys(watch.shape.names, UNKNOWN)
    journal.covered.append(Step(mapper, identity, identity, before, after, None, plan.ignores))


def after_execute(
    connection: Connection, statement: Any, _multiparams: Any, _params: Any, options: Any, result: CursorResult[Any]
) -> None:
    """Note which rows a covered statement changed, now that it has."""
    if not isinstance(statement, Insert | Update | Delete) or (session := _session_of(connection)) is None:
        return
    journal = find_journal(session)
    if journal is None or journal.covering or _is_of_flush(journal, statement, options):
        return
    if isinstance(statement, Insert):
        if (plan := _plan(statement, options)) is not None:
            _note_new(session, plan, [tuple(row) for row in result.inserted_primary_key_rows if row])
    elif journal.covered:
        _finish(session, journal)


def _finish(session: Session, journal: Journal) -> None:
    steps, journal.covered = journal.covered, []
    note(session, journal, steps)
