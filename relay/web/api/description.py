"""The description of the API (OpenAPI 3.1): what all routes have in common, and the problems they answer with."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from relay.web.problems import ProblemDocument

__all__ = ["PROBLEMS", "describe"]

_NAME = "Problem"
_WORDS = {
    400: "The body is no JSON, or cannot be read.",
    401: "No valid token.",
    403: "The token has no right to this.",
    404: "There is no such thing of the token's tenant.",
    405: "Not with this method.",
    409: "It is not in a state in which this can be done.",
    412: "It was changed since it was read.",
    413: "The body is too long.",
    415: "The body is no application/json.",
    422: "A field was refused.",
    428: "If-Match is missing.",
    429: "Too many requests; Retry-After says when the next may be made.",
    500: "An unexpected error, which the log has under the request's id.",
    503: "The database cannot be asked, or is not set up.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": words,
        "content": {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{_NAME}"}}},
    }
    for status, words in _WORDS.items()
}

_ABOUT = """\
Everything that `relay` does on the command line. Send `Authorization: Bearer rtk_…`, a token of `relay tokens create`.

- What is of another tenant is not found, in the same words as what never existed.
- Lists come in pages: `next` is the link to the next one, as in the header `Link`.
- What is changed by PATCH or DELETE needs `If-Match`, the `ETag` of what was read.
- A POST that makes something takes an `Idempotency-Key`: within a day it is done once and answered alike.
- Each token may make so many requests a minute: `RateLimit` says how many are left.
- `X-Request-Id` is in every answer and in the log; send one of your own to find it there.
- Errors are problem documents (RFC 9457) with the field that is wrong and what mends it.
"""


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the description of an application, made once."""
    described: dict[str, Any] | None = app.openapi_schema
    if described is None:
        described = made = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        shape = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= shape.pop("$defs", {}) | {_NAME: shape}
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for operation in (one for methods in made["paths"].values() for one in methods.values()):
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
        app.openapi_schema = made
    return described


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that may be left out: in an address nothing is null."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    shown = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**shown, **kinds[0]}
