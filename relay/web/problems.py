"""Errors as problem documents (RFC 9457), with the field that is wrong and what mends it; never a secret.

Every answer that is no result is made here. Errors of ours say "field: what is wrong; what mends it", and so do these.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from outbox.control.filters import FilterError
from outbox.errors import (
    ActorError,
    ArgumentError,
    NotFoundError,
    OutboxError,
    PayloadTooLarge,
    RecordError,
    SchemaError,
    SubscriptionError,
)
from relay.config.option import ConfigError
from relay.operations.api_requests import UnderWayError
from relay.operations.denied_rights import RightsError
from relay.operations.endpoint_tests.tested_subscription import ProbeError
from relay.operations.outages import outage_of, took_too_long
from relay.operations.tenant_retention import TenantRetentionError
from relay.operations.tokens import TokenError
from relay.telemetry.redaction import redact

__all__ = ["Problem", "ProblemDocument", "add_handlers", "invalid", "log_fields", "of_database", "problem_response"]

log = logging.getLogger("relay.web")

JSON = "application/problem+json"


class WrongField(BaseModel):
    """One field that is wrong, and why."""

    field: str | None
    detail: str


class ProblemDocument(BaseModel):
    """Why there is no result (RFC 9457): `field` names what is wrong, `mend` says what to do."""

    type: str = Field(
        description="A name that stays, urn:outbox-relay:problem:…", examples=["urn:outbox-relay:problem:invalid"]
    )
    title: str
    status: int
    detail: str
    field: str | None
    mend: str | None
    request_id: str
    errors: list[WrongField] | None = Field(
        None, description="All that is wrong with a request, where it is more than one."
    )


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """What a request is answered with instead of a result. `detail` reads "field: what is wrong"."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        mend: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str | None, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.mend = mend
        self.headers = dict(headers or {})
        self.errors = errors


def log_fields(request: Request) -> dict[str, str]:
    """Return the fields that a line of the log about this request has, for `extra=`."""
    return {"request_id": request.scope.get("state", {}).get("request_id", "")}


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """Return the document of a problem."""
    field, separator, _ = problem.detail.partition(": ")
    document: dict[str, Any] = {
        "type": f"urn:outbox-relay:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "field": field if separator else None,
        "mend": problem.mend or None,
        **log_fields(request),
    }
    if len(problem.errors) > 1:
        document["errors"] = [{"field": field, "detail": detail} for field, detail in problem.errors]
    return JSONResponse(document, problem.status, problem.headers, JSON)


_OF_OURS: dict[type[OutboxError], tuple[int, str]] = {
    NotFoundError: (404, "not-found"),
    PayloadTooLarge: (413, "too-large"),
    RecordError: (422, "invalid"),
    SubscriptionError: (422, "invalid"),
    FilterError: (422, "invalid"),
    ActorError: (422, "invalid"),
    TokenError: (422, "invalid"),
    ArgumentError: (422, "invalid"),
    TenantRetentionError: (422, "invalid"),
    UnderWayError: (409, "conflict"),
    ProbeError: (429, "too-many-requests"),
    OutboxError: (409, "conflict"),  # a state in which this cannot be done: replay, retry, cancel, a missing key
}
_OF_THE_SERVER = (SchemaError, RightsError, ConfigError)


def invalid(error: OutboxError) -> Problem:
    """Return the problem of a body whose fields do not fit each other."""
    detail, _, mend = str(error).partition("; ")
    return Problem(422, "invalid", detail, mend=mend)


def _of_error(request: Request, error: OutboxError) -> Problem:
    if isinstance(error, _OF_THE_SERVER):
        log.error(
            "%s", error, extra=log_fields(request)
        )  # it names the database and its roles, which are the operator's
        return Problem(
            503,
            "unavailable",
            "server: is not set up as it should be",
            mend="ask its operator: its log says what is missing",
        )
    status, code = next(_OF_OURS[kind] for kind in type(error).__mro__ if kind in _OF_OURS)
    detail, _, mend = str(error).partition("; ")
    return Problem(status, code, detail, mend=mend, headers={"Retry-After": "60"} if status == 429 else None)


