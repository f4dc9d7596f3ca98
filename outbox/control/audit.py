"""The audit: who changed what, when, and what it was before. Read here, and written here by operations on many rows.

Changes of subscriptions, secrets and sealing keys are noted by the database's own triggers (migrations/0004_audit.sql).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from outbox.control.filters import Filters, refuse_what_is_no_text
from outbox.control.pages import Key, Listing, Page
from outbox.control.tenancy import own
from outbox.control.times import rfc3339
from outbox.formats import shown_url
from outbox.ids import (
    AuditId,
    BulkOperationId,
    DeliveryId,
    ErasureId,
    EventId,
    Id,
    InboxId,
    PortalLinkId,
    SubscriptionId,
    TokenId,
)

__all__ = ["ACTIONS", "LISTED_IDS", "AuditEntry", "json_of_filters", "list_audit", "meaning_of", "note"]

ACTIONS = (
    *("added", "updated", "paused", "resumed", "disabled", "removed", "deleted"),
    *("secret added", "secret expires", "secret removed", "secret replaced", "secret resealed", "secret updated"),
    *("sealing key added", "sealing key removed", "sealing key updated"),
    *("replayed", "retried", "cancelled", "purged", "pruned", "truncated", "sending paused", "sending resumed"),
    *("delivery deleted", "dead letter deleted", "deliveries cancelled", "setting updated"),
    *("tenant limit set", "tenant limit removed"),
    *("token added", "token revoked", "token updated", "token removed"),
    *("portal link added", "portal link opened", "portal link revoked", "portal link updated", "portal link removed"),
    *("bulk planned", "bulk started", "bulk rate set", "bulk paused", "bulk resumed", "bulk cancelled"),
    *("bulk done", "bulk failed"),
    *("erasure started", "erasure blocked", "erasure resumed", "erasure cancelled", "erased"),
    *("tenant retention set", "tenant retention removed"),
    *("event type added", "event type changed", "event type retired", "event type restored", "event type removed"),
    *("catalogue added", "catalogue changed", "catalogue removed"),
)
LISTED_IDS = 1_000  # of an operation on more rows the first so many are named

_MEANINGS = {
    "sealing key added": "from now on secrets are sealed to this public key, whose private half the relays hold: that"
    " is what relay secrets rekey does, at the first time and with each new secret_key. If {who} ran it there is"
    " nothing to do; if nobody of yours did, whoever added it can open what is sealed to it",
    "sealing key removed": "nothing more is sealed to this public key",
}
"""What a word of ACTIONS alone does not tell: who does such a thing, why, and whether anything is to be done."""

_KINDS: dict[str, type[Id]] = {
    kind.prefix: kind
    for kind in (SubscriptionId, DeliveryId, EventId, TokenId, PortalLinkId, BulkOperationId, ErasureId, InboxId)
}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")

_NOTE = text("select outbox.audit_operation(:action, :subject, :tenant, :details)").bindparams(
    bindparam("details", type_=JSONB)
)


def note(
    connection: Connection,
    action: str,
    *,
    count: int,
    ids: Iterable[Id] = (),
    subject: Id | None = None,
    tenants: Iterable[str] = (),
    filters: Filters | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Note in this transaction what was done to so many rows; of none, nothing is noted.

    Args:
        connection: in the transaction that changes the rows.
        action: replayed, retried, cancelled, purged or pruned.
        count: how many rows.
        ids: of the rows; the first 1,000 are kept.
        subject: what it is about; default the only one of `ids`, or the filter's subscription.
        tenants: whose rows; a single one is noted.
        filters: what the operation was asked for, if not ids.
        more: what else it was asked for or made: text, numbers, ids, lists of ids; None and empty lists are left out.
    """
    if not count:
        return
    names, owners = list(dict.fromkeys(ids)), set(tenants)
    filtered = None if filters is None or filters.empty else json_of_filters(filters)
    details = {"count": count, "ids": names, "filter": filtered, **(more or {})}
    if subject is None:
        subject = names[0] if len(names) == 1 else (filtered or {}).get("subscription", "")
    parameters = {
        "action": action,
        "subject": str(subject),
        "tenant": owners.pop() if len(owners) == 1 else "",
        "details": {name: _capped(value) for name, value in details.items() if value not in (None, [])},
    }
    connection.execute(_NOTE, parameters)


