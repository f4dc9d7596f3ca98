"""What a session's open transaction did to captured rows, step by step; savepoints take back what is theirs.

As with recorded events (outbox/recording/session.py), the innermost transaction that is open owns a step: a savepoint
that is rolled back drops its steps, one that is released hands them up. Steps form a stack, so the end of a savepoint
looks at its own only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction

from outbox.capturing.images import Image
from outbox.capturing.rows import Key

__all__ = ["Journal", "Net", "Step", "Writing", "find_journal", "forget_journal", "journal_of", "net_of"]

Identity = tuple[Mapper[Any], Key]
"""A row: the base of its class's hierarchy, and its primary key."""


@dataclass(slots=True, eq=False)
class Step:
    """One statement's change of one row. An image that is None: the row does not exist.

    `identity` is the row before it, `becomes` after it: another one where the primary key was changed. `unheard_by` are
    captures that ignore the bulk statement that did it.
    """

    mapper: Mapper[Any]
    identity: Identity
    becomes: Identity
    before: Image | None
    after: Image | None
    instance: Any
    unheard_by: frozenset[Any] = frozenset()
    owner: SessionTransaction | None = None
    previous: Step | None = None


@dataclass(slots=True)
class Writing:
    """A row that the flush is about to write; `was` is None of a new one, `changed` what the object was changed in.

    `expired`: the attributes that were not loaded, and that nobody can set before the row is written.
    """

    mapper: Mapper[Any]
    state: InstanceState[Any]
    was: Image | None
    stays: bool = True
    changed: Collection[str] = ()
    expired: Collection[str] = ()


@dataclass(slots=True, eq=False)
class Net:
    """What all steps together did to one row."""

    mapper: Mapper[Any]
    identity: Identity
    before: Image | None
    after: Image | None
    instance: Any


@dataclass(slots=True)
class Journal:
    """The steps of one session's transaction.

    `latest` has each row's last step. `committing` has an item for each `before_commit` whose transaction has not ended
    yet, `committed` the transaction that ended well last. `covering`: a statement is being covered. `failed_in`: where
    what a statement did could not be recorded, so that it must be rolled back.

    The others are of the flush under way. `writing`: its rows; `writers`: their classes; `images`: images before it
    that were made ahead; `incomplete`: the rows of those that have a value that nobody knows.
    """

    steps: list[Step] = field(default_factory=list)
    latest: dict[Identity, Step] = field(default_factory=dict)
    committing: list[SessionTransaction | None] = field(default_factory=list)
    committed: SessionTransaction | None = None
    writing: list[Writing] = field(default_factory=list)
    writers: set[Mapper[Any]] = field(default_factory=set)
    images: dict[InstanceState[Any], Image] = field(default_factory=dict)
    incomplete: set[InstanceState[Any]] = field(default_factory=set)
    covering: bool = False
    covered: list[Step] = field(default_factory=list)
    failed_in: SessionTransaction | None = None

    def add(self, step: Step, owner: SessionTransaction | None) -> None:
        """Note a step that the innermost open transaction did."""
        step.owner = owner
        step.previous = self.latest.pop(step.identity, None)
        self.latest[step.becomes] = step
        self.steps.append(step)

    def take(self) -> list[Step]:
        """Return the steps and forget them."""
        steps, self.steps = self.steps, []
        self.latest.clear()
        return steps

    def end_flush(self) -> list[Writing]:
        """Return the rows of the flush and forget them."""
        writing, self.writing = self.writing, []
        self.writers.clear()
        self.images.clear()
        self.incomplete.clear()
        return writing

    def hand_up(self, ended: SessionTransaction, parent: SessionTransaction) -> None:
        """Give the parent what a released savepoint owned."""
        for step in reversed(self.steps):
            if step.owner is not ended:
                break
            step.owner = parent
        if self.failed_in is ended:
            self.failed_in = parent
        if self.committing:
            self.committing.pop()

    def drop(self, ended: SessionTransaction) -> None:
        """Forget what a rolled-back savepoint owned."""
        self.committing = [innermost for innermost in self.committing if innermost is not ended]
        if self.failed_in is ended:
            self.failed_in = None
        while self.steps and self.steps[-1].owner is ended:
            step = self.steps.pop()
            self.latest.pop(step.becomes, None)
            if step.previous is not None:
                self.latest[step.identity] = step.previous


_KEY = "_outbox_capture"


def journal_of(session: Session) -> Journal:
    """Return the session's journal; it is made where there is none."""
    journal: Journal = vars(session).get(_KEY) or vars(session).setdefault(_KEY, Journal())
    return journal


def find_journal(session: Session) -> Journal | None:
    """Return the session's journal, if there is one."""
    return vars(session).get(_KEY)


def forget_journal(session: Session) -> None:
    """Forget the session's journal, if there is one."""
    vars(session).pop(_KEY, None)


def net_of(steps: Iterable[Step]) -> list[Net]:
    """Return what happened to each row: a new one where it was made, any other where it was last changed.

    So a row comes after those that it refers to, in whatever order they were written.
    """
    live: dict[Identity, Net] = {}
    ordered: dict[Net, None] = {}
    for step in steps:
        net = live.pop(step.identity, None)
        if net is None:
            net = Net(step.mapper, step.becomes, step.before, step.after, step.instance)
        else:
            net.mapper, net.identity, net.after = step.mapper, step.becomes, step.after
            net.instance = step.instance if step.instance is not None else net.instance
            if net.before is not None:
                ordered.pop(net)
        if (gone := live.get(step.becomes)) is not None:
            gone.after = None  # what a bulk statement wrote is read by its key, which is another row's now
        live[step.becomes] = net
        ordered[net] = None
    return [net for net in ordered if net.before is not None or net.after is not None]
