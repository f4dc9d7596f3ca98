"""The names of the subscriptions that findings are about: a person knows a customer by them, and not by an id."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from outbox.control.tenancy import operator_only, own
from outbox.ids import SubscriptionId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from outbox.control.findings import Finding

__all__ = ["KnownBy", "called", "name_subscriptions", "names_of"]

_ID = re.compile(r"\bsub_[0-9a-z]{26}\b")
_URL_CHARACTERS = 80
_NAMES = text(f"""
select id, name, tenant, shown_url from outbox.subscriptions where id = any(cast(:ids as uuid[])) and {own("tenant")}
""")  # noqa: S608 - a constant


class KnownBy(NamedTuple):
    """What people know a subscription by."""

    name: str | None
    url: str


def called(name: str | None, tenant: str, url: str) -> str:
    """Return how people call a subscription: "billing of globex, https://example.com/in"; parts may be missing."""
    whose = "of every tenant" if tenant == "*" else f"of {tenant}" if tenant else ""
    shown = url if len(url) <= _URL_CHARACTERS else f"{url[:_URL_CHARACTERS]}…"
    return ", ".join(filter(None, (" ".join(filter(None, (name, whose))), shown)))


def names_of(
    connection: Connection, tenant: str | None, ids: Iterable[SubscriptionId | None]
) -> Mapping[SubscriptionId, KnownBy]:
    """Return what those of these subscriptions are known by that are the tenant's, and whose rows are there."""
    rows = connection.execute(_NAMES, {"ids": [one for one in ids if one is not None], "asking": tenant})
    return {SubscriptionId.of(row.id): KnownBy(row.name, row.shown_url) for row in rows}


def name_subscriptions(connection: Connection, tenant: str | None, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings; the first id of a subscription that one says is followed by its name, tenant and shown URL.

    For the operator only.
    """
    operator_only(tenant, "status")
    given = tuple(findings)
    ids = {match[0]: SubscriptionId.of(match[0]) for one in given if (match := _ID.search(one.seen))}
    if not ids:
        return given
    rows = connection.execute(_NAMES, {"ids": list(ids.values()), "asking": tenant})
    known = {str(SubscriptionId.of(row.id)): called(row.name, row.tenant, row.shown_url) for row in rows}
    return tuple(_named(one, known) for one in given)


def _named(finding: Finding, known: dict[str, str]) -> Finding:
    match = _ID.search(finding.seen)
    if match is None or match[0] not in known:
        return finding
    before, after = finding.seen[: match.end()], finding.seen[match.end() :]
    return replace(finding, seen=f"{before} ({known[match[0]]}){after}")
