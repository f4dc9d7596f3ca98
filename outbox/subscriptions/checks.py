"""What a subscription's fields may hold: each check returns what to store or raises SubscriptionError.

A check gets no None where its field has a default: None stands for the default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from typing import Any, Final, get_args
from uuid import UUID

from outbox import formats
from outbox._text import MAX_TENANT_BYTES, MAX_TYPE_BYTES, brief, complaint
from outbox.errors import SubscriptionError
from outbox.ids import parse_id
from outbox.secret import Secret
from outbox.subscriptions.authentication import (
    TLS,
    Authentication,
    OAuth2ClientCredentials,
    authentication_of,
    stored_authentication,
    tls_of,
)
from outbox.subscriptions.endpoints import require_allowed
from outbox.subscriptions.headers import check_headers
from outbox.subscriptions.url import parse_url
from outbox.subscriptions.value_checks import check_seconds, check_text
from outbox.transformation import MAX_BYTES, ExpressionError, parse

__all__ = [
    "EVERY_TENANT",
    "NAME",
    "EveryTenant",
    "authentication_to_store",
    "check_delays",
    "check_filter",
    "check_final_statuses",
    "check_format",
    "check_format_settings",
    "check_id",
    "check_metadata",
    "check_name",
    "check_reason",
    "check_tenant",
    "check_transformation",
    "check_type",
    "check_url",
    "check_whose",
    "format_secret_to_store",
    "headers_to_store",
    "is_id",
    "tls_to_store",
]


class EveryTenant(Enum):
    """The operator's word for rows of whichever tenant; nothing that a request holds is equal to it."""

    EVERY_TENANT = "every tenant"


EVERY_TENANT: Final = EveryTenant.EVERY_TENANT
"""Give it as `tenant` where the operator asks, never where a tenant does."""

NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""The pattern of a subscription's name, and of whoever manages some by a file."""

