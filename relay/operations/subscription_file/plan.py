"""What a file of subscriptions would change: a pure function of what is declared and what is stored."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from outbox.errors import SubscriptionError
from outbox.formats import shown_url
from outbox.ids import SubscriptionId
from outbox.signing.schemes import UNSIGNED
from outbox.subscriptions.batching import check_batching
from outbox.subscriptions.fields import COLUMNS, SECRETS
from outbox.subscriptions.formatting import format_after
from outbox.subscriptions.stored_credentials import StoredCredentials, check_together

if TYPE_CHECKING:
    from outbox.secret import Secret
    from outbox.subscriptions.managed import KnownSecret, StoredSubscription

__all__ = [
    "KEEP", "SIGNING", "Change", "Declared", "Fault", "GivenSecret", "Keep", "Plan", "Step", "field_of", "plan_file",
    "words_of",
]  # fmt: skip

SIGNING = "signing"
"""The kind of the secret that a file calls `secret`."""


class Keep(Enum):
    """What a file says with `{ keep = true }`: as it is stored."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True)
class GivenSecret:
    """A secret as it would be stored, what may be shown of it, and where it is from."""

    text: Secret
    hint: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A subscription that a file declares. `tenant` is `*` for every tenant's.

    columns: what to store of each field that is a column; of `url` perhaps KEEP.
    secrets: what to store of each kind, None for no such secret; of `signing` None leaves what there is.
    given: the same as `add` and `update` take it, of what stands in the file.
    """

    tenant: str
    name: str
    scheme: str = "standard"
    columns: Mapping[str, Any] = field(repr=False)
    secrets: Mapping[str, GivenSecret | Keep | None]
    given: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong in one table of a file. `problem` begins with the field."""

    tenant: str
    name: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A field's value before and after, in words that hold no secret; '' where there was or is none."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What becomes of one subscription. `left`: it is not in the file any more, and only --prune removes it.

    `version` is that of the row which was compared; None where there is none yet, as is `id`.
    """

    action: Literal["create", "change", "remove", "unchanged", "left"]
    tenant: str
    name: str
    id: SubscriptionId | None = None
    version: int | None = None
    changes: tuple[Change, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether anything is to be written."""
        return self.action in ("create", "change", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What applying a file does, in the order of the file; what is not in it comes last."""

    manager: str
    steps: tuple[Step, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written."""
        return not any(step.writes for step in self.steps)

    def count(self, action: str) -> int:
        """Return how many subscriptions this is done to."""
        return sum(step.action == action for step in self.steps)


def plan_file(
    manager: str, declared: Sequence[Declared], stored: Collection[StoredSubscription], *, prune: bool
) -> tuple[Plan, tuple[Fault, ...]]:
    """Compare a file with what is stored; return the plan, and what stands against it.

    Args:
        manager: who manages these, as the file says; only what the same manager made is ever removed.
        declared: the subscriptions of the file, each tenant's names unlike each other.
        stored: those with the same names, and those of this manager.
        prune: remove what this manager made and the file does not declare.
    """
    there = {(one.tenant, one.name): one for one in stored}
    names = {(one.tenant, one.name) for one in declared}
    steps: list[Step] = []
    faults: list[Fault] = []
    for one in declared:
        found = there.get((one.tenant, one.name))
        problems = [*_problems(manager, one, found)]
        faults += [Fault(tenant=one.tenant, name=one.name, problem=problem) for problem in problems]
        if not problems:
            steps.append(_create(one) if found is None else _compare(one, found))
    gone = sorted(key for key, one in there.items() if one.managed_by == manager and key not in names)
    steps += [_step("remove" if prune else "left", there[key]) for key in gone]
    return Plan(manager=manager, steps=tuple(steps)), tuple(faults)


def _create(one: Declared) -> Step:
    """Plan a new subscription: every field that is not its default is a change from nothing."""
    changes = [Change(field="scheme", before="", after=one.scheme)] if one.scheme != "standard" else []
    changes += [
        Change(field=each.name, before="", after=words_of(each.name, one.columns))
        for each in COLUMNS
        if each.name != "name" and one.columns[each.name] != each.default
    ]
    changes += [
        Change(field=field_of(kind), before="", after=_given_words(secret))
        for kind, secret in one.secrets.items()
        if isinstance(secret, GivenSecret)
    ]
    if one.secrets.get(SIGNING) is None and one.scheme != UNSIGNED:
        changes.append(Change(field="secret", before="", after="a new one, which is not shown"))
    return Step(action="create", tenant=one.tenant, name=one.name, changes=tuple(changes))


def _compare(one: Declared, found: StoredSubscription) -> Step:
    before, after = found.columns, one.columns
    changes = [Change(field="scheme", before=found.scheme, after=one.scheme)] if one.scheme != found.scheme else []
    changes += [
        _column_change(each.name, before, after)
        for each in COLUMNS
        if after[each.name] is not KEEP and not _same(after[each.name], before[each.name])
    ]
    for kind, secret in one.secrets.items():
        changes += _compare_secret(kind, secret, found.secrets.get(kind), anew=one.scheme != found.scheme)
    return _step("change" if changes else "unchanged", found, tuple(changes))


def _column_change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    was, becomes = words_of(name, before), words_of(name, after)
    return Change(field=name, before=was, after=f"{becomes}, another one" if was == becomes else becomes)


def _same(value: Any, other: Any) -> bool:
    """Tell whether two values of a column are equal; True is not 1."""
    return type(value) is type(other) and bool(value == other)


def _compare_secret(
    kind: str, given: GivenSecret | Keep | None, known: KnownSecret | None, *, anew: bool
) -> Iterable[Change]:
    before = "" if known is None else known.hint or "one"
    if isinstance(given, GivenSecret):
        if known is None or (anew and kind == SIGNING) or not known.holds(given.text):
            yield Change(field=field_of(kind), before=before, after=_given_words(given))
    elif given is None and known is not None and kind != SIGNING:
        yield Change(field=field_of(kind), before=before, after="")


def _step(action: Any, found: StoredSubscription, changes: tuple[Change, ...] = ()) -> Step:
    return Step(
        action=action, tenant=found.tenant, name=found.name, id=SubscriptionId.of(found.id), version=found.version,
        changes=changes,
    )  # fmt: skip


def _problems(manager: str, one: Declared, found: StoredSubscription | None) -> Iterable[str]:
    """Yield why this cannot be applied: whose it is, what is to be kept and is not there, what does not go together."""
    if found is not None and found.managed_by not in (None, manager):
        yield f"name: it is managed by {found.managed_by}; take it out of that file first, or choose another name"
        return
    missing = [*_missing(one, found)]
    yield from missing
    if found is not None and one.scheme != found.scheme:
        if one.scheme == UNSIGNED:
            yield "scheme: one that signs cannot become none; declare another subscription without a signature"
        elif one.secrets.get(SIGNING) is None:
            yield f"scheme: {found.scheme} becomes {one.scheme}, which needs a secret of its own; give secret too"
    if not missing:
        yield from _untogether(one, found)


def _missing(one: Declared, found: StoredSubscription | None) -> Iterable[str]:
    mend = 'there is none to keep; give { env = "NAME" } or { file = "PATH" }'
    if one.columns["url"] is KEEP and found is None:
        yield f"url: {mend}"
    for kind, secret in one.secrets.items():
        if secret is KEEP and (found is None or kind not in found.secrets):
            yield f"{field_of(kind)}: {mend}"


def _untogether(one: Declared, found: StoredSubscription | None) -> Iterable[str]:
    """Yield what a verb would say of fields that do not go together."""
    known = {} if found is None else found.secrets
    hints = {each.name: known[each.name].hint for each in SECRETS if one.secrets[each.name] is KEEP}
    credentials: StoredCredentials = {
        each.name: (secret.text.reveal(), secret.hint)
        for each in SECRETS
        if isinstance(secret := one.secrets[each.name], GivenSecret)
    }
    url = found.columns["url"] if found is not None and one.columns["url"] is KEEP else one.columns["url"]
    values = {**one.columns, "url": url}
    try:
        check_together(url, hints, credentials)
        format_after(values, credentials, None, hints)
        check_batching(values)
    except SubscriptionError as error:
        yield str(error)


def words_of(name: str, columns: Mapping[str, Any]) -> str:
    """Return what may be shown of a column, for people; '' where there is nothing."""
    value = columns[name]
    if name == "url":
        return shown_url(value, columns["format"]) if isinstance(value, str) else ""
    if value is None or value in ({}, ()):
        return "none" if name in ("schedule_seconds", "final_statuses") else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value)


def _given_words(secret: GivenSecret) -> str:
    return ", ".join(filter(None, (secret.hint, secret.source)))


def field_of(kind: str) -> str:
    """Return what a file calls a kind of secret."""
    return "secret" if kind == SIGNING else kind