def json_of_filters(filters: Filters) -> dict[str, Any]:
    """Return the filters that were given as text and numbers; a length of time is so many seconds ago."""
    given = {
        "since": _moment(filters.since),
        "until": _moment(filters.until),
        "type": filters.type,
        "tenant": filters.tenant,
        "key": filters.key,
        "subscription": None if filters.subscription is None else str(SubscriptionId.of(filters.subscription)),
        "event": None if filters.event is None else str(EventId.of(filters.event)),
        "outcome": filters.outcome,
        "status": filters.status,
        "text": filters.text,
        "limit": filters.limit,
    }
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change. `before` and `after` have the fields of a row, `details` what was asked of an operation."""

    id: AuditId
    at: datetime
    actor: str
    role: str
    action: str
    subject: str
    tenant: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    details: Mapping[str, Any] | None


# What was done to rows of several tenants, and to sealing keys, carries no tenant: it is nothing that a tenant sees.
_LISTING = Listing(
    name="audit",
    columns={"at": "at", "tenant": "tenant"},
    own=f"{own('tenant')} and (cast(:asking as text) is null or tenant <> '' or details is null and subject ~ '^sub_')",
    keys=(Key("at", "at", "timestamptz", descending=True), Key("id", "id", "uuid", descending=True)),
)


def list_audit(
    connection: Connection,
    tenant: str | None,
    filters: Filters,
    *,
    subject: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    after: str | None = None,
) -> Page[AuditEntry]:
    """Return what was changed, newest first, `filters.limit` a page.

    Args:
        connection: to the database.
        tenant: who asks; None is the operator.
        filters: since, until (about when it was changed), tenant, limit.
        subject: only this subscription, delivery, event (an id or UUID) or sealing key, also where it is one of many.
        actor: only this actor's changes.
        action: only this action, one of ACTIONS.
        after: the cursor of the page before.

    Raises:
        NotFoundError: the subject is no id.
    """
    for name, value in (("subject", subject), ("actor", actor), ("action", action)):
        refuse_what_is_no_text(name, value)
    where, parameters = _LISTING.where(tenant, filters, after)
    for name, value in (("actor", actor), ("action", action)):
        if value is not None:
            where += f" and {name} = :{name}"
            parameters[name] = value
    if subject is not None:
        condition, bound = _about(subject)
        where += f" and ({condition})"
        parameters |= bound
    statement = text(
        "select id, at, actor, role, action, subject, tenant, before, after, details from outbox.audit"  # noqa: S608
        f" where {where} {_LISTING.order_by} limit :limit"
    )
    return _LISTING.page(connection.execute(statement, parameters).all(), filters.limit, _entry)


def _about(name: str) -> tuple[str, dict[str, Any]]:
    """Return the condition that a row is about what the name stands for, alone or among others, and its parameters."""
    subjects = _subjects(name)
    among = [json.dumps({key: [subject]}) for subject in subjects for key in ("ids", "deliveries")]
    bound = {f"among_{place}": document for place, document in enumerate(among)}
    listed = [f"details @> cast(:{parameter} as jsonb)" for parameter in bound]
    return " or ".join(['subject collate "C" = any(:subjects)', *listed]), {"subjects": subjects, **bound}


def _subjects(name: str) -> list[str]:
    """Return every text id that the name may stand for: a UUID is one of a subscription, a delivery, …"""
    if _UUID.fullmatch(name):
        return [str(kind.of(name)) for kind in _KINDS.values()]
    kind = _KINDS.get(name.partition("_")[0])
    return [name if kind is None else str(kind.of(name))]


def _entry(row: Any) -> AuditEntry:
    values: dict[str, Any] = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    shown = {name: _without_credentials(values[name]) for name in ("before", "after")}
    return AuditEntry(**values | shown | {"id": AuditId.of(row.id)})


def _without_credentials(fields: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a row's fields with its URL as it may be shown. Only what changed is there, so the format may not be."""
    url = fields and fields.get("url")
    if not fields or not isinstance(url, str):
        return fields
    guessed = "n8n" if re.search("/webhook(-test)?/", url) else "standard"
    return {**fields, "url": shown_url(url, fields.get("format") or guessed)}


def _moment(value: datetime | timedelta | None) -> str | None:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.0f}s ago"
    return None if value is None else rfc3339(value)


def _capped(value: Any) -> Any:
    if isinstance(value, Id):
        return str(value)
    return [_capped(item) for item in value[:LISTED_IDS]] if isinstance(value, list) else value


def meaning_of(entry: AuditEntry) -> str:
    """Return in words what a row means that alarms whoever does not know it; '' where its action says all."""
    return _MEANINGS.get(entry.action, "").format(who=entry.actor or entry.role)
