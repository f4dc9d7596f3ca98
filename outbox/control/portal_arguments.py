"""What may be said of a link into the portal: its rights, its time, who opens it, and where the portal is."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Literal, get_args

from outbox._text import brief, complaint
from outbox.errors import ArgumentError, SubscriptionError
from outbox.subscriptions.url import parse_url

__all__ = ["PORTAL_RIGHTS", "PortalRight", "check_expires", "check_person", "check_rights", "portal_base"]

PortalRight = Literal["read", "manage"]
PORTAL_RIGHTS: tuple[PortalRight, ...] = get_args(PortalRight)
"""read: look at everything of the tenant. manage: add, change, test and remove endpoints, and replay, too."""
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=7)
_MAX_PERSON_BYTES = 200


def check_rights(value: object) -> str:
    """Return the rights of a link. Raises ArgumentError."""
    if not isinstance(value, str) or value not in PORTAL_RIGHTS:
        raise ArgumentError(f"rights: {brief(value)} is not one of {', '.join(PORTAL_RIGHTS)}")
    return value


def check_expires(value: object) -> timedelta:
    """Return how long a link may be opened. Raises ArgumentError."""
    if not isinstance(value, timedelta) or not _SHORTEST <= value <= _LONGEST:
        shown = str(value) if isinstance(value, timedelta) else brief(value)
        raise ArgumentError(f"expires: {shown} is not a timedelta from a second to 7 days")
    return value


def check_person(value: object) -> str | None:
    """Return who opens a link, None where nobody says so. Raises ArgumentError."""
    if value is None:
        return None
    if refused := complaint("person", value, _MAX_PERSON_BYTES):
        raise ArgumentError(refused)
    name = str.__str__(value)
    if not name.strip() or not name.isprintable():
        raise ArgumentError(f"person: {ascii(name)[:40]} is no name; give printable text, such as alice@example.com")
    return name


def portal_base(value: object) -> str:
    """Return the portal's own address, without a / at its end. Raises ArgumentError, which begins with `base_url:`.

    Whoever reads a link on its way is in, so plain http is for this machine only.
    """
    try:
        url = parse_url(value)
    except SubscriptionError as error:
        raise ArgumentError(f"base_{error}") from None
    if "?" in url.target:
        raise ArgumentError("base_url: has a query (?…); give the portal's own address, https://…/portal")
    if url.scheme == "http" and not _is_here(url.host):
        raise ArgumentError("base_url: is plain http, where others can read the link; give https://…/portal")
    return url.text.rstrip("/")


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
