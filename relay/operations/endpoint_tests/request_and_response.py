"""The request of a test message and its answer, for people to find a fault. Credentials and cookies are redacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.formats import REDACTED
from outbox.signing.schemes import written_headers
from relay.http.configured import USER_AGENT
from relay.http.sender import fixed_lines
from relay.message.echoes import redact
from relay.operations.endpoint_tests.documents import ReceivedResponse, SentRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.http.sender import Endpoint, Sender
    from relay.model.outcome import Outcome

__all__ = ["Recorder", "response_of"]

# Of these names a subscription's own headers can only have User-Agent; what is not known to be harmless is redacted.
_HARMLESS = {"host", "user-agent", "accept-encoding", "content-type", "content-length"}


class Recorder:
    """Passes requests on, and keeps what the one to the subscription's endpoint looked like."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._sent: list[tuple[Endpoint, bytes, bytes]] = []

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        """Keep the request, then send it."""
        self._sent.append((endpoint, headers, body))
        return await self._sender.send(endpoint, headers, body, timeout_seconds)

    @property
    def last_body(self) -> str | None:
        """The body of the last request, nothing of it redacted; None where there was none."""
        return self._sent[-1][2].decode("utf-8", "backslashreplace") if self._sent else None

    async def close(self) -> None:
        """Close the sender."""
        await self._sender.close()

    def request(self, endpoint: Endpoint, url: str, secrets: Sequence[bytes]) -> SentRequest | None:
        """Return the last request to this endpoint; None when there was none, as where no token was to be had.

        `url` is the endpoint's as it may be shown; `secrets` are redacted in the body (see `redact`).
        """
        for to, headers, body in reversed(self._sent):
            if to is endpoint:
                return _request_of(endpoint, url, headers, redact(body, secrets), len(body))
        return None


def _request_of(endpoint: Endpoint, url: str, headers: bytes, body: bytes, size: int) -> SentRequest:
    fixed = endpoint.fixed or fixed_lines(USER_AGENT)
    first, *lines = (endpoint.prefix + fixed + headers).decode("latin-1").split("\r\n")[:-1]
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    pairs.append(("content-length", str(size)))
    harmless = (_HARMLESS | written_headers()) - ({"user-agent"} if endpoint.fixed else set())
    return SentRequest(
        method=first.partition(" ")[0],
        url=url,
        headers=tuple((name, value if name.lower() in harmless else REDACTED) for name, value in pairs),
        body=body.decode("utf-8", "backslashreplace"),
    )


def response_of(outcome: Outcome) -> ReceivedResponse | None:
    """Return what came back; None where the address was forbidden or nothing came."""
    if outcome.kind == "blocked_address" or (outcome.headers is None and not outcome.excerpt):
        return None
    status_line, *lines = (outcome.headers or "").rstrip("\r\n").split("\r\n")
    pairs = ((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    return ReceivedResponse(
        status_line=status_line or None,
        headers=tuple(
            (name, _redact_cookie(value) if name.lower() == "set-cookie" else value) for name, value in pairs
        ),
        excerpt=outcome.excerpt.decode("utf-8", "backslashreplace"),
    )


def _redact_cookie(value: str) -> str:
    name, separator, _ = value.partition("=")
    return f"{name}={REDACTED}" if separator else REDACTED  # without a name it is all value (RFC 6265bis)
