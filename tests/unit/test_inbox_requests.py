"""A request of every framework becomes the same value: raw bytes, read once, bounded; anything else is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from django.core.handlers.wsgi import WSGIRequest
from starlette.requests import Request as StarletteRequest
from werkzeug.wrappers import Request as WerkzeugRequest

from outbox import ArgumentError
from outbox.inbox import Request, read
from outbox.inbox.refusals import BURST, MOST_SOURCES, Bound
from tests.support import django_site

django_site.begin()

BODY = b'{"a": "\xc3\xbc"}  '


def environ(body: bytes = BODY, **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "/app", "PATH_INFO": "/hooks", "QUERY_STRING": "token=secret",
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)), "HTTP_WEBHOOK_ID": "evt_1",
        "SERVER_NAME": "shop", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), **more,
    }  # fmt: skip


WSGI: dict[str, Callable[[dict[str, Any]], Any]] = {
    "WSGI": lambda given: given,
    "Django": WSGIRequest,
    "Werkzeug": WerkzeugRequest,
}


def asgi(*pieces: bytes, length: int | None = None) -> tuple[dict[str, Any], Callable[[], Any], list[dict[str, Any]]]:
    """A scope, its receive(), and what is left to be received."""
    left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:-1]]
    left.append({"type": "http.request", "body": pieces[-1], "more_body": False})
    headers = [(b"webhook-id", b"evt_1"), (b"content-type", b"application/json")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    scope = {"type": "http", "asgi": {}, "method": "POST", "path": "/hooks", "query_string": b"token=secret",
             "headers": headers, "server": ("shop", 80), "scheme": "http", "root_path": ""}  # fmt: skip
    return scope, receive, left


@pytest.mark.parametrize("framework", WSGI)
def test_a_synchronous_request_is_read_once_and_left_whole(framework: str) -> None:
    given = environ()
    theirs = WSGI[framework](given)
    request = Request.of(theirs)
    assert (request.method, request.path, request.body) == ("POST", "/app/hooks", BODY)
    assert request.header("webhook-id") == "evt_1"
    assert request.header("Content-Type") == "application/json"
    again = {"WSGI": lambda: theirs["wsgi.input"].read(), "Django": lambda: theirs.body,
             "Werkzeug": lambda: theirs.get_data()}[framework]  # fmt: skip
    assert again() == BODY
    assert Request.of(request) is request


@pytest.mark.parametrize("framework", WSGI)
def test_a_body_that_is_too_large_is_not_read(framework: str) -> None:
    given = environ()
    request = Request.of(WSGI[framework](given), max_bytes=len(BODY) - 1)
    assert (request.too_large, request.body, request.size) == (True, b"", len(BODY))
    assert given["wsgi.input"].tell() == 0
    assert not Request.of(WSGI[framework](environ()), max_bytes=len(BODY)).too_large


@pytest.mark.parametrize("framework", ["WSGI", "Werkzeug"])
def test_a_body_of_unknown_length_is_bounded(framework: str) -> None:
    without = environ(**{"wsgi.input_terminated": True})
    del without["CONTENT_LENGTH"]
    assert Request.of(WSGI[framework](without | {"wsgi.input": io.BytesIO(BODY)})).body == BODY
    assert Request.of(WSGI[framework](without | {"wsgi.input": io.BytesIO(BODY)}), max_bytes=5).too_large


@pytest.mark.parametrize("framework", WSGI)
def test_a_body_that_was_read_before_is_refused(framework: str) -> None:
    given = environ(CONTENT_TYPE="application/x-www-form-urlencoded")
    theirs = WSGI[framework](given)
    {"WSGI": given["wsgi.input"].read, "Django": getattr(theirs, "read", None), "Werkzeug": lambda: theirs.form}[
        framework
    ]()  # type: ignore[misc]
    with pytest.raises(ArgumentError, match="read before and not kept"):
        Request.of(theirs)


def test_starlettes_is_read_once_and_left_whole() -> None:
    async def run() -> None:
        scope, receive, _ = asgi(BODY[:3], BODY[3:])
        theirs = StarletteRequest(scope, receive)
        request = await read(theirs)
        assert (request.method, request.path, request.body) == ("POST", "/hooks", BODY)
        assert (request.header("Webhook-Id"), await theirs.body()) == ("evt_1", BODY)
        assert (await read(theirs)).body == BODY

    anyio.run(run)


def test_asgis_is_read_and_bounded() -> None:
    async def run() -> None:
        scope, receive, left = asgi(BODY[:3], BODY[3:], b"x" * 9)
        assert (await read(scope, receive, max_bytes=4)).too_large
        assert left
        scope, receive, left = asgi(BODY, length=len(BODY))
        assert (await read(scope, receive, max_bytes=4)).size == len(BODY)
        assert left
        assert (await read(scope, receive)).body == BODY

    anyio.run(run)


def test_starlettes_is_bounded_and_a_consumed_one_refused() -> None:
    async def run() -> None:
        scope, receive, _ = asgi(BODY[:3], BODY[3:])
        assert (await read(StarletteRequest(scope, receive), max_bytes=4)).too_large
        scope, receive, _ = asgi(BODY)
        theirs = StarletteRequest(scope, receive)
        async for _ in theirs.stream():
            pass
        with pytest.raises(ArgumentError, match="read before and not kept"):
            await read(theirs)

    anyio.run(run)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"a": 1}, "not its body or parsed JSON"),
        (b"{}", "not its body or parsed JSON"),
        (None, "outbox.inbox.Request"),
        (StarletteRequest(asgi(b"")[0]), r"await outbox\.inbox\.read\(request\)"),
        (asgi(b"")[0], r"await outbox\.inbox\.read\(scope, receive\)"),
    ],
)
def test_what_is_no_request_is_refused_with_the_mend(given: Any, why: str) -> None:
    with pytest.raises(ArgumentError, match=why):
        Request.of(given)


@pytest.mark.parametrize("body", ['{"a":1}', {"a": 1}, None])
def test_a_body_that_is_not_raw_is_refused(body: Any) -> None:
    with pytest.raises(ArgumentError, match="body: pass the raw bytes"):
        Request("POST", "/", {}, body)


@pytest.mark.parametrize("headers", [1, ["ab", 1], {"a": 1}])
def test_headers_are_pairs_of_text(headers: Any) -> None:
    with pytest.raises(ArgumentError, match="headers: pass a mapping or pairs"):
        Request("POST", "/", headers, b"")


def test_a_request_shows_neither_body_nor_headers() -> None:
    assert "secret" not in repr(Request("POST", "/", {"authorization": "secret"}, b"secret"))


def test_refused_requests_get_so_many_rows_and_the_next_row_counts_the_others() -> None:
    now = 1000.0
    bound = Bound(lambda: now)
    assert [bound.take("n8n") for _ in range(BURST + 5)] == [0] * BURST + [None] * 5
    assert bound.take("other") == 0
    now += 6.0
    assert [bound.take("n8n") for _ in range(2)] == [5, None]


def test_sources_that_somebody_makes_up_share_one_bucket() -> None:
    bound = Bound(lambda: 0.0)
    assert {bound.take(f"s{number}") for number in range(MOST_SOURCES)} == {0}
    made_up = [bound.take(f"made-up-{number}") for number in range(BURST + 5)]
    assert made_up == [0] * BURST + [None] * 5
    assert bound.take("s0") == 0
