"""Sign and judge as a declaration says. Hashes of keys and all constant bytes are prepared once for a subscription.

A signature covers its text and nothing else. Where that holds no time, who records a request can send it again; where
it holds no id, nobody but a receiver that remembers bodies notices.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from outbox.errors import SignatureError
from outbox.signing.schemes.keys import KEY_RULES, any_equal, mac
from outbox.signing.schemes.scheme import MESSAGE_ID, TIMESTAMP, Claim, Scheme
from outbox.signing.schemes.template import Template, dividing, formatter, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from outbox.signing.schemes.declaration import SchemeDeclaration
    from outbox.signing.schemes.scheme import KeyRule, Lines

    Mac = Callable[[bytes], bytes]
    Maker = Callable[[SchemeDeclaration, str], Mac]
    Matcher = Callable[[SchemeDeclaration, str, list[bytes], bytes], bool]

__all__ = ["hmac_element", "hmac_matches", "scheme_of"]

_PLACES = {"id": 0, "type": 1, "timestamp": 2, "body": 3, "signature": 3}
_MAX_ELEMENTS = 64  # of one header; a sender has a handful of live secrets
_TYPE = re.compile(r"[!-~]{1,128}")


def hmac_element(row: SchemeDeclaration, secret: str) -> Mac:
    """Return the function from the signed text to the element of the header that holds its signature."""
    key = KEY_RULES[row.key].key(secret)
    (element,) = (each for each in row.elements if each.part == "signature")
    return mac(key, row.hash, row.encoding, element.before, element.after)


def hmac_matches(row: SchemeDeclaration, secret: str, elements: list[bytes], signed: bytes) -> bool:
    """Tell whether one of a header's elements is this secret's signature."""
    return any_equal([hmac_element(row, secret)(signed)], elements)


def scheme_of(
    row: SchemeDeclaration,
    *,
    keys: KeyRule | None = None,
    maker: Maker = hmac_element,
    matches: Matcher = hmac_matches,
    note: str = "",
) -> Scheme:
    """Return the scheme that a declaration describes.

    keys, maker, matches: for one that also knows keys of another kind; HMAC by default.
    """
    return Scheme(row, keys or KEY_RULES[row.key], partial(_sign, row, maker), partial(_judge, row, matches), note)


def _sign(row: SchemeDeclaration, maker: Maker, secrets: Sequence[str]) -> Lines:
    signature = _signatures(row, [maker(row, secret) for secret in (secrets if row.several else secrets[:1])])
    text, pick = formatter(row.text, _PLACES)
    header_lines, pick_values = formatter(_header_lines(row), _PLACES)
    body_alone = row.signed == "{body}"

    def lines(message_id: bytes, type_: bytes, timestamp: bytes, body: bytes) -> bytes:
        signed = body if body_alone else text % pick((message_id, type_, timestamp, body))
        written: bytes = header_lines % pick_values((message_id, type_, timestamp, signature(signed)))
        return written

    return lines


def _signatures(row: SchemeDeclaration, elements: list[Mac]) -> Mac:
    """Return the function from the signed text to the elements of all secrets."""
    if len(elements) == 1:
        return elements[0]
    separator = row.separator.encode("ascii")
    return lambda signed: separator.join([element(signed) for element in elements])


def _header_lines(row: SchemeDeclaration) -> Template:
    """Return the lines of every header. The part `signature` of them is the whole element, or all of them."""
    elements = ["{signature}" if part == "signature" else f"{before}{_braced(part)}{after}"
                for before, part, after in row.elements]  # fmt: skip
    values = {"signature": row.separator.join(elements)}
    return parse("".join(f"{header}: {values.get(part, _braced(part))}\r\n" for header, part in row.header_lines))


def _braced(part: str) -> str:
    return f"{{{part}}}" if part else ""


def _judge(
    row: SchemeDeclaration, matches: Matcher, secrets: Sequence[str], headers: Mapping[str, str], body: bytes
) -> Claim:
    values = {part: headers[header] for part, header in row.sources.items()}
    elements = _elements(row, values.pop("signature"))
    if row.is_stamped:
        values["timestamp"] = _stamp(row, elements)
    for part, value in values.items():
        if not _is_whole(row.text, part, value):
            raise SignatureError(f"{row.sources.get(part, row.signature_header.lower())}: {_MUST_BE[part]}")
    signed = _signed(row, values, body)
    given = [element.encode("ascii", "replace") for element in elements]
    found = [matches(row, secret, given, signed) for secret in secrets]  # each: no time tells which one it was
    if not any(found):
        raise SignatureError(f"{row.signature_header.lower()}: no signature in it matches the body and any secret")
    return Claim(values.get("id", ""), int(values["timestamp"]) if "timestamp" in values else None)


def _elements(row: SchemeDeclaration, value: str) -> list[str]:
    elements = value.split(row.separator) if row.separator else [value]
    if len(elements) > _MAX_ELEMENTS:
        header = row.signature_header.lower()
        raise SignatureError(f"{header}: {len(elements)} elements, at most {_MAX_ELEMENTS} are tried")
    return elements


def _stamp(row: SchemeDeclaration, elements: list[str]) -> str:
    """Return the time that the signature header carries."""
    (stamp,) = (element for element in row.elements if element.part == "timestamp")
    found = [text for text in elements if text.startswith(stamp.before)]
    if len(found) != 1 or not found[0].endswith(stamp.after):
        raise SignatureError(f"{row.signature_header.lower()}: must have one {stamp.before}…{stamp.after}")
    return found[0].removeprefix(stamp.before).removesuffix(stamp.after)


_SHAPES = {"id": MESSAGE_ID, "type": _TYPE, "timestamp": TIMESTAMP}
_MUST_BE = {
    "id": "must be visible ASCII without a dot, and without what divides it from the rest",
    "type": "must be visible ASCII without what divides it from the rest",
    "timestamp": "must be whole seconds since 1970",
}


def _is_whole(text: Template, part: str, value: str) -> bool:
    """Tell whether a value has the shape of its part, and holds nothing that would end it in the signed text."""
    return _SHAPES[part].fullmatch(value) is not None and set(value).isdisjoint(dividing(part, text.divider(part)))


def _signed(row: SchemeDeclaration, values: Mapping[str, str], body: bytes) -> bytes:
    if row.signed == "{body}":
        return body
    text, pick = formatter(row.text, _PLACES)
    message_id, type_, timestamp = (values.get(part, "").encode("ascii") for part in ("id", "type", "timestamp"))
    signed: bytes = text % pick((message_id, type_, timestamp, body))
    return signed
