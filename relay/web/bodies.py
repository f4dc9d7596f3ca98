"""The body of a request: JSON with exact numbers, and the text of one member as it was written."""

import json
import re
from collections.abc import Callable, Coroutine
from datetime import datetime
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, but not in the stubs
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from outbox.recording.raw_json import depth
from outbox.subscriptions.filters import read_filter
from relay.web.access import identify
from relay.web.admission import admitted
from relay.web.problems import Problem

__all__ = ["Body", "ExactRoute", "Instant", "WrittenData", "data_of"]

_MAX_DEPTH = 200
_BLANKS = " \t\n\r"
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s\";]*)")


def _time_text(value: object) -> object:
    """Refuse a number, which pydantic would take as seconds since 1970, and digits in a text."""
    if not isinstance(value, str) or not re.match(r"\d{4}-", value):
        raise ValueError("is not a time as RFC 3339 writes it, like 2026-01-31T12:00:00Z")
    return value


Instant = Annotated[datetime, Field(strict=False), BeforeValidator(_time_text)]
"""A time in a body."""


class Body(BaseModel):
    """A request's body: nothing unknown in it, no number as text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _an_object(cls, value: object) -> object:
        """Refuse what is no object: FastAPI lets pydantic read the attributes of anything, of a Decimal too."""
        if not isinstance(value, dict):
            raise ValueError("is not an object")  # noqa: TRY004 - pydantic's way to refuse
        return value


class ExactRoute(APIRoute):
    """A route whose JSON keeps its numbers exact, refuses a key that comes twice, and wants its content type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, for requests that read JSON so."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            exact = _ExactRequest(request.scope, request.receive)
            if self.methods != {"GET"}:
                await run_in_threadpool(identify, exact)  # before a body of somebody who may not send one is read
                if self.body_field is not None:
                    _require_json(exact)
                await exact.body()  # before there is a connection, which a slow body would hold
            async with admitted(exact):
                return await handler(exact)

        return handle


class _ExactRequest(Request):
    async def json(self) -> Any:
        return await run_in_threadpool(_parse, await self.body())


def _require_json(request: Request) -> None:
    """Refuse a body that says to be something else than JSON in UTF-8, or says nothing. Raises Problem."""
    headers = request.headers
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    is_sent = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if encoding != "identity":
        seen = f"content-encoding: is {ascii(encoding)[:60]}"
    elif (kind.strip() or is_sent) and kind.strip() != "application/json":
        seen = f"content-type: is {ascii(kind.strip())[:60]}" if kind.strip() else "content-type: is missing"
    elif (charset := _CHARSET.search(parameters)) and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        seen = f"content-type: charset is {ascii(charset[1])[:60]}"
    else:
        return
    raise Problem(415, "unsupported-media-type", seen, mend="send application/json in UTF-8, as it is")


def _parse(body: bytes) -> Any:
    """Return the parsed body. Raises JSONDecodeError, which FastAPI tells from every other error."""
    try:
        text = body.decode()
        if depth(text) <= _MAX_DEPTH:
            return read_filter(text)
    except ValueError:
        pass
    raise json.JSONDecodeError("no JSON", "", 0)


async def _written_data(request: Request) -> str | None:
    """Return the text of the member `data` as it stands in the body; None without one, and of what is no object."""
    text = (await request.body()).decode(errors="replace").lstrip(_BLANKS)
    try:
        return _member(text, "data") if text.startswith("{") else None
    except (ValueError, RecursionError):  # it is no JSON, and refused as such
        return None


def data_of(body: Body, written: str | None) -> str:
    """Return the data as written, `null` where there are none. Raises Problem rather than to take others for them."""
    if written is None and "data" in body.model_fields_set:
        raise Problem(422, "invalid", "data: cannot be read as it was written", mend="send it as plain JSON in UTF-8")
    return "null" if written is None else written


WrittenData = Annotated[str | None, Depends(_written_data)]
"""The member `data` of the body, as it was written: what is recorded keeps its spelling."""


def _member(text: str, wanted: str) -> str | None:
    """Return the text of a member of an object, which was parsed before and has no key twice."""
    decoder, at = json.JSONDecoder(parse_int=str, parse_float=str), _skip(text, 0, "{")
    while text[at : at + 1] == '"':
        name, at = scanstring(text, at + 1)
        start = _skip(text, at, ":")
        _, end = decoder.raw_decode(text, start)
        if name == wanted:
            return text[start:end]
        at = _skip(text, end, ",")
    return None


def _skip(text: str, at: int, character: str) -> int:
    """Return where the text goes on after blanks, this character, and blanks."""
    while text[at : at + 1] in (*_BLANKS, character) and at < len(text):
        at += 1
    return at
