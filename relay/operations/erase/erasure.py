"""An erasure: a row that the command which asked for it, or any relay, carries out step by step, and a receipt.

The steps stand in the database's own functions (migrations/0023_erasure.sql): no role may delete events, or change
attempts and the audit, in any other way.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox.control.filters import Filters
from outbox.control.pages import Key, Listing
from outbox.control.tenancy import own
from outbox.control.times import rfc3339
from outbox.errors import NotFoundError
from outbox.ids import ErasureId
from relay.operations.erase.request import EraseError, plan_erasure, scope_of
from relay.store.postgres_errors import is_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from outbox.control.pages import Page
    from relay.operations.erase.request import EraseRequest, Kind

__all__ = [
    "Erasure", "Receipt", "cancel_erasure", "list_erasures", "receipt_of", "request_erasure", "resume_erasure",
    "run_erasure", "show_erasure",
]  # fmt: skip

BATCH_ROWS = 1_000
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One erasure, without what it erases: digest is the SHA-256 of `salt:value`, in hexadecimal digits.

    counts: rows by what was done to them. last_error: what it is blocked by.
    """

    id: ErasureId
    kind: Kind
    path: str | None
    salt: str
    digest: str
    cancel_undelivered: bool
    state: Literal["running", "blocked", "cancelled", "done"]
    phase: str
    up_to_seq: int
    counts: Mapping[str, int]
    last_error: str | None
    requested_by: str
    role: str
    created_at: datetime
    finished_at: datetime | None


_INSERT = text("""
insert into outbox.erasures (kind, value, path, tenant, asked_by, cancel_undelivered)
values (:kind, :value, :path, :scope, :asking, :cancel) returning id
""")


def request_erasure(
    connection: Connection, tenant: str | None, request: EraseRequest, *, cancel_undelivered: bool = False
) -> Erasure:
    """Let it be erased, for good: `run_erasure` does it, and so do relays, within seconds of the commit.

    Args:
        connection: in a transaction.
        tenant: who asks; None is the operator.
        request: what to erase.
        cancel_undelivered: cancel what is not delivered yet; without it, an erasure that meets such is refused.

    Raises:
        NotFoundError: a tenant asks for a whole tenant.
        EraseError: something is undelivered; the message says how much.
    """
    scope = scope_of(tenant, request)
    undelivered = 0 if cancel_undelivered else plan_erasure(connection, tenant, request).undelivered
    if undelivered:
        raise EraseError(
            f"undelivered: {undelivered:,} deliveries or pending events are; let them be cancelled first"
            " (--cancel-undelivered), or wait until they are delivered"
        )
    row = {
        "kind": request.kind, "value": request.value, "path": request.steps, "scope": scope, "asking": tenant,
        "cancel": cancel_undelivered,
    }  # fmt: skip
    return show_erasure(connection, tenant, connection.execute(_INSERT, row).scalar_one())


_COLUMNS = """
select id, kind, path, salt, digest, cancel_undelivered, state, phase, up_to_seq, counts, last_error, requested_by,
       role, created_at, finished_at
from outbox.erasures
"""
_OWN = own("asked_by")
_SHOW = text(f"{_COLUMNS} where id = :id and {_OWN}")


def show_erasure(connection: Connection, tenant: str | None, erasure_id: UUID | str) -> Erasure:
    """Return one erasure. Raises NotFoundError where it is none that this tenant asked for."""
    uuid = ErasureId.of(erasure_id)
    row = connection.execute(_SHOW, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"erasure: no {uuid}")
    return _erasure(row)


_LISTING = Listing(
    name="erasures",
    columns={"at": "created_at"},
    own=_OWN,
    keys=(Key("id", "id", "uuid", descending=True),),
)


def list_erasures(
    connection: Connection, tenant: str | None, filters: Filters | None = None, *, after: str | None = None
) -> Page[Erasure]:
    """Return the newest erasures, `filters.limit` a page."""
    wanted = filters or Filters()
    where, parameters = _LISTING.where(tenant, wanted, after)
    statement = text(f"{_COLUMNS} where {where} {_LISTING.order_by} limit :limit")
    return _LISTING.page(connection.execute(statement, parameters).all(), wanted.limit, _erasure)


def _erasure(row: Any) -> Erasure:
    values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return Erasure(**values | {"id": ErasureId.of(row.id), "path": None if row.path is None else ".".join(row.path)})


_STEP = text("select outbox.erase_next(:batch, :id)")


