"""Sign and verify as a declaration says. Hashes of keys and all constant bytes are prepared once for a subscription.

A signature covers its text and nothing else. If the text has no time, whoever records a request can send it again. If
it has no id either, only a receiver that remembers bodies notices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from outbox.errors import SignatureError
from outbox.signing.schemes.declaration import SchemeDeclaration
from outbox.signing.schemes.keys import KEY_RULES, any_equal, mac
from outbox.signing.schemes.scheme import MESSAGE_ID, TIMESTAMP, KeyRule, Lines, Scheme, Verified
from outbox.signing.schemes.template import Element, Template, dividing, formatter, parse

Mac = Callable[[bytes], bytes]
Maker = Callable[["Form", str], Mac]
Matcher = Callable[["Form", str, list[bytes], bytes], bool]
Text = Callable[[bytes, bytes, bytes, bytes], bytes]
_Formatted = tuple[bytes, Callable[[Any], Any]]  # as template.formatter returns it

__all__ = ["Form", "hmac_element", "hmac_matches", "scheme_of"]

_PLACES = {"id": 0, "type": 1, "timestamp": 2, "body": 3, "signature": 3}
_MAX_ELEMENTS = 64  # of one header; a sender has a handful of live secrets
_TYPE = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Form:
    """A declaration, parsed once.

    text: the function from id, type, timestamp and body to the signed text.
    sources: the header of each part that a receiver reads.
    signature, stamp: the elements of the signature header that hold the signature, and the time if there is one.
    ends: for each part, the characters that would end it in the signed text. No value of it may hold them.
    """

    row: SchemeDeclaration
    text: Text
    sources: Mapping[str, str]
    signature: Element
    stamp: Element | None
    ends: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, row: SchemeDeclaration) -> Form:
        """Parse a declaration."""
        elements = {element.part: element for element in row.elements}
        ends = {part: frozenset(dividing(part, row.text.divider(part))) for part in ("id", "type", "timestamp")}
        return cls(row, _text(row), row.sources, elements["signature"], elements.get("timestamp"), ends)

    @property
    def header(self) -> str:
        """The signature's header, in lower case."""
        return self.sources["signature"]


def hmac_element(form: Form, secret: str) -> Mac:
    """Return the function from the signed text to the element of the header that holds its signature."""
    row, element = form.row, form.signature
    return mac(KEY_RULES[row.key].key(secret), row.hash, row.encoding, element.before, element.after)


def hmac_matches(form: Form, secret: str, elements: list[bytes], signed: bytes) -> bool:
    """Tell whether one of a header's elements is this secret's signature."""
    return any_equal([hmac_element(form, secret)(signed)], elements)


def scheme_of(
    row: SchemeDeclaration,
    *,
    keys: KeyRule | None = None,
    maker: Maker = hmac_element,
    matches: Matcher = hmac_matches,
    note: str = "",
) -> Scheme:
    """Return the scheme that a declaration describes.

    keys, maker, matches: for a scheme that also has keys of another kind; HMAC by default.
    """
    form = Form.of(row)
    sends = tuple(header.lower() for header, _ in row.header_lines)
    return Scheme(
        row,
        headers=tuple(form.sources.values()),
        sends=sends,
        keys=keys or KEY_RULES[row.key],
        sign=partial(_sign, form, maker, formatter(_header_lines(row), _PLACES)),
        verify=partial(_verify, form, matches),
        note=note,
    )


def _text(row: SchemeDeclaration) -> Text:
    """Return the function from id, type, timestamp and body to the text that is signed."""
    if row.signed == "{body}":
        return lambda _id, _type, _timestamp, body: body
    text, pick = formatter(row.text, _PLACES)

    def of(message_id: bytes, type_: bytes, timestamp: bytes, body: bytes) -> bytes:
        signed: bytes = text % pick((message_id, type_, timestamp, body))
        return signed

    return of


def _sign(form: Form, maker: Maker, header: _Formatted, secrets: Sequence[str]) -> Lines:
    row = form.row
    signature = _signatures(row, [maker(form, secret) for secret in (secrets if row.several else secrets[:1])])
    return partial(_lines, signature, form.text, *header)


def _lines(
    signature: Mac, text: Text, header_lines: bytes, pick: Callable[[Any], Any],
    message_id: bytes, type_: bytes, timestamp: bytes, body: bytes,
) -> bytes:  # fmt: skip
    signed = signature(text(message_id, type_, timestamp, body))
    written: bytes = header_lines % pick((message_id, type_, timestamp, signed))
    return written


def _signatures(row: SchemeDeclaration, elements: list[Mac]) -> Mac:
    """Return the function from the signed text to the elements of all secrets."""
    if len(elements) == 1:
        return elements[0]
    separator = row.separator.encode("ascii")
    return lambda signed: separator.join([element(signed) for element in elements])


def _header_lines(row: SchemeDeclaration) -> Template:
    """Return the lines of every header. Their part `signature` is one whole element, or several."""
    elements = ["{signature}" if part == "signature" else f"{before}{_braced(part)}{after}"
                for before, part, after in row.elements]  # fmt: skip
    values = {"signature": row.separator.join(elements)}
    return parse("".join(f"{header}: {values.get(part, _braced(part))}\r\n" for header, part in row.header_lines))


def _braced(part: str) -> str:
    return f"{{{part}}}" if part else ""


def _verify(form: Form, matches: Matcher, secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> Verified:
    values = {part: headers[header] for part, header in form.sources.items()}
    elements = _elements(form, values.pop("signature"))
    if form.stamp:
        values["timestamp"] = _time(form, form.stamp, elements)
    for part, value in values.items():
        if not _SHAPES[part].fullmatch(value) or not form.ends[part].isdisjoint(value):
            raise SignatureError(f"{form.sources.get(part, form.header)}: {_MUST_BE[part]}")
    message_id, type_, timestamp = (values.get(part, "").encode("ascii") for part in _SHAPES)
    signed = form.text(message_id, type_, timestamp, body)
    given = [element.encode("ascii", "replace") for element in elements]
    found = [matches(form, secret, given, signed) for secret in secrets]  # all of them, so that timing tells nothing
    if not any(found):
        raise SignatureError(f"{form.header}: no signature in it matches the body and any secret")
    return Verified(values.get("id", ""), int(timestamp) if timestamp else None)


_SHAPES = {"id": MESSAGE_ID, "type": _TYPE, "timestamp": TIMESTAMP}
_MUST_BE = {
    "id": "must be visible ASCII without a dot, and without what divides it from the rest",
    "type": "must be visible ASCII without what divides it from the rest",
    "timestamp": "must be whole seconds since 1970",
}


def _elements(form: Form, value: str) -> list[str]:
    elements = value.split(form.row.separator) if form.row.separator else [value]
    if len(elements) > _MAX_ELEMENTS:
        raise SignatureError(f"{form.header}: {len(elements)} elements, at most {_MAX_ELEMENTS} are tried")
    return elements


def _time(form: Form, stamp: Element, elements: list[str]) -> str:
    """Return the time that the signature header carries."""
    found = [text for text in elements if text.startswith(stamp.before)]
    if len(found) != 1 or not found[0].endswith(stamp.after):
        raise SignatureError(f"{form.header}: must have one {stamp.before}…{stamp.after}")
    return found[0].removeprefix(stamp.before).removesuffix(stamp.after)
