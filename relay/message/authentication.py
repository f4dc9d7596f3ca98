"""What a subscription adds to its requests besides event and signature: own headers, authentication, own TLS.

Everything is checked here again, since a row can be written by hand. A part that breaks a rule makes the subscription
unsendable, and nothing of it is sent.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, NamedTuple

from outbox.errors import SubscriptionError
from outbox.subscriptions.authentication import BasicAuth, BearerToken, authentication_of, stored_document, tls_of
from outbox.subscriptions.headers import check_headers
from relay.http.begun import read_by
from relay.http.sender import Endpoint
from relay.http.tls import ClientTLS
from relay.message.echoes import MIN_REDACTED, redact_echoes, spellings_of
from relay.message.oauth2 import Tokens
from relay.model.outcome import Outcome, OutcomeKind, milliseconds_since

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from outbox.subscriptions.authentication import Authentication
    from relay.http.sender import Sender
    from relay.message.oauth2 import Token

__all__ = ["RequestAdditions"]


class _Request(NamedTuple):
    endpoint: Endpoint
    lines: bytes
    body: bytes
    deadline: float  # monotonic


class RequestAdditions:
    """Made once for each version of a subscription. `lines` go with every request; `endpoint` is where they go."""

    __slots__ = ("_secrets", "_tokens", "endpoint", "lines")

    def __init__(self, url: str, opened: Mapping[str, str], owner: bytes = b"", user_agent: str | None = None) -> None:
        """Check and parse what is stored.

        Args:
            url: the subscription's URL.
            opened: JSON text, by kind ('headers', 'authentication', 'tls').
            owner: the subscription's id; see `Endpoint.of`.
            user_agent: of the format; the subscription's own one comes before it.

        Raises:
            SubscriptionError: the URL or a part cannot be used.
        """
        documents = {kind: stored_document(kind, text) for kind, text in opened.items()}
        headers = check_headers(documents.get("headers", {}), stored=True)
        authentication = authentication_of(documents["authentication"]) if "authentication" in documents else None
        tls = ClientTLS.of(tls_of(documents["tls"])) if "tls" in documents else None
        user_agent = _user_agent(headers) or user_agent
        self.endpoint = Endpoint.of(url, tls, owner, user_agent)
        self._tokens: Tokens | None = None
        if authentication is not None:
            if "authorization" in map(str.lower, headers):
                raise SubscriptionError("headers: Authorization is set by authentication; remove one of the two")
            headers |= _authorization(authentication)
            if not isinstance(authentication, BasicAuth | BearerToken):
                is_there = Endpoint.of(authentication.token_url).url.host == self.endpoint.url.host
                own = (tls, owner, user_agent) if is_there else (None, owner, None)  # shown to no other host
                self._tokens = Tokens(authentication, *own)
        self.lines = b"".join(
            f"{name}: {value}\r\n".encode("ascii") for name, value in headers.items() if name.lower() != "user-agent"
        )
        self._secrets = _secrets(headers, authentication)

    def send(
        self, sender: Sender, lines: bytes, body: bytes, timeout_seconds: float, endpoint: Endpoint | None = None
    ) -> Awaitable[Outcome]:
        """POST with these additions; `timeout_seconds` also covers fetching a token. See `Sender.send`.

        `endpoint` takes the place of `self.endpoint`: the same one, for a retry.
        """
        endpoint = endpoint or self.endpoint
        if self._tokens is None:
            return read_by(self._redacted, sender.send(endpoint, lines, body, timeout_seconds))
        return self._send_in_time(self._tokens, sender, endpoint, lines, body, timeout_seconds)

    def _redacted(self, outcome: Outcome) -> Outcome:
        return redact_echoes(outcome, self._secrets)

    async def _send_in_time(
        self, tokens: Tokens, sender: Sender, endpoint: Endpoint, lines: bytes, body: bytes, timeout_seconds: float
    ) -> Outcome:
        began = time.monotonic()
        outcome = await self._send_with_token(tokens, sender, _Request(endpoint, lines, body, began + timeout_seconds))
        return outcome._replace(milliseconds=milliseconds_since(began))

    async def _send_with_token(self, tokens: Tokens, sender: Sender, request: _Request) -> Outcome:
        deadline = request.deadline
        token = await tokens.get(sender, deadline)
        if isinstance(token, Outcome):
            return token
        outcome = await self._send_with(token, sender, request)
        if outcome.status != 401 or not tokens.may_replace(token):
            return outcome
        fresh = await tokens.get(sender, deadline, refused=token)
        if isinstance(fresh, Outcome):
            # A request was sent, so the attempt must be charged; LOCAL would give it back.
            return outcome if fresh.kind == OutcomeKind.LOCAL else fresh._replace(sent=True)
        return await self._send_with(fresh, sender, request)

    async def _send_with(self, token: Token, sender: Sender, request: _Request) -> Outcome:
        seconds = max(request.deadline - time.monotonic(), 0.0)
        outcome = await sender.send(request.endpoint, request.lines + token.line, request.body, seconds)
        secrets = sorted((*self._secrets, *spellings_of([token.value])), key=len, reverse=True)
        return redact_echoes(outcome, secrets)


def _authorization(authentication: Authentication) -> dict[str, str]:
    """Return the Authorization header, {} when it needs a token."""
    if isinstance(authentication, BearerToken):
        return {"authorization": f"Bearer {authentication.token}"}
    if isinstance(authentication, BasicAuth):
        pair = f"{authentication.username}:{authentication.password}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    return {}


def _user_agent(headers: Mapping[str, str]) -> str | None:
    """Return the subscription's own User-Agent, which takes the place of the relay's."""
    return next((value for name, value in headers.items() if name.lower() == "user-agent"), None)


def _secrets(headers: Mapping[str, str], authentication: Authentication | None) -> tuple[bytes, ...]:
    """Return what must be redacted in a receiver's answer, longest first."""
    values = [value for name, value in headers.items() if not name.lower().startswith("accept")]
    values += [value.partition(" ")[2] for name, value in headers.items() if name.lower() == "authorization"]
    if isinstance(authentication, BasicAuth):
        values.append(authentication.password)
    return spellings_of(value for value in values if len(value) >= MIN_REDACTED)
