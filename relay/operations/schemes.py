"""Signature schemes and body formats as documents: what each signs or makes, with an example."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from outbox import formats
from outbox.signing.schemes import ROWS, SCHEMES, named
from outbox.signing.verify import signed_headers

if TYPE_CHECKING:
    from outbox.signing.schemes import Scheme, SchemeDeclaration

__all__ = ["format_documents", "scheme_document", "scheme_documents"]

_EXAMPLE_KEY = b"an example, known to everybody"
_EXAMPLE_BODY = b'{"type":"order.placed","timestamp":"2026-01-01T12:00:00.000000Z","data":{"id":7}}'
_EXAMPLE_UNIX_SECONDS = 1_767_268_800


def scheme_documents() -> list[dict[str, Any]]:
    """Return every scheme that this process knows."""
    return [_document(scheme) for scheme in SCHEMES.values()]


def scheme_document(name: str) -> dict[str, Any]:
    """Return a scheme: its declaration, what follows from it, and an example. Raises SubscriptionError for none."""
    return _document(named(name))


def format_documents() -> list[dict[str, Any]]:
    """Return every format of bodies, and what each can be told."""
    return [
        {"name": row.name, "content_type": row.content_type, "summary": row.summary, "secret": row.secret or None,
         "settings": {name: setting.meaning for name, setting in row.settings.items()}}
        for row in formats.FORMATS.values()
    ]  # fmt: skip


def _document(scheme: Scheme) -> dict[str, Any]:
    row = scheme.row
    carried = dict.fromkeys(part for _, part in row.header_lines if part != "signature")
    return {
        **asdict(row),
        "note": scheme.note,
        "origin": _origin_of(row),
        "protects": {part: part in row.text.parts for part in ("body", *carried)},
        "headers": [header for header, _ in row.header_lines],
        "verified_by": list(scheme.headers),
        "example": _example(scheme),
    }


def _example(scheme: Scheme) -> dict[str, Any]:
    row = scheme.row
    encoded = f"whsec_{base64.b64encode(_EXAMPLE_KEY).decode()}"
    secret = _EXAMPLE_KEY.decode() if row.key == "text" else encoded
    headers = signed_headers(
        secret, "evt_01h455vb4pex5vsknk084sn02q", _EXAMPLE_BODY, timestamp=_EXAMPLE_UNIX_SECONDS, scheme=row.name,
        type="order.placed",
    )  # fmt: skip
    return {"secret": secret, "headers": headers, "body": _EXAMPLE_BODY.decode()}


def _origin_of(row: SchemeDeclaration) -> str:
    """Return `built in`, or `declared` for one of the configuration."""
    return "built in" if row in ROWS else "declared"
