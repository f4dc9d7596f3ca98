"""Access tokens by client credentials (RFC 6749, section 4.4): fetched when needed, kept while valid.

A token is fetched through the sender that carries the events, so that the same address policy holds for its endpoint.
What comes back is a stranger's text: read with limits, never logged, never stored.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

from relay.http.sender import Endpoint
from relay.model.outcome import Outcome, OutcomeKind

if TYPE_CHECKING:
    from outbox.subscriptions.authentication import OAuth2ClientCredentials
    from relay.http.sender import Sender
    from relay.http.tls import ClientTLS

__all__ = ["Token", "Tokens", "token_in"]

MAX_TOKEN_CHARACTERS = 8192
MAX_VALID_SECONDS = 86_400.0
VALID_SECONDS_UNSAID = 300.0
"""How long a token is used that comes without `expires_in`."""

MARGIN_SECONDS = 30.0
"""How long before its end a token is no longer used; a tenth of its life where that is less."""

REPLACED_AFTER_SECONDS = 5.0
"""A token younger than this which the endpoint refuses is not replaced: another one would fare no better."""

_VISIBLE = re.compile(r"[!-~]+")
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; times are monotonic."""

    value: str = field(repr=False)
    fetched_at: float
    use_until: float

    @property
    def line(self) -> bytes:
        """The header line that carries it."""
        return f"authorization: Bearer {self.value}\r\n".encode("ascii")


class Tokens:
    """The token of one subscription. Whoever asks while one is being fetched waits for that one."""

    def __init__(self, credentials: OAuth2ClientCredentials, tls: ClientTLS | None) -> None:
        """Raises SubscriptionError when the token URL cannot be used."""
        self._endpoint = Endpoint.of(credentials.token_url, tls)
        self._lines, self._body = _request(credentials)
        self._token: Token | None = None
        self._fetching: asyncio.Future[Token | Outcome | None] | None = None

    async def get(self, sender: Sender, deadline: float, refused: Token | None = None) -> Token | Outcome:
        """Return a token other than the refused one, or the outcome of an attempt that ends for want of one.

        `deadline` is monotonic time. A failure is shared by all who waited for it.
        """
        while True:
            token = self._token
            if token is not None and token is not refused and time.monotonic() < token.use_until:
                return token
            if self._fetching is None:
                return await self._fetch(sender, deadline)
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    result = await asyncio.shield(self._fetching)
            except TimeoutError:
                return self._failure("no token in time")
            if result is not None:
                return result if isinstance(result, Token) else replace(result)

    def may_replace(self, refused: Token) -> bool:
        """Tell whether a token that the endpoint refused may be exchanged within the same attempt."""
        return refused is not self._token or time.monotonic() >= refused.fetched_at + REPLACED_AFTER_SECONDS

    async def _fetch(self, sender: Sender, deadline: float) -> Token | Outcome:
        shared = self._fetching = asyncio.get_running_loop().create_future()
        result: Token | Outcome | None = None  # stays None when this one is cancelled: the next one then fetches
        try:
            began = time.monotonic()
            said = await sender.send(self._endpoint, self._lines, self._body, deadline - began)
            result = self._read(said, began)
            if isinstance(result, Token):
                self._token = result
            return result
        finally:
            self._fetching = None
            shared.set_result(result)

    def _read(self, said: Outcome, now: float) -> Token | Outcome:
        if said.kind in (OutcomeKind.BLOCKED_ADDRESS, OutcomeKind.LOCAL):
            return self._failure(said.error or "", said)
        if said.kind != OutcomeKind.DELIVERED:
            code = _document(said.excerpt).get("error")
            known = f" ({code})" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""
            return self._failure(said.error or f"it answered {said.status}{known}", said)
        token = token_in(said.excerpt, now)
        return token if isinstance(token, Token) else self._failure(token, said)

    def _failure(self, error: str, said: Outcome | None = None) -> Outcome:
        """Return an attempt's outcome from the token endpoint's: without its headers and its text."""
        url = self._endpoint.url
        return Outcome(
            OutcomeKind.AUTHORIZATION
            if said is None or said.kind not in (OutcomeKind.BLOCKED_ADDRESS, OutcomeKind.LOCAL)
            else said.kind,
            None,
            0,
            f"no access token from {url.scheme}://{url.authority}: {error}",
            retry_after_seconds=None if said is None else said.retry_after_seconds,
            sent=False,
        )


def token_in(body: bytes, now: float) -> Token | str:
    """Return the token that the body of a 2xx holds, or why there is none to be used (RFC 6749, section 5.1)."""
    document = _document(body)
    value, kind = document.get("access_token"), document.get("token_type", "bearer")
    if not isinstance(value, str) or len(value) > MAX_TOKEN_CHARACTERS or not _VISIBLE.fullmatch(value):
        return "its answer holds no access_token that can be used"
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "its answer holds a token of another type than bearer"
    seconds = _valid_seconds(document.get("expires_in"))
    return Token(value, now, now + seconds - min(MARGIN_SECONDS, seconds / 10))


def _request(credentials: OAuth2ClientCredentials) -> tuple[bytes, bytes]:
    """Return the header lines and the form that ask for a token."""
    form = {"grant_type": "client_credentials"}
    lines = "content-type: application/x-www-form-urlencoded\r\naccept: application/json\r\n"
    if credentials.client_authentication == "basic":  # each half is form-encoded first (RFC 6749, section 2.3.1)
        pair = f"{quote_plus(credentials.client_id)}:{quote_plus(credentials.client_secret)}"
        lines += f"authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
    else:
        form |= {"client_id": credentials.client_id, "client_secret": credentials.client_secret}
    form |= {name: value for name in ("scope", "audience") if (value := getattr(credentials, name))}
    return lines.encode("ascii"), urlencode(form).encode("ascii")


def _document(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is; {} when it is something else, or was cut for its length."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _valid_seconds(value: object) -> float:
    """Return how long a token may be used; some servers write the number as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return VALID_SECONDS_UNSAID
    return float(min(value, MAX_VALID_SECONDS)) if value > 0 else 0.0  # NaN is not > 0 either
