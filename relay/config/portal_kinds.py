"""The kinds of values that options of the portal have: how each is read from text and checked."""

from __future__ import annotations

import re

from outbox._patterns import check_patterns
from outbox.control.portal_links import portal_base
from outbox.errors import ArgumentError, SubscriptionError
from outbox.subscriptions.url import parse_url
from relay.config.kinds import Kind, parts

__all__ = ["base_url", "colours", "language", "logo", "origins", "patterns", "title"]

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MAX_ORIGINS = 50


def title() -> Kind:
    """A name to show: printable text of at most 100 characters."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 100:
            raise ValueError(f"{value!r:.60} is no name of 1 to 100 printable characters")
        return value

    return Kind(str, check, "NAME")


def language() -> Kind:
    """A language that comes along, or the path of a translation's file; which there are is known when it is read."""

    def check(value: object) -> str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ValueError(f"{value!r:.60} is neither a language such as en nor the path of a translation")
        return value

    return Kind(str, check, "NAME|FILE")


def logo() -> Kind:
    """The path of a picture on this machine, the https URL of one, or nothing."""

    def check(value: object) -> str:
        if isinstance(value, str) and value.isprintable():
            source = _source_of(value) if "://" in value else value
            if source is not None:
                return source
        raise ValueError(f"{value!r:.60} is neither the path of a picture nor an https:// URL of one without query")

    return Kind(str, check, "FILE|URL")


def _source_of(value: str) -> str | None:
    """Return a URL as it can stand in a Content-Security-Policy, its host in ASCII; None where it cannot."""
    try:
        url = parse_url(value)
    except SubscriptionError:
        return None
    return url.text if url.scheme == "https" and not set("?;,'") & set(value) else None


def colours() -> Kind:
    """None, one or two colours: in light, and in dark."""

    def check(value: object) -> tuple[str, ...]:
        given = list(value) if isinstance(value, list | tuple) else [value]
        if len(given) > 2 or not all(isinstance(one, str) and _COLOUR.fullmatch(one) for one in given):
            raise ValueError(f"{value!r:.60} is not one or two colours such as #7c3aed,#b794f6")
        return tuple(str(one).lower() for one in given)

    return Kind(parts, check, "#RRGGBB,…")


def origins() -> Kind:
    """Origins of pages, https://app.example.com; http:// only on this machine."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or len(value) > _MAX_ORIGINS:
            raise ValueError(f"{value!r:.60} is not a list of origins such as https://app.example.com")
        return tuple(map(_origin, value))

    return Kind(parts, check, "ORIGIN,…")


def _origin(value: object) -> str:
    try:
        url = parse_url(value)
    except SubscriptionError:
        url = None
    local = url is not None and url.host in ("localhost", "127.0.0.1", "::1")
    if url is None or url.target != "/" or "*" in url.host or (url.scheme != "https" and not local):
        raise ValueError(f"{value!r:.60} is no origin such as https://app.example.com: scheme, host and port alone")
    return f"{url.scheme}://{url.authority}"


def patterns() -> Kind:
    """Patterns of event types."""

    def check(value: object) -> tuple[str, ...]:
        try:
            return check_patterns("types", value)
        except SubscriptionError as error:
            raise ValueError(str(error).removeprefix("types: ")) from None

    return Kind(parts, check, "TYPE,…")


def base_url() -> Kind:
    """The address of the portal, or nothing."""

    def check(value: object) -> str:
        try:
            return portal_base(value) if value else ""
        except ArgumentError as error:
            raise ValueError(str(error).removeprefix("base_url: ")) from None

    return Kind(str, check, "URL")
