"""Pass received webhooks on to an application on this machine, by relay.http, and bring its answers back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from outbox.subscriptions.addresses import AddressPolicy
from relay.config.option import ConfigError
from relay.http.configured import USER_AGENT
from relay.http.dial import DialError, DirectDialler, check_url, checked_addresses
from relay.http.sender import Endpoint, HttpSender
from relay.local.receiver.server import Request, Response
from relay.model.outcome import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outbox.subscriptions.addresses import Network

__all__ = ["Forwarded", "Forwarder"]

LOOPBACK = ("127.0.0.0/8", "::1/128")
TIMEOUT_SECONDS = 60.0
MAX_ANSWER_BYTES = 1_048_576
_LOOKUP_SECONDS = 10.0

# RFC 9110, 7.6.1: these are of one connection. The sender writes host and content-length itself.
_HOP_BY_HOP = frozenset({
    "connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
    "trailer", "transfer-encoding", "upgrade", "host", "content-length",
})  # fmt: skip


class _OnlyNamed(AddressPolicy):
    """Allows this machine and the networks that were named: a webhook under test is passed on to nobody else."""

    def refusal(self, address: object) -> str | None:
        """Return why this address may not be dialled."""
        text = str(address)
        if super().refusal(text) is None and self.adds(text):
            return None
        return f"{text} is not this machine; --allow-networks with its network permits it"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the application answered; `failure` says why it did not, '' when it did, and then `response` is ours."""

    response: Response
    failure: str = ""


class Forwarder:
    """Passes requests on to one URL, each over a connection of its own; belongs to one event loop.

    The URL is used as it was given, whatever the path of the request. Body and headers go on byte for byte, without
    those of one connection. `networks` may be called besides this machine.

    Raises:
        ConfigError: the URL is none, or leads elsewhere.
    """

    def __init__(self, url: str, networks: Iterable[str | Network] = ()) -> None:
        if "://" not in url:
            raise ConfigError("--forward: must begin with http:// or https://")
        try:
            self._endpoint = Endpoint.of(url)
        except SubscriptionError as error:
            raise ConfigError(f"--forward: {str(error).removeprefix('url: ')}") from None
        self._dialler = DirectDialler(_OnlyNamed((*LOOPBACK, *networks), allow_http=True))
        self._sender = HttpSender(self._dialler, user_agent=USER_AGENT, max_resting=0, excerpt_bytes=MAX_ANSWER_BYTES)

    @property
    def url(self) -> str:
        """Return where requests go."""
        return self._endpoint.url.text

    async def check(self, port: int) -> None:
        """Raise ConfigError when nothing may go to the URL as its name resolves now, or it leads back to `port`."""
        url, deadline = self._endpoint.url, asyncio.get_running_loop().time() + _LOOKUP_SECONDS
        try:
            check_url(self._dialler.policy, url)
            addresses = await checked_addresses(self._dialler.policy, self._dialler.resolve, url.host, deadline)
        except DialError as error:
            raise ConfigError(f"--forward: {error}") from None
        if url.port == port and "127.0.0.1" in addresses:
            raise ConfigError(f"--forward: port {port} is our own; give that of the application")

    async def forward(self, request: Request) -> Forwarded:
        """POST the request to the URL and return the answer; 502 where there is none, 504 where it takes too long."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in _end_to_end(request.headers.items()))
        endpoint = replace(self._endpoint, fixed=lines.encode("latin-1"))
        outcome = await self._sender.send(endpoint, b"", request.body, TIMEOUT_SECONDS)
        if outcome.status is None:
            return _failed(outcome)
        return Forwarded(Response(outcome.status, outcome.excerpt, tuple(_headers_of(outcome))))

    async def close(self) -> None:
        """Stop looking names up."""
        await self._sender.close()


def _failed(outcome: Outcome) -> Forwarded:
    late = outcome.kind is OutcomeKind.TIMEOUT
    status = HTTPStatus.GATEWAY_TIMEOUT if late else HTTPStatus.BAD_GATEWAY
    failure = f"not forwarded: {outcome.error or outcome.kind}" if not outcome.sent else f"no answer: {outcome.error}"
    return Forwarded(Response(status, f"{failure}\n".encode()), failure)


def _headers_of(outcome: Outcome) -> Iterable[tuple[str, str]]:
    """Return the headers of an answer that are for its reader, those within the bytes that are kept of it."""
    fields = [line.partition(":") for line in (outcome.headers or "").split("\n")[1:-1]]
    return _end_to_end((name.strip().lower(), value.strip()) for name, colon, value in fields if colon)


def _end_to_end(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    pairs = list(headers)
    named = {name.strip().lower() for key, value in pairs if key == "connection" for name in value.split(",")}
    return ((name, value) for name, value in pairs if name not in _HOP_BY_HOP | named)