_WHO_LOCKS = "pg_blocking_pids(pid) of pg_stat_activity names it"


def of_database(request: Request, error: SQLAlchemyError, *, for_operator: bool) -> Problem:
    """Return the problem of an error of the database, which is logged: 503 where it gives no result now, else 500.

    What a person has to mend is told to the operator only.
    """
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or ""
    said = redact(str(original or error).strip().splitlines()[0])
    log.error("database: %s %s", state, said, extra=log_fields(request))
    if took_too_long(error):
        mend = "narrow it with filters or a smaller limit"
        if for_operator:
            mend += f"; where no filter helps, another session may hold a lock: {_WHO_LOCKS}"
        return Problem(503, "unavailable", "database: took too long", mend=mend)
    if state == "55P03":
        mend = f"end that session, or let it end: {_WHO_LOCKS}" if for_operator else "try again later"
        seen = "database: another session holds a lock that this waits for"
        return Problem(503, "unavailable", seen, mend=mend, headers={"Retry-After": "2"})
    outage = outage_of(error)
    if outage is None:
        return unexpected()
    mend = "try again" if not outage.mend else outage.mend if for_operator else "try again later"
    headers = {"Retry-After": "60" if outage.mend else "2"}
    return Problem(503, "unavailable", f"database: {outage.seen}", mend=mend, headers=headers)


def unexpected() -> Problem:
    """Return the problem for an error of our own, which is in the log."""
    return Problem(
        500, "unexpected", "server: an unexpected error", mend="tell its operator the request_id: the log has it"
    )


_ROOTS = ("body", "query", "path", "header", "cookie")


def _of_validation(error: RequestValidationError) -> Problem:
    found = [(_field_of(one["loc"]), _words_of(one)) for one in error.errors()[:20]]
    if any(one["type"] == "json_invalid" for one in error.errors()):
        seen = "body: is no JSON that can be read: not RFC 8259, a key that comes twice, or nested too deeply"
        return Problem(400, "no-json", seen, mend="send one JSON object in UTF-8")
    field, words = found[0]
    return Problem(422, "invalid", f"{field}: {words}", mend="see /api/v1/docs for what it takes", errors=found)


def _field_of(loc: Sequence[int | str]) -> str:
    steps = loc[1:] if loc[0] in _ROOTS and len(loc) > 1 else loc
    return ".".join(str(step) for step in steps)[:200]


def _words_of(one: Mapping[str, Any]) -> str:
    """Return pydantic's words, which do not quote the value."""
    words = str(one["msg"]).removeprefix("Value error, ")
    return words[:1].lower() + words[1:]


_OF_HTTP = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}


def _of_http(request: Request, error: HTTPException) -> Problem:
    code = _OF_HTTP.get(error.status_code, "refused")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(request.app.state.methods_at(request.scope))
        return Problem(
            405, code, f"method: {request.method} is not for this path", mend=f"use {headers['Allow']}", headers=headers
        )
    if error.status_code == 404:
        return Problem(404, code, "path: there is nothing here", mend="see /api/v1/docs for what there is")
    return Problem(error.status_code, code, f"request: {str(error.detail)[:200]}", headers=headers)


def _of_call(request: Request, error: SQLAlchemyError) -> Problem:
    """Return the problem of a call that the database failed; its principal is known where that could still be asked."""
    principal = getattr(request.state, "principal", None)
    is_operator = principal is not None and principal.tenant is None
    return of_database(request, error, for_operator=is_operator)


def add_handlers(app: FastAPI) -> None:
    """Let an application answer every error by a problem document."""

    def answered(make: Callable[[Request, Any], Problem]) -> Callable[[Request, Exception], JSONResponse]:
        return lambda request, error: problem_response(request, make(request, error))

    app.add_exception_handler(Problem, answered(lambda _, problem: problem))
    app.add_exception_handler(OutboxError, answered(_of_error))
    app.add_exception_handler(SQLAlchemyError, answered(_of_call))
    app.add_exception_handler(RequestValidationError, answered(lambda _, error: _of_validation(error)))
    app.add_exception_handler(HTTPException, answered(_of_http))
