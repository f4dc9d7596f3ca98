"""What a subscription's requests carry besides event and signature: own headers, authentication, own TLS.

Everything is checked here again, since a row can be written by hand: what breaks a rule makes the subscription
unsendable, and no byte of it goes out.
"""

from __future__ import annotations

import base64
import html
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from outbox.credentials import BasicAuth, BearerToken, authentication_of, stored_document, tls_of
from outbox.custom_headers import check_headers
from outbox.errors import SubscriptionError
from relay.http.oauth2 import Tokens
from relay.http.outcome import Outcome
from relay.http.sender import Endpoint
from relay.http.tls import ClientTLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from outbox.credentials import Authentication
    from relay.http.oauth2 import Token
    from relay.http.sender import Sender

__all__ = ["Credentials"]

MIN_BLOTTED = 6
"""Shorter values are left alone in what a receiver echoes: they hide nothing and occur everywhere."""

BLOT = b"***"


class Credentials:
    """Made once for each version of a subscription. `lines` go with every request, `endpoint` is where to."""

    __slots__ = ("_secrets", "_tokens", "endpoint", "lines")

    def __init__(self, url: str, opened: Mapping[str, str]) -> None:
        """Read what is stored.

        Args:
            url: the subscription's.
            opened: kind ('headers', 'authentication', 'tls') to JSON text.

        Raises:
            SubscriptionError: the URL or a credential cannot be used.
        """
        documents = {kind: stored_document(kind, text) for kind, text in opened.items()}
        headers = check_headers(documents.get("headers", {}))
        authentication = authentication_of(documents["authentication"]) if "authentication" in documents else None
        tls = ClientTLS.of(tls_of(documents["tls"])) if "tls" in documents else None
        self.endpoint = Endpoint.of(url, tls)
        self._tokens: Tokens | None = None
        if authentication is not None:
            if "authorization" in map(str.lower, headers):
                raise SubscriptionError("headers: Authorization is set by authentication; remove one of the two")
            headers |= _authorization(authentication)
            if not isinstance(authentication, BasicAuth | BearerToken):
                self._tokens = Tokens(authentication, _tls_for(authentication.token_url, self.endpoint))
        self.lines = b"".join(f"{name}: {value}\r\n".encode("ascii") for name, value in headers.items())
        self._secrets = _secrets(headers, authentication)

    async def send(self, sender: Sender, lines: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        """POST with all that; `timeout_seconds` also covers fetching a token. See `Sender.send`."""
        if self._tokens is None:
            outcome = await sender.send(self.endpoint, lines, body, timeout_seconds)
            return _blotted(outcome, self._secrets)
        began = time.monotonic()
        outcome = await self._send_with_token(self._tokens, sender, lines, body, began + timeout_seconds)
        outcome.milliseconds = round((time.monotonic() - began) * 1000)
        return outcome

    async def _send_with_token(
        self, tokens: Tokens, sender: Sender, lines: bytes, body: bytes, deadline: float
    ) -> Outcome:
        token = await tokens.get(sender, deadline)
        if isinstance(token, Outcome):
            return token
        outcome = await self._send_with(token, sender, lines, body, deadline)
        if outcome.status != 401 or not tokens.may_replace(token):
            return outcome
        fresh = await tokens.get(sender, deadline, refused=token)
        if isinstance(fresh, Outcome):
            fresh.sent = True
            return outcome if fresh.kind == "local" else fresh  # a request went out: the attempt is not given back
        return await self._send_with(fresh, sender, lines, body, deadline)

    async def _send_with(self, token: Token, sender: Sender, lines: bytes, body: bytes, deadline: float) -> Outcome:
        seconds = max(deadline - time.monotonic(), 0.0)
        outcome = await sender.send(self.endpoint, lines + token.line, body, seconds)
        secrets = sorted((*self._secrets, *_spelled([token.value])), key=len, reverse=True)
        return _blotted(outcome, secrets)


def _authorization(authentication: Authentication) -> dict[str, str]:
    """Return the Authorization header that stays the same, if there is one."""
    if isinstance(authentication, BearerToken):
        return {"authorization": f"Bearer {authentication.token}"}
    if isinstance(authentication, BasicAuth):
        pair = f"{authentication.username}:{authentication.password}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    return {}


def _tls_for(token_url: str, endpoint: Endpoint) -> ClientTLS | None:
    """Return the own TLS for a token endpoint on the receiver's host; another host never sees the certificate."""
    token_endpoint = Endpoint.of(token_url)
    return endpoint.tls if token_endpoint.url.host == endpoint.url.host else None


def _secrets(headers: Mapping[str, str], authentication: Authentication | None) -> tuple[bytes, ...]:
    """Return what must not come back from a receiver into our rows, longest first."""
    values = [value for name, value in headers.items() if not name.lower().startswith("accept")]
    values += [value.partition(" ")[2] for name, value in headers.items() if name.lower() == "authorization"]
    if isinstance(authentication, BasicAuth):
        values.append(authentication.password)
    return _spelled(value for value in values if len(value) >= MIN_BLOTTED)


def _spelled(values: Iterable[str]) -> tuple[bytes, ...]:
    """Return each value as it was sent and as pages that show a request write it, longest first."""
    spellings: set[str] = set()
    for value in values:
        in_json = [json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        in_json += [text.replace("/", "\\/") for text in in_json]  # PHP's default
        in_html = [html.escape(value, quote=False), html.escape(value), html.escape(value).replace("&#x27;", "&#39;")]
        in_urls = [quote(value), quote(value, safe=""), quote_plus(value)]
        spellings.update([value], in_json, in_html, in_urls)
    return tuple(sorted((spelling.encode() for spelling in spellings), key=len, reverse=True))


def _blotted(outcome: Outcome, secrets: Sequence[bytes]) -> Outcome:
    """Take out of an answer what the receiver echoes of the request's secrets, in one of the spellings known here."""
    if outcome.excerpt:
        outcome.excerpt = _without(outcome.excerpt, secrets)
    if outcome.headers:
        outcome.headers = _without(outcome.headers.encode("latin-1"), secrets).decode("latin-1")
    return outcome


def _without(text: bytes, secrets: Sequence[bytes]) -> bytes:
    for secret in secrets:
        text = text.replace(secret, BLOT)
        at = max(0, len(text) - len(secret) + 1)  # where the end of the text could hold its beginning
        while (at := text.find(secret[:MIN_BLOTTED], at)) >= 0:
            if secret.startswith(text[at:]):
                text = text[:at] + BLOT
            at += 1
    return text
