r"""The schemes `notely` and `notely-node`: they sign the body as its receiver writes it anew.

The receivers parse the body and hash what their own JSON library makes of it: in Python
`json.dumps(payload, separators=(",", ":"))`, in Node.js `JSON.stringify(payload)`. A request carries one signature, so
the subscription must say which receivers read it: `notely` is for those in Python, `notely-node` for those in Node.js.
The key is the secret's text in UTF-8. The receivers also take the hexadecimal without `sha256=`.

Both receivers accept `notely` where the two libraries write the same; where they differ, each accepts its own scheme:

    in the body                    Python hashes            Node.js hashes           accepted by
    ASCII text, whole numbers      the same                                          both
      up to 2^53, true, null
    white space, \/ and \u0041     the same: neither keeps them                      both
    a key twice                    the same: the last value in the first place       both
    -0                             0                        0                        both
    1.5, 1e21, 0.0001              the same                                          both
    non-ASCII text                 \u00fc                   ü                        its own
    DEL (U+007F)                   \u007f                   DEL                      its own
    10.0, 1e2                      10.0, 100.0              10, 100                  its own
    -0.0                           -0.0                     0                        its own
    1e16, 1e-5, 1e-7               1e+16, 1e-05, 1e-07      1000…0, 0.00001, 1e-7    its own
    whole numbers beyond 2^53      every digit              the nearest double       its own
    1e400                          Infinity                 null                     its own
    keys like "2" and "10"         as they came             first, in their order    its own
    a lone surrogate, \ud800       the same                                          both
    NaN, Infinity (no JSON)        NaN, Infinity            refuses the request      Python
    an int of over 4,300 digits    refuses the request      a double                 Node.js
    nesting too deep for a stack   refuses the request      may refuse               neither, or Node.js
    no JSON at all                 refuses the request      refuses the request      neither

`record()` refuses what the last four rows name, except such a long number in RawJSON. Rows inserted by other means can
hold all of it. A body that this module cannot write anew is signed as it stands; only its receiver then refuses it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from json.encoder import encode_basestring
from typing import Any

from outbox.signing.schemes.declaration import SchemeDeclaration
from outbox.signing.schemes.hmac_scheme import scheme_of
from outbox.signing.schemes.scheme import Lines, Scheme, Verified

__all__ = ["as_node_writes", "as_python_writes", "for_node_receivers", "for_python_receivers"]

_write = json.JSONEncoder(separators=(",", ":")).encode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_MAX_ARRAY_INDEX = 2**32 - 2


def for_python_receivers(row: SchemeDeclaration) -> Scheme:
    """Return the scheme of the receivers in Python."""
    return _rewriting(row, as_python_writes, "json.dumps(json.loads(body), separators=(',', ':'))")


def for_node_receivers(row: SchemeDeclaration) -> Scheme:
    """Return the scheme of the receivers in Node.js."""
    return _rewriting(row, as_node_writes, "JSON.stringify(JSON.parse(body))")


def _rewriting(row: SchemeDeclaration, write: Callable[[bytes], bytes], what: str) -> Scheme:
    """Return the scheme of a declaration, over the body as its receiver writes it anew."""
    plain, header, prefix = scheme_of(row), row.signature_header.lower(), row.elements[0].before

    def sign(secrets: Sequence[str]) -> Lines:
        lines = plain.sign(secrets)
        return lambda message_id, type_, timestamp, body: lines(message_id, type_, timestamp, write(body))

    def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> Verified:
        whole = prefix + headers[header].removeprefix(prefix)  # the receivers take it without the prefix too
        return plain.verify(secrets, {**headers, header: whole}, write(body))

    return replace(plain, sign=sign, verify=verify, note=f"what is signed is not the body as sent, but {what}")


def as_python_writes(body: bytes) -> bytes:
    """Return json.dumps(json.loads(body), separators=(",", ":")), or the body where that fails."""
    try:
        return _write(json.loads(body)).encode()
    except (ValueError, RecursionError):
        return body


def as_node_writes(body: bytes) -> bytes:
    """Return JSON.stringify(JSON.parse(body)) (ECMA-262, 25.5), or the body where that fails."""
    try:
        parsed = json.loads(body, parse_int=float, parse_constant=_refuse)
        text = "".join(_stringify(parsed))
    except (ValueError, RecursionError):
        return body
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _stringify(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        members = [(encode_basestring(key) + ":", member) for key, member in _in_order_of_node(value)]
        yield from _joined("{", members, "}")
    elif isinstance(value, list):
        yield from _joined("[", [("", item) for item in value], "]")
    elif isinstance(value, str):
        yield encode_basestring(value)
    elif isinstance(value, float):
        yield _number(value)
    else:
        yield {True: "true", False: "false", None: "null"}[value]


def _joined(opening: str, members: Iterable[tuple[str, Any]], closing: str) -> Iterator[str]:
    yield opening
    separator = ""
    for name, member in members:
        yield separator + name
        yield from _stringify(member)
        separator = ","
    yield closing


def _in_order_of_node(members: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the members as ECMA-262 10.1.11.1 orders them: array indices by number, then the others as they came."""
    indices = {key for key in members if _ARRAY_INDEX.fullmatch(key) and int(key) <= _MAX_ARRAY_INDEX}
    if not indices:
        return list(members.items())
    ordered = [*sorted(indices, key=int), *(key for key in members if key not in indices)]
    return [(key, members[key]) for key in ordered]


def _number(value: float) -> str:
    """Return Number::toString (ECMA-262 6.1.6.1.20), null for what is not finite."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    digits, point = _shortest(abs(value))
    if len(digits) <= point <= 21:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _shortest(value: float) -> tuple[str, int]:
    """Return the fewest digits that read back as `value`, and where the decimal point stands among them."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return digits.rstrip("0"), point
