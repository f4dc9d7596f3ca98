"""What a subscription's fields may hold: each check returns what to store or raises SubscriptionError."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from outbox._text import MAX_TENANT_BYTES, MAX_TYPE_BYTES, complaint
from outbox.errors import SubscriptionError
from outbox.signing import schemes
from outbox.subscriptions.url import parse_url

__all__ = [
    "DEFAULT_SCHEDULE_SECONDS",
    "DEFAULT_TIMEOUT_SECONDS",
    "check_reason",
    "check_seconds",
    "check_tenant",
    "checked",
]

DEFAULT_TIMEOUT_SECONDS = 15
DEFAULT_SCHEDULE_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)

_PATTERN = re.compile(r"\*|[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*(\.\*)?")
_MAX_TYPES = 200
_MAX_DESCRIPTION_BYTES = 2048
_MAX_METADATA_BYTES = 8192
_MAX_DELAYS = 20
_MAX_REASON_BYTES = 500
_NEVER_FINAL = {408: "it says try again", 410: "it disables the subscription", 425: "it says try again",
                429: "it says try again later"}  # fmt: skip
_WEEK_SECONDS = 604_800


def checked(**given: Any) -> dict[str, Any]:
    """Return the fields to store; each was checked, or SubscriptionError names it."""
    checks: dict[str, Any] = {
        "url": lambda text: parse_url(text).text,
        "types": _check_types,
        "description": _check_description,
        "metadata": _check_metadata,
        "timeout_seconds": _check_timeout,
        "schedule_seconds": _check_schedule,
        "final_statuses": _check_final_statuses,
        "scheme": lambda name: schemes.named(name).name,
    }
    return {name: checks[name](value) for name, value in given.items()}


def _check_types(value: object) -> tuple[str, ...]:
    """Return the type patterns without repetitions: `*`, an exact type, or a prefix followed by `.*`."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise SubscriptionError("types: give a list of 1 to 200 patterns, such as ['order.created', 'user.*']")
    patterns = tuple(dict.fromkeys(_check_pattern(item) for item in value))
    if len(patterns) > _MAX_TYPES:
        raise SubscriptionError(f"types: {len(patterns)} patterns, the limit is {_MAX_TYPES}; use a prefix and .*")
    return patterns


def _check_pattern(value: object) -> str:
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        raise SubscriptionError(
            f"types: {_brief(value)} is not a pattern; use a type (order.created), a prefix (order.*) or *"
        )
    if len(value) > MAX_TYPE_BYTES:
        raise SubscriptionError(f"types: a pattern has {len(value)} characters, the limit is {MAX_TYPE_BYTES}")
    return value


def _check_description(value: object) -> str:
    """Return a text of at most 2 kB; None is ''. It is stored as given: whoever shows it escapes it."""
    return "" if value is None else _check_text("description", value, _MAX_DESCRIPTION_BYTES)


def _check_metadata(value: object) -> dict[str, str]:
    """Return a mapping of text to text, at most 8 kB as JSON; None is {}."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SubscriptionError(f"metadata: {_brief(value)} is not a mapping of text to text")
    for key, item in value.items():
        _check_text("metadata", key, _MAX_METADATA_BYTES)
        _check_text(f"metadata.{_printable(key)}", item, _MAX_METADATA_BYTES)
    size = len(json.dumps(dict(value)))
    if size > _MAX_METADATA_BYTES:
        raise SubscriptionError(f"metadata: {size} bytes as JSON, the limit is {_MAX_METADATA_BYTES}")
    return dict(value)


def check_tenant(value: object) -> str:
    """Return a tenant's name, at most 256 bytes; `*` is no tenant."""
    tenant = _check_text("tenant", value, MAX_TENANT_BYTES)
    if tenant == "*":
        raise SubscriptionError(
            "tenant: '*' is no tenant; a subscription to every tenant is made by the operator, "
            "with `relay subscriptions add --all-tenants`"
        )
    return tenant


def _check_timeout(value: object) -> int:
    """Return the timeout of one attempt in seconds, 1 to 300; None is the default."""
    return DEFAULT_TIMEOUT_SECONDS if value is None else check_seconds("timeout_seconds", value, 1, 300)


def _check_schedule(value: object) -> tuple[int, ...]:
    """Return 0 to 20 delays in seconds, one after each failure; () is one attempt, None the default."""
    if value is None:
        return DEFAULT_SCHEDULE_SECONDS
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SubscriptionError(f"schedule_seconds: {_brief(value)} is not a list of delays, such as [5, 300, 1800]")
    if len(value) > _MAX_DELAYS:
        raise SubscriptionError(f"schedule_seconds: {len(value)} delays, the limit is {_MAX_DELAYS}")
    return tuple(check_seconds("schedule_seconds", delay, 0, _WEEK_SECONDS) for delay in value)


def _check_final_statuses(value: object) -> tuple[int, ...]:
    """Return the statuses, 400 to 499, after which a delivery is not tried again, in order; None is none."""
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SubscriptionError(f"final_statuses: {_brief(value)} is not a list of statuses, such as [400, 413, 422]")
    for status in value:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 499:
            raise SubscriptionError(f"final_statuses: {_brief(status)} is not a status from 400 to 499")
        if status in _NEVER_FINAL:
            raise SubscriptionError(f"final_statuses: {status} cannot be final, {_NEVER_FINAL[status]}; leave it out")
    return tuple(sorted(set(value)))


def check_reason(value: object) -> str:
    """Return why a subscription is disabled: text of 1 to 500 bytes, stored as given."""
    if value == "":
        raise SubscriptionError("reason: it is empty; say why")
    return _check_text("reason", value, _MAX_REASON_BYTES)


def check_seconds(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number of seconds from `low` to `high`; True is not 1, and '10' is not 10."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SubscriptionError(f"{name}: {_brief(value)} is not a whole number of seconds from {low} to {high}")
    return value


def _check_text(name: str, value: object, max_bytes: int) -> str:
    if refused := complaint(name, value, max_bytes):
        raise SubscriptionError(refused)
    return str.__str__(value)


def _brief(value: object) -> str:
    """Return the value in at most 43 printable characters."""
    text = ascii(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:40] + "…"


def _printable(key: str) -> str:
    return key if len(key) <= 40 and key.isprintable() else _brief(key)
