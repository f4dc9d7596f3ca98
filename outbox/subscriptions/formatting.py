"""A subscription's format, its settings, its secret and its URL: checked together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from outbox import formats
from outbox.errors import SubscriptionError
from outbox.subscriptions.headers import header_names
from outbox.subscriptions.stored_credentials import StoredCredentials

__all__ = ["format_after"]

_COLUMNS = {"url", "format", "format_settings"}

_MAX_SETTINGS_BYTES = 8192
_RETIRED = re.compile(r"https?://(?:[a-z0-9.-]+\.webhook\.office\.com|outlook\.office(?:365)?\.com)[:/]")


def format_after(
    values: Mapping[str, Any], credentials: StoredCredentials, row: Any = None, hints: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the settings to store, {} where none are given, after a look at all that the format depends on.

    A secret that is stored goes, by an entry in `credentials`, when the format needs none any more.

    Args:
        values: the columns that are given.
        credentials: the secrets that are given.
        row: what is stored; None where nothing is.
        hints: what may be shown of the stored secrets.

    Raises:
        SubscriptionError: format, settings, secret, headers and URL do not fit together.
    """
    if row is not None and not (values.keys() & _COLUMNS or credentials.keys() & {"format_secret", "headers"}):
        return {}
    stored: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS} if row is not None else {}
    after = {"format": "standard", "format_settings": {}, **stored, **values}
    shown, form = hints or {}, formats.named(after["format"])
    settings = _check_settings(form, after["format_settings"])
    if "format_secret" not in credentials and shown.get("format_secret"):
        if not form.secret:
            credentials["format_secret"] = None
    else:
        _check_secret(form, credentials.get("format_secret"))
    headers = credentials.get("headers", ("", shown.get("headers", "")))
    _check_headers(form, headers[1] if headers else "")
    _check_url(form, after["url"])
    return {"format_settings": settings} if "format_settings" in values else {}


def _check_settings(form: formats.Format, given: Mapping[str, Any]) -> dict[str, Any]:
    settings = formats.check_settings(form, given)
    size = len(json.dumps(settings))
    if size > _MAX_SETTINGS_BYTES:
        raise SubscriptionError(f"format_settings: {size} bytes as JSON, the limit is {_MAX_SETTINGS_BYTES}")
    return settings


def _check_secret(form: formats.Format, given: tuple[str, str] | None) -> None:
    if form.secret and given is None:
        raise SubscriptionError(f"format_secret: {form.name} needs its {form.secret}; give it as format_secret")
    if given is not None and not form.secret:
        raise SubscriptionError(f"format_secret: {form.name} has none; leave it out")
    if given is not None and not re.fullmatch(form.secret_pattern, given[0]):
        raise SubscriptionError(f"format_secret: is no {form.secret}; that is 32 letters and digits")


def _check_headers(form: formats.Format, names: str) -> None:
    for name in map(str.lower, header_names(names)):
        if any(name == own or (own.endswith("-") and name.startswith(own)) for own in form.headers):
            raise SubscriptionError(f"headers: {name} is written by the format {form.name}; use another name")


def _check_url(form: formats.Format, url: str) -> None:
    if form.name == "teams" and _RETIRED.match(url):
        raise SubscriptionError(
            "url: Microsoft has retired connectors (webhook.office.com); make a webhook with the Workflows app in Teams"
        )