_ID = re.compile(r"sub_.*|[a-z]{3,4}_[0-9a-z]{26}|[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
_MAX_METADATA_BYTES = 8192
_MAX_DELAYS = 20
_MAX_REASON_BYTES = 500
_NEVER_FINAL = {408: "it says try again", 410: "it disables the subscription", 425: "it says try again",
                429: "it says try again later"}  # fmt: skip
_WEEK_SECONDS = 604_800


def check_url(_name: str, value: object) -> str:
    """Return the URL in its one spelling, if the relay's address policy can allow it."""
    url = parse_url(value)
    require_allowed("url", url)
    if formats.REDACTED in url.target:
        raise SubscriptionError("url: *** stands for what is not shown of it; give the whole URL, or leave url out")
    return url.text


def check_name(name: str, value: object) -> str:
    """Return a name of a subscription or of a manager; what could be an id is none."""
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise SubscriptionError(
            f"{name}: {brief(value)} is no name; use 1 to 64 letters, digits, '.', '_' and '-', such as billing-crm"
        )
    if is_id(value):
        raise SubscriptionError(f"{name}: {brief(value)} has the form of an id; choose another name")
    return str.__str__(value)


def is_id(value: str) -> bool:
    """Tell whether this text has the form of an id, whatever it is the id of, or means to be a subscription's."""
    return bool(_ID.fullmatch(value))


def check_type(name: str, value: object) -> str:
    """Return an event's type: text that can be stored, of at most 128 bytes."""
    return check_text(name, value, MAX_TYPE_BYTES)


def check_metadata(name: str, value: object) -> dict[str, str]:
    """Return a mapping of text to text, at most 8 kB as JSON."""
    if not isinstance(value, Mapping):
        raise SubscriptionError(f"{name}: {brief(value)} is not a mapping of text to text")
    for key, item in value.items():
        check_text(name, key, _MAX_METADATA_BYTES)
        check_text(f"{name}.{_printable(key)}", item, _MAX_METADATA_BYTES)
    size = len(json.dumps(dict(value)))
    if size > _MAX_METADATA_BYTES:
        raise SubscriptionError(f"{name}: {size} bytes as JSON, the limit is {_MAX_METADATA_BYTES}")
    return dict(value)


def check_filter(_name: str, value: object) -> str | None:
    """Return a filter as canonical JSON text; None for {}, which lets every event through."""
    from outbox.subscriptions.filters import parse  # most programs have no filters

    text = parse(value).text
    return None if text == "{}" else text


def check_tenant(value: object) -> str:
    """Return a tenant's name, at most 256 bytes; `*` is no tenant."""
    tenant = check_text("tenant", value, MAX_TENANT_BYTES)
    if tenant == "*":
        raise SubscriptionError(
            "tenant: '*' is no tenant; a subscription to every tenant is made by the operator, "
            "with `relay subscriptions add --all-tenants`"
        )
    return tenant


def check_whose(value: object) -> str | None:
    """Return the tenant whose rows are meant; None for EVERY_TENANT, and for nothing else."""
    if value is EVERY_TENANT:
        return None
    if value is None:
        raise SubscriptionError(
            "tenant: None is nobody; give the tenant's name, '' where there are no tenants, "
            "or as the operator outbox.EVERY_TENANT"
        )
    return check_tenant(value)


def check_id(name: str, value: object) -> UUID:
    """Return a subscription's id, sub_… or the UUID. Raises NotFoundError for what can be the id of none."""
    return parse_id("sub", value, name)


def check_delays(name: str, value: object) -> tuple[int, ...]:
    """Return 0 to 20 delays in seconds, one after each failure; () is one attempt."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SubscriptionError(f"{name}: {brief(value)} is not a list of delays, such as [5, 300, 1800]")
    if len(value) > _MAX_DELAYS:
        raise SubscriptionError(f"{name}: {len(value)} delays, the limit is {_MAX_DELAYS}")
    return tuple(check_seconds(name, delay, 0, _WEEK_SECONDS) for delay in value)


def check_final_statuses(name: str, value: object) -> tuple[int, ...]:
    """Return the statuses, 400 to 499, after which a delivery is not tried again, sorted."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise SubscriptionError(f"{name}: {brief(value)} is not a list of statuses, such as [400, 413, 422]")
    for status in value:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 499:
            raise SubscriptionError(f"{name}: {brief(status)} is not a status from 400 to 499")
        if status in _NEVER_FINAL:
            raise SubscriptionError(f"{name}: {status} cannot be final, {_NEVER_FINAL[status]}; leave it out")
    return tuple(sorted(set(value)))


def check_format(_name: str, value: object) -> str:
    """Return the name of a format that there is."""
    return formats.named(value).name


def check_format_settings(name: str, value: object) -> dict[str, Any]:
    """Return settings by name, whatever the format; `extensions.region` becomes `region` of `extensions`.

    What they mean is checked together with the format (formats.check_settings).
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SubscriptionError(f"{name}: {brief(value)} is not a mapping of a setting's name to its value")
    settings = {key: item for key, item in value.items() if not key.startswith("extensions.")}
    dotted = {key.partition(".")[2]: item for key, item in value.items() if key not in settings}
    if dotted:
        given = settings.get("extensions", {})
        settings["extensions"] = {**given, **dotted} if isinstance(given, Mapping) else given
    return settings


def format_secret_to_store(name: str, value: object) -> tuple[str, str]:
    """Return the one secret that a format needs, and what may be shown of it."""
    secret = value.reveal() if isinstance(value, Secret) else value
    if refused := complaint(name, secret, 1024):
        raise SubscriptionError(refused)
    if not str(secret).strip():
        raise SubscriptionError(f"{name}: it is empty")
    return str(secret).strip(), "set"


def check_transformation(name: str, value: object) -> str | None:
    """Return an expression that can be evaluated; None for ''."""
    if value == "":
        return None
    expression = check_text(name, value, MAX_BYTES)
    try:
        parse(expression)
    except ExpressionError as error:
        raise SubscriptionError(f"{name}: {error.told(expression)}") from None
    return expression


def check_recovery(name: str, value: object) -> int:
    """Return after how many seconds a disabled endpoint is tried: 0 for never, or a minute to a week."""
    if value == 0 and type(value) is int:
        return 0
    return check_seconds(name, value, 60, _WEEK_SECONDS)


def headers_to_store(_name: str, value: object) -> tuple[str, str] | None:
    """Return own headers as JSON and their names, which may be shown; None for no header."""
    headers = check_headers(value)
    return (json.dumps(headers), ", ".join(headers)) if headers else None


def authentication_to_store(name: str, value: object) -> tuple[str, str]:
    """Return the authentication as JSON and what may be shown of it; a mapping is read as its file is."""
    if isinstance(value, Mapping):
        value = authentication_of(value)
    if not isinstance(value, get_args(Authentication)):
        raise SubscriptionError(f"{name}: give BasicAuth, BearerToken or OAuth2ClientCredentials")
    if isinstance(value, OAuth2ClientCredentials):
        require_allowed("authentication.token_url", parse_url(value.token_url))
    return stored_authentication(value), value.hint


def tls_to_store(name: str, value: object) -> tuple[str, str]:
    """Return certificates and key as JSON and what may be shown of them."""
    from outbox.subscriptions.certificates import check_tls  # cryptography is not loaded before it is needed

    own = tls_of(value) if isinstance(value, Mapping) else value
    if not isinstance(own, TLS):
        raise SubscriptionError(f"{name}: give outbox.TLS(…)")
    return json.dumps(asdict(own)), check_tls(own)


def check_reason(value: object) -> str:
    """Return why a subscription is disabled: text of 1 to 500 bytes, stored as given."""
    if value == "":
        raise SubscriptionError("reason: it is empty; say why")
    return check_text("reason", value, _MAX_REASON_BYTES)


def _printable(key: str) -> str:
    return key if len(key) <= 40 and key.isprintable() else brief(key)
