"""Send calls, from code without an event loop or with one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from outbox._version import __version__
from outbox.errors import ArgumentError
from outbox.secret import Secret
from relay.client.call import ApiUnreachableError, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from outbox.control.pages import Page
    from relay.client.call import Call

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")
_PREFIX = "/api/v1"
_CONNECT_SECONDS = 30

_TOKEN = re.compile(r"[\x21-\x7e]+")


class _Options:
    """What both clients are made of."""

    def __init__(self, url: str, token: str | Secret, timeout_seconds: float) -> None:
        if not url.startswith(("https://", "http://")):
            raise ArgumentError("api: is no URL; give where `relay serve` answers, such as https://relay.internal")
        secret = token.reveal() if isinstance(token, Secret) else token
        if not isinstance(secret, str) or not _TOKEN.fullmatch(secret):  # which is not shown
            raise ArgumentError("token: is no token; give what `relay tokens create` showed, rtk_…, alone")
        self.arguments: dict[str, Any] = {
            "base_url": url.rstrip("/").removesuffix(_PREFIX) + _PREFIX,
            "headers": {"Authorization": f"Bearer {secret}", "User-Agent": f"outbox-relay-client/{__version__}"},
            "timeout": httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS)),
        }


def _request(call: Call[Any]) -> dict[str, Any]:
    kind = {} if call.body is None else {"Content-Type": "application/json"}
    query = {name: _text(value) for name, value in call.query.items() if value is not None}
    return {"method": call.method, "url": call.path, "params": query, "content": call.content,
            "headers": {**kind, **call.headers}}  # fmt: skip


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _result(call: Call[T], answer: httpx.Response) -> T:
    if not answer.is_success:
        raise problem_of(answer.status_code, answer.content, answer.headers)
    try:
        document = json.loads(answer.content)
    except ValueError:
        raise problem_of(answer.status_code, answer.content, answer.headers) from None
    return call.read(document, answer.headers)


def _unreachable(error: httpx.HTTPError) -> ApiUnreachableError:
    return ApiUnreachableError(f"api: {type(error).__name__}: {error}; check its URL, and that relay serve runs")


class Client:
    """Sends calls, each of which returns its result or raises.

    Args:
        url: where `relay serve` answers.
        token: of `relay tokens create`.
        timeout_seconds: of one call.
        transport: httpx's, for tests and proxies.

    Raises:
        ApiError: the API refused a call.
        ApiUnreachableError: nothing answered as it does.
    """

    def __init__(
        self,
        url: str,
        token: str | Secret,
        *,
        timeout_seconds: float = 30,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(**_Options(url, token, timeout_seconds).arguments, transport=transport)

    def __call__(self, call: Call[T]) -> T:
        """Send a call and return its result."""
        try:
            answer = self._http.request(**_request(call))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return _result(call, answer)

    def pages(self, call: Call[Page[T]]) -> Iterator[T]:
        """Yield every item of a list, page by page."""
        while True:
            page = self(call)
            yield from page
            if page.next is None:
                return
            call = call.after(page.next)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class AsyncClient:
    """The same as `Client`, for code with an event loop."""

    def __init__(
        self,
        url: str,
        token: str | Secret,
        *,
        timeout_seconds: float = 30,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**_Options(url, token, timeout_seconds).arguments, transport=transport)

    async def __call__(self, call: Call[T]) -> T:
        """Send a call and return its result."""
        try:
            answer = await self._http.request(**_request(call))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return _result(call, answer)

    async def pages(self, call: Call[Page[T]]) -> AsyncIterator[T]:
        """Yield every item of a list, page by page."""
        while True:
            page = await self(call)
            for item in page:
                yield item
            if page.next is None:
                return
            call = call.after(page.next)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()
