"""What a receiver echoes of a request's secrets is taken out of its answer before anything of that is kept."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.model.outcome import Outcome

__all__ = ["MIN_BLOTTED", "blotted", "spelled"]

MIN_BLOTTED = 6
"""Shorter values are left alone in what a receiver echoes: they hide nothing and occur everywhere."""

BLOT = b"***"


def spelled(values: Iterable[str]) -> tuple[bytes, ...]:
    """Return each value as it was sent and as pages that show a request write it, longest first."""
    spellings: set[str] = set()
    for value in values:
        in_json = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        in_json += [text.replace("/", "\\/") for text in in_json]  # PHP's default
        in_html = [html.escape(value, quote=False), html.escape(value), html.escape(value).replace("&#x27;", "&#39;")]
        in_urls = [quote(value), quote(value, safe=""), quote_plus(value)]
        spellings.update([value], in_json, in_html, in_urls)
    return tuple(sorted((spelling.encode() for spelling in spellings), key=len, reverse=True))


def blotted(outcome: Outcome, secrets: Sequence[bytes]) -> Outcome:
    """Take out of an answer what the receiver echoes of the request's secrets, in one of the spellings known here."""
    if not outcome.excerpt and not outcome.headers:
        return outcome
    headers = outcome.headers and _without(outcome.headers.encode("latin-1"), secrets).decode("latin-1")
    return replace(outcome, excerpt=_without(outcome.excerpt, secrets), headers=headers)


def _without(text: bytes, secrets: Sequence[bytes]) -> bytes:
    for secret in secrets:
        text = text.replace(secret, BLOT)
        at = max(0, len(text) - len(secret) + 1)  # where the end of the text could hold its beginning
        while (at := text.find(secret[:MIN_BLOTTED], at)) >= 0:
            if secret.startswith(text[at:]):
                text = text[:at] + BLOT
            at += 1
    return text
