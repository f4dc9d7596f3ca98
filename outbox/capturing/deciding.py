"""Decide what to record of rows that were changed, and record it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from functools import partial
from operator import is_
from types import NoneType
from typing import Any, NamedTuple

from sqlalchemy import Connection, update
from sqlalchemy.orm import Mapper, Session, SessionTransaction

from outbox.capturing import rows
from outbox.capturing.change import Change, Kind
from outbox.capturing.images import Image, differing, has_unknown
from outbox.capturing.journal import Journal, Net, Step, net_of
from outbox.capturing.registry import Capture, watch_of
from outbox.errors import TransactionError
from outbox.recording.boundaries import innermost
from outbox.recording.record import row_of
from outbox.recording.session import remember_all

__all__ = ["connection_of", "decide", "note", "resolve"]

_ROUNDS = 100


class _Draft(NamedTuple):
    type: str
    data: object
    key: str
    tenant: str
    priority: int


def decide(session: Session, journal: Journal) -> None:
    """Record what the transaction did. A function that changes rows is heard once more.

    Raises whatever a function or `record()` raises, with a note that names the capture; then the transaction has to be
    rolled back.
    """
    if journal.failed_in is not None:
        raise TransactionError("a capture failed in this transaction, which has to be rolled back first")
    journal.failed_in = innermost(session)
    for _ in range(_ROUNDS):
        if not journal.steps:
            break
        _record(session, _drafts(session, journal.take(), each_flush=False))
    else:
        raise TransactionError("functions of a capture change captured rows each time they are called: change none")
    journal.failed_in = None


def note(session: Session, journal: Journal, steps: list[Step]) -> None:
    """Note steps that were done, and decide at once what is not to wait for the commit."""
    here = innermost(session)
    for step in steps:
        journal.add(step, here)
    if any((watch := watch_of(mapper)) and watch.each_flush for mapper in {step.mapper for step in steps}):
        _decide_flush(session, journal, here, steps)
    if journal.committing and session.get_nested_transaction() is None:
        decide(session, journal)


def _decide_flush(session: Session, journal: Journal, here: SessionTransaction | None, steps: Sequence[Step]) -> None:
    """Record what one flush or statement did, for captures that asked for each.

    A failed flush is rolled back by the session; a failed statement has changed its rows, which nobody may commit then.
    """
    before, journal.failed_in = journal.failed_in, journal.failed_in or here
    _record(session, _drafts(session, steps, each_flush=True))
    journal.failed_in = before


def _drafts(session: Session, steps: Sequence[Step], *, each_flush: bool) -> list[tuple[Capture, _Draft]]:
    """Return what to record, by row, and of a row by capture in the order in which they were made."""
    unheard = frozenset[Capture]().union(*(step.unheard_by for step in steps))
    drafts = _of_steps(session, steps, lambda one: one.each_flush is each_flush and one not in unheard)
    for deaf in unheard:
        if deaf.each_flush is each_flush:
            heard = [step for step in steps if deaf not in step.unheard_by]
            drafts += _of_steps(session, heard, partial(is_, deaf))
    return drafts


def _of_steps(
    session: Session, steps: Sequence[Step], hears: Callable[[Capture], bool]
) -> list[tuple[Capture, _Draft]]:
    listeners_of: dict[Mapper[Any], list[Capture]] = {}
    heard = {}
    for net in net_of(steps):
        if (listeners := listeners_of.get(net.mapper)) is None:
            watch = watch_of(net.mapper)
            listeners = listeners_of[net.mapper] = [one for one in watch.captures if hears(one)] if watch else []
        if listeners:
            heard[net] = listeners
    nets = list(heard)
    resolve(session, nets)
    return [(one, draft) for net in nets for one in heard[net] for draft in _of_net(one, net)]


def _record(session: Session, drafts: Sequence[tuple[Capture, _Draft]]) -> None:
    made = []
    for capture, draft in drafts:
        try:
            row = row_of(*draft)
        except Exception as error:
            error.add_note(f"outbox: in {capture!r}, event {draft.type} of the row with key {draft.key!r}")
            raise
        if row is not None:
            made.append(row)
    try:
        remember_all(session, made)
    except Exception as error:
        named = ", ".join(dict.fromkeys(repr(capture) for capture, _ in drafts))
        error.add_note(f"outbox: in {named}")
        raise


def _of_net(capture: Capture, net: Net) -> Iterator[_Draft]:
    """Yield what to record of one row."""
    for kind, type_, changed in _events(capture, net):
        try:
            yield _draft(capture, net, kind, type_, changed)
        except Exception as error:
            error.add_note(f"outbox: in a function of {capture!r}, for {type_} of the row {net.identity[1]}")
            raise


def _draft(capture: Capture, net: Net, kind: Kind, type_: str, changed: tuple[str, ...]) -> _Draft:
    """Return one event. The data knows the columns that count, other functions all that were read."""
    tenant, priority, before, after = capture.tenant, capture.priority, net.before or {}, net.after or {}
    if capture.data is None and capture.key is None and not callable(tenant) and not callable(priority):
        row = _columns(before if kind == "deleted" else after, capture.columns)
        return _Draft(type_, _default_data(row), _default_key(net), tenant, priority)  # no Change: nobody is told
    whole = shown = Change(kind=kind, type=type_, before=before, after=after, changed=changed, instance=net.instance)
    if (names := capture.columns) is not None:
        shown = replace(whole, before=_columns(before, names), after=_columns(after, names))
    return _Draft(
        type_,
        _default_data(shown.row) if capture.data is None else capture.data(shown),
        _default_key(net) if capture.key is None else capture.key(whole),
        tenant(whole) if callable(tenant) else tenant,
        priority(shown) if callable(priority) else priority,
    )


def _columns(image: Image, names: tuple[str, ...] | None) -> Image:
    """Return the columns that count; none of a row that does not exist."""
    return image if names is None or not image else {name: image[name] for name in names}


def _default_key(net: Net) -> str:
    return ",".join(map(str, net.identity[1]))


def _events(capture: Capture, net: Net) -> Iterator[tuple[Kind, str, tuple[str, ...]]]:
    """Yield kind, type and changed names of each event that fits."""
    if net.after is None:
        if capture.deleted and net.before is not None:
            yield "deleted", capture.deleted, capture.columns or tuple(net.before)
        return
    names = capture.columns or tuple(net.after)
    if net.before is None:
        if capture.created:
            yield "created", capture.created, names
        for _, type_ in _became(capture, net.after, capture.became):
            yield "created", type_, names
        return
    changed = differing(net.before, net.after, names)
    if changed and capture.updated:
        yield "updated", capture.updated, changed
    if capture.became:
        became = differing(net.before, net.after, capture.became)
        for name, type_ in _became(capture, net.after, became):
            yield "updated", type_, changed or (name,)


def _became(capture: Capture, after: Image, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            type_ = capture.became[name].get(after[name])
        except TypeError:  # a value that is not hashable is none of those that were named
            continue
        if type_ is not None:
            yield name, type_


def resolve(session: Session, nets: list[Net]) -> None:
    """Read what only the database knows of rows as they are now: a statement for each class and 500 rows.

    A row that is not found is one that the database deleted.
    """
    wanted: dict[Mapper[Any], list[Net]] = {}
    for net in nets:
        if net.after is not None and has_unknown(net.after):
            wanted.setdefault(net.mapper, []).append(net)
    for mapper, open_ in wanted.items():
        if (watch := watch_of(mapper)) is None:
            continue
        found = rows.read(connection_of(session, mapper), mapper, watch.shape, [net.identity[1] for net in open_])
        for net, image in zip(open_, found, strict=True):
            net.after = image
            if image is not None:  # the key did not change where the database writes it in another way
                image.update(zip(watch.shape.key, net.identity[1], strict=True))
    nets[:] = [net for net in nets if net.before is not None or net.after is not None]


def connection_of(session: Session, mapper: Mapper[Any]) -> Connection:
    """Return the connection that writes the rows of a class."""
    table: Any = mapper.local_table
    return session.connection(bind_arguments={"mapper": mapper, "clause": update(table)})


def _default_data(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row, with JSON's forms for what has none of its own: those that PostgreSQL's to_json() gives."""
    if _OWN_FORM.issuperset(map(type, row.values())):
        return row
    return {name: _FORMS.get(type(value), _same)(value) for name, value in row.items()}


def _same(value: Any) -> Any:
    return str(value) if type(value).__module__ == "ipaddress" else value


_OWN_FORM = frozenset({NoneType, bool, int, float, str})
_FORMS: dict[type, Any] = {
    datetime: lambda value: value.isoformat() if value.tzinfo is None else value,
    time: time.isoformat,
    timedelta: timedelta.total_seconds,
    bytes: lambda value: f"\\x{value.hex()}",
    memoryview: lambda value: f"\\x{value.hex()}",
    set: sorted,
}
