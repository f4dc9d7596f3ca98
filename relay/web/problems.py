"""Errors as problem documents (RFC 9457), with the field that is wrong and what mends it; never a secret."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

__all__ = ["Problem", "problem_response"]


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """What a request is answered with instead of a result. `detail` reads "field: what is wrong"."""

    def __init__(
        self, status: int, code: str, detail: str, *, mend: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.mend = mend
        self.headers = dict(headers or {})


def problem_response(_request: Request, problem: Problem) -> JSONResponse:
    """Return the document of a problem."""
    field, separator, _ = problem.detail.partition(": ")
    document: dict[str, Any] = {
        "type": f"urn:outbox-relay:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "field": field if separator else None,
        "mend": problem.mend or None,
    }
    return JSONResponse(document, problem.status, problem.headers, "application/problem+json")
