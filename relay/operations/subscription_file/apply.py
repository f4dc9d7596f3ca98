"""Plan what a file of subscriptions changes, and carry that out in the caller's transaction, all of it or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox import subscriptions as verbs
from outbox.errors import OutboxError, SubscriptionError
from outbox.ids import SubscriptionId
from outbox.secret import Secret, hides_secrets
from outbox.signing.schemes import UNSIGNED
from outbox.subscriptions.checks import EVERY_TENANT
from outbox.subscriptions.fields import SECRETS
from outbox.subscriptions.managed import add_managed, lock_named, note_fingerprints, read_named, versions_of
from outbox.subscriptions.signing_secrets import OwnSecret
from relay.operations.subscription_file.document import Document, FileError, fault_line
from relay.operations.subscription_file.plan import (
    SIGNING,
    Declared,
    Fault,
    GivenSecret,
    Plan,
    Step,
    field_of,
    plan_file,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["ChangedMeanwhileError", "apply_plan", "plan_document"]


class ChangedMeanwhileError(OutboxError):
    """Somebody changed a subscription after the plan was made; nothing was written."""


@hides_secrets
def plan_document(connection: Connection, tenant: str | None, document: Document, file: str, *, prune: bool) -> Plan:
    """Return what applying a file would do; nothing is written.

    Args:
        connection: to the database.
        tenant: who asks, and whose subscriptions the file may declare; None is the operator.
        document: what the file declares.
        file: its name, for messages.
        prune: remove what the file's manager made and the file does not declare.

    Raises:
        FileError: the file cannot be applied; the message has a line for each fault.
    """
    stored = read_named(connection, tenant, names={one.name for one in document.declared}, manager=document.manager)
    plan, faults = plan_file(document.manager, document.declared, stored, prune=prune)
    others = _others(tenant, document)
    if faults or others:
        raise FileError("\n".join(fault_line(file, fault) for fault in (*others, *faults)))
    return plan


@hides_secrets
def apply_plan(
    connection: Connection, tenant: str | None, document: Document, plan: Plan, file: str
) -> tuple[Step, ...]:
    """Carry out a plan that was made of this document; return its steps, with the ids of what was made.

    Every row is locked and compared with the version that was planned for, before anything is written.

    Raises:
        ChangedMeanwhileError: a row has changed since, or a name was taken.
        FileError: a field was refused after all; the caller's transaction is to be rolled back.
    """
    if others := _others(tenant, document):
        raise FileError("\n".join(fault_line(file, fault) for fault in others))
    _lock_as_planned(connection, tenant, plan)
    declared = {(one.tenant, one.name): one for one in document.declared}
    return tuple(_carry_out(connection, plan.manager, step, declared.get((step.tenant, step.name)), file)
                 for step in plan.steps)  # fmt: skip


def _others(tenant: str | None, document: Document) -> list[Fault]:
    """Return what is declared for another tenant than the one who asks."""
    return [
        Fault(tenant=one.tenant, name=one.name, problem="tenant: it is not the one who asks; leave the table out")
        for one in document.declared
        if tenant is not None and one.tenant != tenant
    ]


def _lock_as_planned(connection: Connection, tenant: str | None, plan: Plan) -> None:
    """Lock every row that the plan is about. Raises ChangedMeanwhileError where one has changed, come or gone since.

    Versions are compared, and no secrets: their hashes are slow, and relays would wait for the locks meanwhile.
    """
    planned = {(step.tenant, step.name): (step.id, step.version) for step in plan.steps}
    lock_named(connection, [step.id for step in plan.steps if step.id is not None])
    found = versions_of(connection, tenant, keys=planned.keys(), manager=plan.manager)
    known = {key: version for key, version in planned.items() if version[0] is not None}
    for key in known:
        if found.get(key) != known[key]:
            raise _changed(key[1])
    if found.keys() != known.keys():
        raise ChangedMeanwhileError("subscriptions: they were changed since the plan was made; apply the file again")


def _changed(name: str) -> ChangedMeanwhileError:
    return ChangedMeanwhileError(f"{name}: it was changed since the plan was made; apply the file again")


def _carry_out(connection: Connection, manager: str, step: Step, declared: Declared | None, file: str) -> Step:
    try:
        if step.action == "remove":
            verbs.remove(connection, str(step.id), tenant=EVERY_TENANT)
        elif declared is not None and step.action == "create":
            return _create(connection, manager, step, declared)
        elif declared is not None and step.action == "change":
            _change(connection, step, declared)
    except SubscriptionError as error:
        if step.action == "create" and _is_there(connection, step):
            raise _changed(step.name) from None
        raise FileError(fault_line(file, Fault(tenant=step.tenant, name=step.name, problem=str(error)))) from None
    return step


def _is_there(connection: Connection, step: Step) -> bool:
    """Tell whether somebody else has made what was to be made."""
    named = read_named(connection, None, names={step.name})
    return any((one.tenant, one.name) == (step.tenant, step.name) for one in named)


def _create(connection: Connection, manager: str, step: Step, one: Declared) -> Step:
    given = {name: value for name, value in one.given.items() if name != "secret"}
    own = OwnSecret(one.scheme, one.given.get("secret"), None)
    made = add_managed(connection, one.tenant, manager, own, given)
    identity = SubscriptionId.of(made.id)
    note_fingerprints(connection, identity, _texts(one))
    return Step(action="create", tenant=step.tenant, name=step.name, id=identity, changes=step.changes)


def _change(connection: Connection, step: Step, one: Declared) -> None:
    fields = {change.field for change in step.changes}
    changes: dict[str, Any] = {name: one.given.get(name) for name in fields - {"scheme", "secret"}}
    if changes:
        verbs.update(connection, str(step.id), tenant=EVERY_TENANT, **changes)
    if "secret" in fields and one.scheme != UNSIGNED:
        scheme = one.scheme if "scheme" in fields else None
        verbs.rotate_secret(connection, str(step.id), tenant=EVERY_TENANT, secret=one.given["secret"], scheme=scheme)
    written = {kind: text for kind, text in _texts(one).items() if field_of(kind) in fields}
    assert step.id is not None
    note_fingerprints(connection, step.id, written)


def _texts(one: Declared) -> dict[str, Secret]:
    """Return the secrets that are stored, by kind."""
    kinds = (SIGNING, *(each.name for each in SECRETS))
    return {kind: secret.text for kind in kinds if isinstance(secret := one.secrets.get(kind), GivenSecret)}