def run_erasure(
    connection: Connection,
    tenant: str | None,
    erasure_id: UUID | str,
    *,
    tell: Callable[[Erasure], None] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Erasure:
    """Carry an erasure out until it ends or is blocked, and return it. Whoever stops this, or kills it, loses nothing.

    The connection has no transaction open and is left so: every step is committed by itself. What is on its way to an
    endpoint is waited for. `tell` is called after each step.

    Raises:
        NotFoundError: it is none that this tenant asked for.
    """
    while True:
        with connection.begin():
            found = show_erasure(connection, tenant, erasure_id)
        if tell is not None:
            tell(found)
        if found.state != "running":
            return found
        if not _step(connection, found.id, batch_rows):
            time.sleep(_PAUSE_SECONDS)


def _step(connection: Connection, erasure_id: ErasureId, batch_rows: int) -> bool:
    """Take a step; tell whether the next one may follow at once."""
    try:
        with connection.begin():
            return bool(connection.execute(_STEP, {"batch": batch_rows, "id": erasure_id}).scalar_one())
    except OperationalError as error:
        if not (error.orig and is_locked(error.orig)):
            raise
        return False


_HOLD = text(f"select state from outbox.erasures where id = :id and {_OWN} for no key update")  # noqa: S608 - constants
_RESUME = text(
    "update outbox.erasures set state = 'running', cancel_undelivered = cancel_undelivered or :cancel where id = :id"
)
_CANCEL = text("update outbox.erasures set state = 'cancelled' where id = :id")


def resume_erasure(
    connection: Connection, tenant: str | None, erasure_id: UUID | str, *, cancel_undelivered: bool = False
) -> Erasure:
    """blocked → running: go on where it met something undelivered. Raises NotFoundError, or EraseError otherwise."""
    _require(connection, tenant, erasure_id, ("blocked",))
    connection.execute(_RESUME, {"id": ErasureId.of(erasure_id), "cancel": cancel_undelivered})
    return show_erasure(connection, tenant, erasure_id)


def cancel_erasure(connection: Connection, tenant: str | None, erasure_id: UUID | str) -> Erasure:
    """Erase nothing more; what is gone is gone. Raises NotFoundError, or EraseError where it has ended."""
    _require(connection, tenant, erasure_id, ("running", "blocked"))
    connection.execute(_CANCEL, {"id": ErasureId.of(erasure_id)})
    return show_erasure(connection, tenant, erasure_id)


def _require(connection: Connection, tenant: str | None, erasure_id: UUID | str, states: tuple[str, ...]) -> None:
    uuid = ErasureId.of(erasure_id)
    found = connection.execute(_HOLD, {"id": uuid, "asking": tenant}).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"erasure: no {uuid}")
    if found not in states:
        raise EraseError(f"erasure: {uuid} is {found}, not {' or '.join(states)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a person can hand on: what was asked, when, by whom, what was done, and how to check both hashes.

    value_sha256 is of `value_salt:value`; sha256 is of all other fields, as JSON with sorted keys and no blanks.
    """

    erasure: ErasureId
    kind: Kind
    path: str | None
    value_salt: str
    value_sha256: str
    asked_at: str
    asked_by: str
    role: str
    finished_at: str
    up_to_event: int
    counts: Mapping[str, int]
    not_reached: tuple[str, ...]
    sha256: str


NOT_REACHED = (
    "events recorded after it was asked for, or in transactions that were open then",
    "backups, standbys behind, logical replicas and archived write-ahead log, until they are replaced",
    "the server's own files until VACUUM, and its statistics until ANALYZE",
    "what receivers were sent",
    "what endpoints for every tenant's events answered to events that were pruned before",
    "within a tenant, what endpoints of subscriptions removed before answered to events that were pruned before",
    "answers that the HTTP API keeps for a day, sealed to the token that asked; a tenant's own are gone",
    "descriptions and examples of declared event types, and their changes in the audit",
    "logs of the relay, the server and proxies",
)


def receipt_of(erasure: Erasure) -> Receipt:
    """Return the receipt of an erasure that is done. Raises EraseError where it is not."""
    if erasure.state != "done" or erasure.finished_at is None:
        raise EraseError(f"erasure: {erasure.id} is {erasure.state}; a receipt is for what is done")
    fields: dict[str, Any] = {
        "erasure": str(erasure.id), "kind": erasure.kind, "path": erasure.path, "value_salt": erasure.salt,
        "value_sha256": erasure.digest, "asked_at": rfc3339(erasure.created_at), "asked_by": erasure.requested_by,
        "role": erasure.role, "finished_at": rfc3339(erasure.finished_at), "up_to_event": erasure.up_to_seq,
        "counts": dict(erasure.counts), "not_reached": NOT_REACHED,
    }  # fmt: skip
    whole = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Receipt(**fields | {"erasure": erasure.id, "sha256": hashlib.sha256(whole.encode()).hexdigest()})
