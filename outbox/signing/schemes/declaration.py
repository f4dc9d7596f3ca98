"""A signature scheme as data: which text is signed, by which hash, and how the headers say so.

The rows that come with the library are in built_in.py; a user's are made by `outbox.declare_scheme()`, or are tables
`[schemes.NAME]` in the relay's configuration. A declaration that cannot work, or whose signature would protect less
than it seems to, is refused when it is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from outbox._text import brief, did_you_mean
from outbox.errors import SubscriptionError
from outbox.signing.schemes.template import Element, Template, dividing, elements_of, parse

__all__ = ["COMMON_HEADERS", "RELAY_HEADERS", "SchemeDeclaration", "declaration_of", "is_scheme_name"]

COMMON_HEADERS = ("webhook-id", "webhook-timestamp")
"""Headers that every scheme sends: by the id a receiver recognises a repetition, whatever it verifies."""

RELAY_HEADERS = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
     "content-type", "content-encoding", "accept-encoding", "date", "user-agent", "http2-settings", "traceparent",
     "tracestate", "baggage")
)  # fmt: skip
"""Headers that only the relay writes (framing, routing, form of the body, trace): no scheme or subscription may."""

_CREDENTIALS = frozenset(("authorization", "cookie"))
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_SIGNED = re.compile(r"[\t\n -~]{1,256}")
_VALUE = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
_WORDS: dict[str, tuple[str, ...]] = {
    "hash": ("sha256", "sha512", "sha1"),
    "encoding": ("hex", "base64"),
    "key": ("text", "whsec", "whsec-as-text"),
    "separator": ("", " ", ",", ", ", ";", "; ", "&", "|"),
}
_MAX_TOLERANCE_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class SchemeDeclaration:
    """How a sender signs, for receivers that were written for it. Raises SubscriptionError for what cannot work.

    name: 1 to 32 lower-case letters, digits and `-`.
    signed: the text that is signed: `{body}`, and if wanted `{id}`, `{timestamp}` (seconds since 1970) and `{type}`.
    signature_header: the header that carries the signature.
    value: its value: `{signature}`, and in some schemes `{timestamp}`, as in `t={timestamp},v1={signature}`.
    separator: what divides the elements of `value`, if it has several.
    several: whether each live secret signs, so that a rotation can overlap; the signature's element is repeated.
    hash: the hash of the HMAC: `sha256`, `sha512` or `sha1`.
    encoding: the form of the signature: `hex` or `base64`.
    key: what the HMAC is keyed with: `text`, the secret as it stands; `whsec`, what the base64 behind `whsec_` holds;
        `whsec-as-text`, the secret as it stands, where new ones begin with `whsec_`.
    id_header, timestamp_header, type_header: further headers that carry these. The id and the time are always sent as
        `webhook-id` and `webhook-timestamp` too. A signed one is read from there when no other header is named.
    tolerance_seconds: how old a request may be at its receiver.
    """

    name: str
    signed: str
    signature_header: str
    value: str = "{signature}"
    separator: str = ""
    several: bool = False
    hash: Literal["sha256", "sha512", "sha1"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    key: Literal["text", "whsec", "whsec-as-text"] = "text"
    id_header: str = ""
    timestamp_header: str = ""
    type_header: str = ""
    tolerance_seconds: int = 300

    def __post_init__(self) -> None:
        _check(self)

    def __str__(self) -> str:
        return self.name

    @property
    def text(self) -> Template:
        """The text that is signed, parsed."""
        return parse(self.signed)

    @property
    def elements(self) -> tuple[Element, ...]:
        """The elements of the signature header's value."""
        return elements_of(self.value, self.separator)

    @property
    def is_stamped(self) -> bool:
        """Whether the signature header itself carries the time."""
        return "timestamp" in parse(self.value).parts

    @property
    def sources(self) -> dict[str, str]:
        """The header (in lower case) of each part that a receiver reads: id, type, timestamp, signature."""
        signed = self.text.parts
        headers = {
            "id": (self.id_header or COMMON_HEADERS[0]) if "id" in signed else "",
            "type": self.type_header if "type" in signed else "",
            "timestamp": self.timestamp_header or (COMMON_HEADERS[1] if "timestamp" in signed else ""),
            "signature": self.signature_header,
        }
        if self.is_stamped:
            headers["timestamp"] = ""
        return {part: header.lower() for part, header in headers.items() if header}

    @property
    def header_lines(self) -> tuple[tuple[str, str], ...]:
        """Every header that is written, and which of type, id, timestamp and signature it carries."""
        own = [(getattr(self, f"{part}_header"), part) for part in ("type", "id", "timestamp", "signature")]
        written = {header.lower() for header, _ in own}
        common = [pair for pair in zip(COMMON_HEADERS, ("id", "timestamp"), strict=True) if pair[0] not in written]
        return *((header, part) for header, part in own if header), *common


def declaration_of(name: str, table: object) -> SchemeDeclaration:
    """Return the declaration that a table of a configuration file holds. Raises SubscriptionError."""
    if not isinstance(table, Mapping):
        raise SubscriptionError(f"schemes.{_brief(name)}: not a table; write [schemes.NAME] and its keys below")
    known = [field.name for field in fields(SchemeDeclaration) if field.name != "name"]
    for key in table:
        if key not in known:
            mend = did_you_mean(str(key), known, f"there are {', '.join(known)}")
            raise SubscriptionError(f"schemes.{_brief(name)}.{_brief(key)}: unknown key{mend}")
    for key, example in (("signed", "{timestamp}.{body}"), ("signature_header", "X-Acme-Signature")):
        if key not in table:
            raise SubscriptionError(f"schemes.{_brief(name)}.{key}: missing; write {key} = '{example}'")
    return SchemeDeclaration(name, **table)


