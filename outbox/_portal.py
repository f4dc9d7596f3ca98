"""The face of control/portal_links.py for applications: make a link for a customer, or end all links of a tenant."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from outbox.control import portal_links
from outbox.control.asking import connection_of
from outbox.control.portal_links import DEFAULT_EXPIRES

__all__ = ["portal_url", "revoke_portal_urls"]


def portal_url(
    connection: Session | Connection,
    tenant: str,
    base_url: str,
    *,
    rights: Literal["read", "manage"] = "read",
    expires: timedelta = DEFAULT_EXPIRES,
    person: str | None = None,
) -> str:
    """Return a link that lets one of this tenant's customers into the portal of `relay serve`; the caller commits.

    Ask for it when they click, and send their browser there, or into an iframe; do not mail it. It opens once: what it
    begins is a session of eight hours that sees this tenant and nothing else. It is unforgeable, since it is random and
    the database knows its hash: no key has to be set. Asynchronous code calls
    `await session.run_sync(outbox.portal_url, "acme", "https://hooks.example.com/portal")`.

    Args:
        connection: a Session or Connection.
        tenant: whose; '' where there are no tenants.
        base_url: where the portal is, https://hooks.example.com/portal.
        rights: `read` looks; `manage` adds, changes, tests and removes endpoints, and replays, too.
        expires: until when it may be opened, a second to 7 days.
        person: who opens it, such as alice@acme.example, for the audit; at most 200 bytes.

    Raises:
        SubscriptionError: the tenant was refused.
        ArgumentError: another argument was refused. Nothing was written.
    """
    asked = connection_of(connection, to_write=True)
    return portal_links.make_portal_link(asked, tenant, base_url, rights=rights, expires=expires, person=person).url


def revoke_portal_urls(connection: Session | Connection, tenant: str) -> int:
    """End every link of this tenant and every session that one began, and return how many; the caller commits.

    Raises SubscriptionError where the tenant was refused.
    """
    return portal_links.revoke_portal_links(connection_of(connection, to_write=True), tenant)
