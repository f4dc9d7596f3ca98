"""Fields of a subscription as the texts of a form, and back. Nothing here reads a file, whatever a text says.

A secret is never in a form that is shown: an empty field leaves it as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from outbox.errors import SubscriptionError
from outbox.subscriptions.authentication import authentication_of, tls_of
from outbox.subscriptions.fields import DEFAULT_SCHEDULE_SECONDS
from outbox.subscriptions.filters.values import in_json, read_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outbox.subscriptions import Subscription
    from relay.web.pages.visits import Form

__all__ = ["FieldTexts", "changes_in", "settings_in", "texts_of"]

FieldTexts = dict[str, str]


def _words(name: str, text: str) -> list[str]:
    del name
    return [word for word in text.replace(",", " ").split() if word]


def _numbers(name: str, text: str) -> list[int]:
    return [_number(name, word) for word in _words(name, text) if word != "none"]


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise SubscriptionError(f"{name}: {text[:40]!r} is no whole number")
    return int(text)


def _maybe(read: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """Return what reads an empty text as None, which is the field's default."""
    return lambda name, text: read(name, text) if text.strip() else None


def _text(name: str, text: str) -> str:
    del name
    return text.strip()


def _pairs(name: str, text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        key, separator, value = line.strip().partition("=")
        if not line.strip():
            continue
        if not separator:
            raise SubscriptionError(f"{name}: line {number} is not NAME=VALUE")
        pairs[key.strip()] = value
    return pairs


def _json(name: str, text: str) -> object:
    try:
        return read_filter(text)
    except ValueError as error:
        raise SubscriptionError(f"{name}: is no JSON: {error}") from None


_READ: dict[str, Callable[[str, str], Any]] = {
    "url": _text,
    "types": _words,
    "name": _maybe(_text),
    "description": _maybe(_text),
    "metadata": _maybe(_pairs),
    "timeout_seconds": _maybe(_number),
    "schedule_seconds": _maybe(_numbers),
    "final_statuses": _maybe(_numbers),
    "filter": _maybe(_json),
    "format": _maybe(_text),
    "format_settings": _maybe(_pairs),
    "transformation": _maybe(_text),
    "rate_limit": _maybe(_text),
    "rate_burst": _maybe(_number),
    "max_in_flight": _maybe(_number),
    "ordered": lambda _, text: text == "1",
    "order_policy": _maybe(_text),
    "batch_events": _maybe(_number),
    "batch_milliseconds": _maybe(_number),
    "recovery_seconds": _maybe(_number),
}


def texts_of(item: Subscription | None) -> FieldTexts:
    """Return what the form shows of a subscription, or of a new one: the defaults of a few."""
    if item is None:
        return dict.fromkeys((*_READ, "tenant", "id", "version"), "") | {
            "timeout_seconds": "15", "schedule_seconds": ", ".join(map(str, DEFAULT_SCHEDULE_SECONDS)),
            "format": "standard", "order_policy": "block", "batch_milliseconds": "1000", "recovery_seconds": "0",
            "scheme": "standard", "authentication": "keep",
        }  # fmt: skip
    return texts_of(None) | {name: _shown(getattr(item, name)) for name in _READ}


def _shown(value: Any) -> str:
    """Return the text that `_READ` makes the value of."""
    if value is None or value is False:
        return ""
    if value is True:
        return "1"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none" if not value or isinstance(value[0], int) else "\n".join(value)
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return "\n".join(f"{name}={one}" for name, one in value.items())
    if isinstance(value, dict):
        return json.dumps(in_json(value), ensure_ascii=False, indent=2)
    return str(value)


def settings_in(form: Form) -> dict[str, Any]:
    """Return the fields of a new subscription; what is empty is left to its default. Raises SubscriptionError."""
    given = {name: read(name, form.get(name)) for name, read in _READ.items() if form.get(name).strip()}
    return {"url": "", "types": []} | given | _secrets_in(form)


def changes_in(form: Form, item: Subscription) -> dict[str, Any]:
    """Return the fields whose text is another than the form showed. Raises SubscriptionError."""
    shown = texts_of(item)
    changed = {
        name: read(name, form.get(name))
        for name, read in _READ.items()
        if (form.has(name) or name == "ordered") and form.get(name).strip() != shown[name].strip()
    }
    gone = {name: None for name in ("headers", "authentication", "tls", "format_secret") if form.has(f"no_{name}")}
    return changed | _secrets_in(form) | gone


def _secrets_in(form: Form) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if form.get("headers").strip():
        given["headers"] = _headers(form.get("headers"))
    if form.get("format_secret").strip():
        given["format_secret"] = form.get("format_secret").strip()
    if (kind := form.get("authentication")) in _AUTHENTICATIONS:
        names = _AUTHENTICATIONS[kind]
        told = {name: form.get(name).strip() for name in names}
        given["authentication"] = authentication_of({"type": kind, **{k: v for k, v in told.items() if v}})
    pem = {name: form.get(name) for name in ("client_certificate", "client_key", "ca") if form.get(name).strip()}
    if pem:
        given["tls"] = tls_of({name: text.strip() + "\n" for name, text in pem.items()})
    return given


_AUTHENTICATIONS: Mapping[str, tuple[str, ...]] = {
    "basic": ("username", "password"),
    "bearer": ("token",),
    "oauth2": ("token_url", "client_id", "client_secret", "scope", "audience"),
}


def _headers(text: str) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        name, separator, value = line.strip().partition(":")
        if not line.strip():
            continue
        if not separator:
            raise SubscriptionError(f"headers: line {number} is not 'Name: value'")
        pairs.append((name.strip(), value.strip()))
    return pairs