def is_scheme_name(name: object) -> bool:
    """Tell whether a scheme could have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _check(row: SchemeDeclaration) -> None:
    if row.name == "none":
        raise SubscriptionError("schemes.none: stands for no signature; choose another name")
    if not is_scheme_name(row.name):
        raise SubscriptionError(f"schemes.{_brief(row.name)}: not a name; use 1 to 32 of a-z, 0-9 and -, such as acme")
    for check in (_check_types, _check_signed, _check_value, _check_stamp, _check_headers, _check_names):
        if complaint := check(row):
            raise SubscriptionError(f"schemes.{row.name}.{complaint}")


def _check_types(row: SchemeDeclaration) -> str | None:
    given: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(row)}
    for name in ("signed", "signature_header", "value", "id_header", "timestamp_header", "type_header", *_WORDS):
        if not isinstance(given[name], str):
            return f"{name}: {_brief(given[name])} is not text; write it in quotes"
    for name, words in _WORDS.items():
        if given[name] not in words:
            return f"{name}: {_brief(given[name])} is not one of {', '.join(map(repr, words))}"
    if not isinstance(given["several"], bool):
        return f"several: {_brief(given['several'])} is not true or false"
    tolerance = given["tolerance_seconds"]
    if type(tolerance) is not int or not 1 <= tolerance <= _MAX_TOLERANCE_SECONDS:
        return f"tolerance_seconds: {_brief(tolerance)} is not a whole number from 1 to {_MAX_TOLERANCE_SECONDS}"
    return None


def _check_signed(row: SchemeDeclaration) -> str | None:
    if not _SIGNED.fullmatch(row.signed):
        return "signed: must be 1 to 256 characters of ASCII, such as '{timestamp}.{body}'"
    if wrong := _wrong_parts(row.text, ("id", "timestamp", "type", "body"), "body"):
        return f"signed: {wrong}"
    return next((wrong for part in row.text.parts if (wrong := _undivided(row.text, part))), None)


def _wrong_parts(template: Template, known: tuple[str, ...], needed: str) -> str | None:
    """Return what is wrong with the parts that a text names."""
    for part in template.parts:
        if part not in known:
            return f"{{{part}}} is no part of it; there are {', '.join(f'{{{each}}}' for each in known)}"
        if template.parts.count(part) > 1:
            return f"{{{part}}} stands in it twice; once is enough"
    if any(brace in literal for literal in template.literals for brace in "{}"):
        return "has a brace that belongs to no part; there are no braces but those of parts"
    return None if needed in template.parts else f"{{{needed}}} is missing; every signature needs it"


def _undivided(text: Template, part: str) -> str | None:
    """Return why two messages could have one signature: nothing tells where a part ends."""
    if part == "body" or dividing(part, text.divider(part)):
        return None
    beside_body = abs(text.parts.index(part) - text.parts.index("body")) == 1
    if part == "timestamp" and beside_body and not text.divider(part):
        return None  # one digit more or less makes a time far outside every tolerance
    return f"signed: nothing tells where {{{part}}} ends; divide it from the rest by ':', which it never holds"


def _check_value(row: SchemeDeclaration) -> str | None:
    if not _VALUE.fullmatch(row.value):
        return "value: must be 1 to 256 characters of visible ASCII, with spaces inside only"
    if wrong := _wrong_parts(parse(row.value), ("signature", "timestamp"), "signature"):
        return f"value: {wrong}"
    if row.several and not row.separator:
        return "separator: missing; with several = true it divides the signatures, such as ','"
    try:
        elements_of(row.value, row.separator)
    except ValueError:
        return "separator: does not divide {timestamp} from {signature} in value; give what stands between them"
    return None


def _check_stamp(row: SchemeDeclaration) -> str | None:
    """Return why a receiver could not tell the time from the signature."""
    for stamp in (element.before for element in row.elements if element.part == "timestamp"):
        others = [element.before for element in row.elements if element.part != "timestamp"]
        if not re.search(r"[^A-Za-z0-9+/]\Z", stamp) or any(other.startswith(stamp) for other in others):
            return "value: nothing tells {timestamp} from {signature}; write a name before it, such as t={timestamp}"
    return None


def _check_headers(row: SchemeDeclaration) -> str | None:
    for field in ("signature_header", "id_header", "timestamp_header", "type_header"):
        header = getattr(row, field)
        if (header or field == "signature_header") and not _HEADER.fullmatch(header):
            return f"{field}: {_brief(header)} is not a header's name; use up to 64 letters, digits and -"
        if header.lower() in RELAY_HEADERS | _CREDENTIALS or header.lower().startswith("proxy-"):
            return f"{field}: {header} is written by the relay or by a subscription's authentication; use another"
    return None


def _check_names(row: SchemeDeclaration) -> str | None:
    """Return which part of the signed text has no header, or which two headers have one name."""
    if "type" in row.text.parts and not row.type_header:
        return "type_header: missing; {type} is signed, so name the header that carries it"
    carried = dict(zip(COMMON_HEADERS, ("id", "timestamp"), strict=True))
    for part in ("type", "id", "timestamp", "signature"):
        header = getattr(row, f"{part}_header")
        if header and carried.setdefault(header.lower(), part) != part:
            return f"{part}_header: {header} carries the {carried[header.lower()]} already; use another name"
    return None


def _brief(value: Any) -> str:
    """Return a value for an error text: a word as it is, everything else quoted and cut."""
    if isinstance(value, str) and re.fullmatch(r"[\w-]{1,40}", value, re.ASCII):
        return value
    return brief(value)
