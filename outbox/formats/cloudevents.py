"""What CloudEvents 1.0 allows in an attribute: names, types and values (spec.md of cloudevents/spec, sections 2 and 3).

`string_refusal` is asked again at each event, since an event's key and tenant become attributes too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from outbox._text import brief
from outbox.errors import SubscriptionError

__all__ = [
    "CORE",
    "absolute_uri",
    "attribute_name",
    "extensions",
    "is_json",
    "media_type",
    "string",
    "string_refusal",
    "uri_reference",
]

CORE = frozenset({"specversion", "id", "source", "type", "datacontenttype", "dataschema", "subject", "time"})
"""The names of the specification's own attributes."""

_NAME = re.compile(r"[a-z0-9]+")
_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
_URI = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z\-]+"  # noqa: S105 - a token of RFC 9110
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')
_JSON = re.compile(r"[^/]+/(?:json|[^;]*\+json)[ \t]*(?:;.*)?", re.IGNORECASE)
_INTEGERS = range(-(2**31), 2**31)


def string_refusal(value: str) -> str | None:
    """Return why a text can be no String of CloudEvents, or None."""
    if not value:
        return "is empty"
    found = _FORBIDDEN.search(value)
    return f"has the character U+{ord(found[0]):04X}, which CloudEvents forbids" if found else None


def string(path: str, value: object) -> str:
    """Return a String: not empty, without control characters and noncharacters."""
    if not isinstance(value, str):
        raise SubscriptionError(f"{path}: {brief(value)} is not text")
    if refused := string_refusal(value):
        raise SubscriptionError(f"{path}: {refused}; give other text, or leave it out")
    return value


def uri_reference(path: str, value: object) -> str:
    """Return a URI-reference (RFC 3986): absolute, or relative as in /orders."""
    text = string(path, value)
    before = re.split(r"[/?#]", text, maxsplit=1)[0]
    if not _URI.fullmatch(text) or text.count("#") > 1 or (":" in before and not _SCHEME.match(text)):
        raise SubscriptionError(
            f"{path}: {brief(text)} is no URI-reference; write /orders or https://acme.example/orders"
        )
    return text


def absolute_uri(path: str, value: object) -> str:
    """Return an absolute URI (RFC 3986, section 4.3), which has a scheme and no fragment."""
    text = uri_reference(path, value)
    if not _SCHEME.match(text) or "#" in text:
        raise SubscriptionError(f"{path}: {brief(text)} is no absolute URI; write https://… without a fragment (#…)")
    return text


def media_type(path: str, value: object) -> str:
    """Return a media type (RFC 2046), with parameters if it has any."""
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value):
        raise SubscriptionError(f"{path}: {brief(value)} is no media type; write one such as application/json")
    return value


def is_json(datacontenttype: str) -> bool:
    """Tell whether a media type says JSON: */json or */*+json, in any case, parameters aside."""
    return _JSON.fullmatch(datacontenttype) is not None


def attribute_name(path: str, value: object) -> str:
    """Return the name of an extension: a-z and 0-9, none of the specification's own names, not data."""
    shown = f"{path}.{value}" if isinstance(value, str) and re.fullmatch(r"[!-~]{1,40}", value) else path
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SubscriptionError(f"{shown}: {brief(value)} is no attribute's name; use a-z and 0-9 only, such as region")
    if value in CORE or value == "data":
        raise SubscriptionError(f"{shown}: {value} is CloudEvents' own name; choose another")
    return value


def extensions(path: str, value: object) -> dict[str, str | int | bool]:
    """Return extensions by name; each is text, a whole number of 32 bits, or true or false."""
    if not isinstance(value, Mapping):
        raise SubscriptionError(f"{path}: {brief(value)} is not a mapping of name to value")
    return {attribute_name(path, name): _extension(f"{path}.{name}", one) for name, one in value.items()}


def _extension(path: str, value: Any) -> str | int | bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, int):
        return string(path, value)
    if value not in _INTEGERS:
        raise SubscriptionError(f"{path}: {brief(value)} has over 32 bits; send it as text")
    return value
