"""Errors of outbox as FastAPI's own: 422 that names the field, 404, 409, 429, 503, 504, in the application's style."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from outbox.errors import (
    BusyError,
    ByHandError,
    FilterError,
    NoAnswerError,
    NotFoundError,
    OutboxError,
    ProbeError,
    RecordError,
    ReplayError,
    SubscriptionError,
)

__all__ = ["route_class"]

_REFUSED = (SubscriptionError, RecordError, FilterError)
_STATUSES: tuple[tuple[type[OutboxError], int], ...] = (
    (NotFoundError, 404), (ByHandError, 409), (ReplayError, 409), (NoAnswerError, 504), (ProbeError, 429),
    (BusyError, 503),
)  # fmt: skip
_LATER = {503: {"Retry-After": "5"}}
_IN_QUERY = {"after", "limit", "offset"}
_FIELD = re.compile(r"([a-z_]+)[^:]*: ")


def route_class(names: Mapping[str, str]) -> type[APIRoute]:
    """Return the class of routes that put errors so; `names` are those of fields that the API calls otherwise.

    What was given is in no error: it may hold a secret.
    """

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                try:
                    return await handle(request)
                except RequestValidationError as error:
                    raise RequestValidationError([_without_input(one) for one in error.errors()]) from None
                except _REFUSED as error:
                    raise RequestValidationError([_refusal(str(error), names)]) from None
                except OutboxError as error:
                    if (status := _status_of(error)) is None:
                        raise
                    raise HTTPException(status, str(error), _LATER.get(status)) from error

            return answer

    return Route


def _without_input(error: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in error.items() if name != "input"}


def _refusal(text: str, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a refusal as FastAPI has it: `field: what is wrong` with the place of the field."""
    found = _FIELD.match(text)
    field = found[1] if found else ""
    named = names.get(field, field)
    place = ("query", named) if named in _IN_QUERY else ("body", named) if named else ("body",)
    return {"type": "value_error", "loc": place, "msg": f"{named}{text[len(field) :]}"}


def _status_of(error: OutboxError) -> int | None:
    """Return the status to answer with; None for a mistake in the program, which stays what it is."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
