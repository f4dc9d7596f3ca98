"""Fetch access tokens by client credentials (RFC 6749, section 4.4) when needed, and keep them while they are valid.

A token is fetched through the sender of the events, so the same address policy holds for the token URL. Its answer is
not trusted: it is read with limits, never logged, never stored.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field
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
DEFAULT_VALID_SECONDS = 300.0
"""How long a token is used when its answer has no `expires_in`."""

MARGIN_SECONDS = 30.0
"""A token is not used so long before its end, or for the last tenth of its life where that is less."""

REPLACED_AFTER_SECONDS = 5.0
"""A refused token that is younger than this is not replaced: another one would be refused too."""

_OUR_OWN = frozenset({OutcomeKind.BLOCKED_ADDRESS, OutcomeKind.LOCAL, OutcomeKind.STOOD_STILL})
_VISIBLE = re.compile(r"[!-~]+")
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Token:
    """An access token. Its times are this process's monotonic time."""

    value: str = field(repr=False)
    fetched_at: float
    use_until: float

    @property
    def line(self) -> bytes:
        """The header line that carries it."""
        return f"authorization: Bearer {self.value}\r\n".encode("ascii")


class Tokens:
    """The token of one subscription. While one is being fetched, everyone waits for that one."""

    def __init__(
        self,
        credentials: OAuth2ClientCredentials,
        tls: ClientTLS | None,
        owner: bytes = b"",
        user_agent: str | None = None,
    ) -> None:
        """Raises SubscriptionError when the token URL cannot be used. `owner`, `user_agent`: see `Endpoint.of`."""
        self._endpoint = Endpoint.of(credentials.token_url, tls, owner, user_agent)
        self._lines, self._body = _request(credentials)
        self._token: Token | None = None
        self._fetching: asyncio.Future[Token | Outcome | None] | None = None

    async def get(self, sender: Sender, deadline: float, refused: Token | None = None) -> Token | Outcome:
        """Return a token other than the refused one, fetched if needed, or the outcome of the attempt without one.

        `deadline` is monotonic time. All attempts that waited for a failed fetch share its failure.
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
                return result

    def may_replace(self, refused: Token) -> bool:
        """Tell whether a refused token may be replaced within the same attempt."""
        return refused is not self._token or time.monotonic() >= refused.fetched_at + REPLACED_AFTER_SECONDS

    async def _fetch(self, sender: Sender, deadline: float) -> Token | Outcome:
        shared = self._fetching = asyncio.get_running_loop().create_future()
        result: Token | Outcome | None = None  # stays None when this attempt is cancelled: another one then fetches
        try:
            began = time.monotonic()
            answer = await sender.send(self._endpoint, self._lines, self._body, deadline - began)
            result = self._read(answer, began)
            if isinstance(result, Token):
                self._token = result
            return result
        finally:
            self._fetching = None
            shared.set_result(result)

    def _read(self, answer: Outcome, now: float) -> Token | Outcome:
        if answer.kind in _OUR_OWN:
            return self._failure(answer.error or "", answer)
        if answer.kind != OutcomeKind.DELIVERED:
            code = _document(answer.excerpt).get("error")
            known = f" ({code})" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""
            return self._failure(answer.error or f"it answered {answer.status}{known}", answer)
        token = token_in(answer.excerpt, now)
        return token if isinstance(token, Token) else self._failure(token, answer)

    def _failure(self, error: str, answer: Outcome | None = None) -> Outcome:
        """Return the attempt's outcome, without headers and text of the token URL's answer."""
        url = self._endpoint.url
        return Outcome(
            OutcomeKind.AUTHORIZATION if answer is None or answer.kind not in _OUR_OWN else answer.kind,
            None,
            0,
            f"no access token from {url.scheme}://{url.authority}: {error}",
            retry_after_seconds=None if answer is None else answer.retry_after_seconds,
            sent=False,
        )


def token_in(body: bytes, now: float) -> Token | str:
    """Return the token in the body of a 2xx answer, or why it has none that can be used (RFC 6749, section 5.1)."""
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
    """Parse a body as a JSON object; {} when it is something else, or was cut."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _valid_seconds(value: object) -> float:
    """Return how many seconds a token may be used; some servers write the number as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DEFAULT_VALID_SECONDS
    return float(min(value, MAX_VALID_SECONDS)) if value > 0 else 0.0  # NaN is not > 0 either
