"""Fields of a subscription as the texts of a form, and back. Nothing here reads a file, whatever a text says.

A secret is never in a form that is shown: an empty field leaves it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Boolean, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from outbox.errors import SubscriptionError
from outbox.subscriptions.authentication import authentication_of, tls_of
from outbox.subscriptions.declaration import REQUIRED
from outbox.subscriptions.fields import COLUMNS, SECRETS
from outbox.subscriptions.filters.values import in_json, read_filter
from outbox.subscriptions.json_text import JSON_TEXT

if TYPE_CHECKING:
    from outbox.subscriptions import Subscription
    from outbox.subscriptions.authentication import TLS, Authentication
    from outbox.subscriptions.declaration import Field
    from relay.web.pages.csrf import Form

__all__ = ["FieldTexts", "Kind", "changes_in", "kind_of", "read_text", "settings_in", "texts_of"]

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


Kind = Literal["text", "number", "numbers", "words", "pairs", "json", "tick"]
_READ: dict[Kind, Callable[[str, str], Any]] = {
    "text": _text, "number": _number, "numbers": _numbers, "words": _words, "pairs": _pairs, "json": _json,
    "tick": lambda _, text: text == "1",
}  # fmt: skip


def kind_of(field: Field) -> Kind:
    """Return how a form asks for a field, by the type of its column. Raises TypeError for a type that no form has."""
    if field.column is JSON_TEXT:
        return "json"
    match field.column:
        case ARRAY(item_type=Integer()):
            return "numbers"
        case ARRAY(item_type=Text()):
            return "words"
        case Boolean():
            return "tick"
        case Integer():
            return "number"
        case JSONB():
            return "pairs"
        case Text():
            return "text"
    raise TypeError(f"{field.name}: no form asks for a column of the type {field.column!r}; kind_of says how one does")


def read_text(field: Field, text: str) -> Any:
    """Return the value that a text of the form stands for; None, the default, for an empty one.

    Raises SubscriptionError.
    """
    kind = kind_of(field)
    if kind != "tick" and not text.strip() and field.default is not REQUIRED:
        return None
    return _READ[kind](field.name, text)


def texts_of(item: Subscription | None) -> FieldTexts:
    """Return what the form shows of a subscription; of a new one, the defaults."""
    if item is not None:
        return texts_of(None) | {field.name: _shown(field, getattr(item, field.name)) for field in COLUMNS}
    defaults = {
        field.name: "" if field.default in (REQUIRED, ()) else _shown(field, field.default) for field in COLUMNS
    }
    return defaults | {"tenant": "", "id": "", "version": "", "scheme": "standard", "authentication": "keep"}


def _shown(field: Field, value: Any) -> str:
    """Return the text that `read_text` makes the value of."""
    if value is None or value is False or value == {}:
        return ""
    if value is True:
        return "1"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none" if kind_of(field) == "numbers" else "\n".join(value)
    if isinstance(value, dict) and kind_of(field) == "pairs" and all(isinstance(one, str) for one in value.values()):
        return "\n".join(f"{name}={one}" for name, one in value.items())
    if isinstance(value, dict):
        return json.dumps(in_json(value), ensure_ascii=False, indent=2)
    return str(value)


def settings_in(form: Form) -> dict[str, Any]:
    """Return the fields of a new subscription; what is empty is left to its default. Raises SubscriptionError."""
    given = {field.name: read_text(field, form.get(field.name)) for field in COLUMNS if form.get(field.name).strip()}
    return {"url": "", "types": []} | given | _secrets_in(form)


def changes_in(form: Form, item: Subscription) -> dict[str, Any]:
    """Return the fields whose text is another than the form showed. Raises SubscriptionError."""
    shown = texts_of(item)
    changed = {
        field.name: read_text(field, form.get(field.name))
        for field in COLUMNS
        if (form.has(field.name) or kind_of(field) == "tick")  # a browser leaves out what is not ticked
        and form.get(field.name).strip() != shown[field.name].strip()
    }
    gone = {field.name: None for field in SECRETS if form.has(f"no_{field.name}")}
    return changed | _secrets_in(form) | gone


def _secrets_in(form: Form) -> dict[str, Any]:
    """Return the secrets that are given. Each has fields of its own in the form: there is no type to go by."""
    if missing := [field.name for field in SECRETS if field.name not in _SECRET_IN]:
        raise TypeError(f"{', '.join(missing)}: no form asks for it; subscription_form.html and _SECRET_IN say how")
    found = {field.name: _SECRET_IN[field.name](form) for field in SECRETS}
    return {name: value for name, value in found.items() if value is not None}


def _format_secret_in(form: Form) -> str | None:
    return form.get("format_secret").strip() or None


def _headers_in(form: Form) -> list[tuple[str, str]] | None:
    return _headers(form.get("headers")) if form.get("headers").strip() else None


def _authentication_in(form: Form) -> Authentication | None:
    kind = form.get("authentication")
    if kind not in _AUTHENTICATIONS:
        return None
    told = {name: form.get(name).strip() for name in _AUTHENTICATIONS[kind]}
    return authentication_of({"type": kind, **{name: text for name, text in told.items() if text}})


def _tls_in(form: Form) -> TLS | None:
    pem = {name: form.get(name) for name in ("client_certificate", "client_key", "ca") if form.get(name).strip()}
    return tls_of({name: text.strip() + "\n" for name, text in pem.items()}) if pem else None


_SECRET_IN: Mapping[str, Callable[[Form], Any]] = {
    "headers": _headers_in, "authentication": _authentication_in, "tls": _tls_in, "format_secret": _format_secret_in,
}  # fmt: skip
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
