"""What is to be erased, and how much that is: a tenant, a key, or a person by a place in payloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import text

from outbox._text import complaint
from outbox.control.tenancy import operator_only
from outbox.errors import OutboxError
from outbox.subscriptions.checks import check_tenant

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["EraseError", "ErasePlan", "EraseRequest", "Kind", "plan_erasure", "scope_of"]

Kind = Literal["tenant", "key", "subject"]
_LOOK = 5_000
_LONGEST = 4_096
_MOST_STEPS = 32


class EraseError(OutboxError):
    """An erasure was refused; nothing was erased. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseRequest:
    """What to erase.

    - tenant: everything about the tenant `value`: its events, subscriptions with their secrets, limits and attempts.
    - key: the events with this key.
    - subject: the events in whose payload `value` stands at `path`, member names with dots between: `customer.id`. A
      number is equal to a text that says the same. Every element of an array is looked into.

    within: only events of this tenant. Raises EraseError where something is missing or is no text.
    """

    kind: Kind
    value: str
    path: str | None = None
    within: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise EraseError(f"kind: {self.kind!r} is none of {', '.join(get_args(Kind))}")
        if not isinstance(self.value, str) or "\0" in self.value or not _is_utf8(self.value):
            raise EraseError("value: must be text, without NUL")
        if len(self.value.encode()) > _LONGEST:
            raise EraseError(f"value: must have at most {_LONGEST} bytes")
        if self.kind == "tenant" and (self.within is not None or self.value == "*"):
            raise EraseError("tenant: name one tenant, and nothing that it is within")
        if not self.value:
            mend = "; what has no tenant is erased by key or subject" if self.kind == "tenant" else ""
            raise EraseError(f"value: must not be empty{mend}")
        if (self.path is not None) != (self.kind == "subject"):
            raise EraseError(
                "path: names where in the payload a subject stands, such as customer.id; for subjects only"
            )
        if self.path is not None:
            _check_path(self.path)
        if self.within is not None:
            check_tenant(self.within)

    @property
    def steps(self) -> list[str] | None:
        """The path as its steps; None where there is none."""
        return None if self.path is None else self.path.split(".")


def _check_path(path: str) -> None:
    if refused := complaint("path", path, _LONGEST):
        raise EraseError(refused)
    steps = path.split(".")
    if not all(steps):
        raise EraseError(f"path: {path!r} has an empty step; give member names with dots between")
    if len(steps) > _MOST_STEPS:
        raise EraseError(f"path: has {len(steps)} steps; at most {_MOST_STEPS} are allowed")


def _is_utf8(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasePlan:
    """How much an erasure would erase now.

    undelivered: deliveries and pending events among the events; they have to be cancelled first. subscriptions: those
    of a tenant. received_requests: rows of the inbox.
    """

    events: int
    undelivered: int
    dead_letters: int
    subscriptions: int
    received_requests: int = 0


def scope_of(tenant: str | None, request: EraseRequest) -> str | None:
    """Return whose events only are meant. A tenant erases keys and subjects of its own, and never itself.

    Raises:
        NotFoundError: a tenant asks for what is the operator's.
        EraseError: it names another tenant.
    """
    if request.kind == "tenant":
        operator_only(tenant, "erase a tenant")
        return None
    if tenant is not None and request.within not in (None, tenant):
        raise EraseError("within: only your own tenant; leave it out")
    return tenant if tenant is not None else request.within


# A row of the table that is never stored: the functions of an erasure take one.
_IT = """
jsonb_populate_record(null::outbox.erasures, jsonb_build_object(
    'kind', cast(:kind as text), 'value', cast(:value as text), 'path', to_jsonb(cast(:path as text[])),
    'tenant', cast(:scope as text)))"""
_EVENTS = text(f"""
select count(*) as looked, max(seq) as reached, array_agg(seq) filter (
    where outbox.is_erased({_IT}, tenant, key, payload)) as seqs
from (select seq, tenant, key, payload from outbox.events where seq > :after order by seq limit :look) e
""")  # noqa: S608 - constants
_UNDELIVERED = text("""
select (select count(*) from outbox.pending where event_seq = any(cast(:seqs as bigint[])))
     + (select count(*) from outbox.deliveries where event_seq = any(cast(:seqs as bigint[])))
""")
_DEAD = text(f"""
select count(*) from outbox.dead_letters where outbox.is_erased({_IT}, tenant, key, coalesce(payload, 'null'))
""")  # noqa: S608 - constants
_RECEIVED = text(f"""
select reached, coalesce(cardinality(ids), 0) as number
from outbox.received_of({_IT}, cast(:after as timestamptz), cast(:look as integer))
""")  # noqa: S608 - constants
_SUBSCRIPTIONS = text("select count(*) from outbox.subscriptions where tenant = :value and :kind = 'tenant'")


def plan_erasure(connection: Connection, tenant: str | None, request: EraseRequest) -> ErasePlan:
    """Count what would be erased, and erase nothing. Reads every event. Raises as `scope_of` does."""
    it: dict[str, Any] = {
        "kind": request.kind, "value": request.value, "path": request.steps, "scope": scope_of(tenant, request),
    }  # fmt: skip
    events = undelivered = 0
    after: int | None = -1
    while after is not None:
        row = connection.execute(_EVENTS, it | {"after": after, "look": _LOOK}).one()
        after = row.reached
        if row.seqs:
            events += len(row.seqs)
            undelivered += connection.execute(_UNDELIVERED, {"seqs": row.seqs}).scalar_one()
    return ErasePlan(
        events=events,
        undelivered=undelivered,
        dead_letters=connection.execute(_DEAD, it).scalar_one(),
        subscriptions=connection.execute(_SUBSCRIPTIONS, {"kind": request.kind, "value": request.value}).scalar_one(),
        received_requests=_count_received(connection, it),
    )


def _count_received(connection: Connection, it: dict[str, Any]) -> int:
    """Count the rows of the inbox that would be erased, some thousand a statement."""
    found, after = 0, "-infinity"
    while (row := connection.execute(_RECEIVED, it | {"after": after, "look": _LOOK}).one()).reached is not None:
        found, after = found + row.number, row.reached
    return found
