"""The page of the explorer, made from the description, and its two files."""

from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, PackageLoader, select_autoescape

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_KINDS = {"explorer.css": "text/css", "explorer.js": "text/javascript"}
_REFERENCE = "#/components/schemas/"


@router.get("/docs")
def show_explorer(request: Request) -> Response:
    """Show the description as a page."""
    described = request.app.openapi()
    prefix = request.scope.get("root_path", "")
    page = _template().render(
        described=described,
        operations=_by_tag(described),
        schemas=described["components"]["schemas"],
        prefix=prefix,
        here=request.url.path,
        type_of=type_of,
    )
    headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
    return Response(page, 200, headers, "text/html; charset=utf-8")


@router.get("/docs/{name}")
def get_file(name: str) -> Response:
    """Return the style or the script of the page."""
    if name not in _KINDS:
        return Response(status_code=404)
    content = files("relay.web.explorer").joinpath(name).read_text(encoding="utf-8")
    return Response(content, 200, {"Cache-Control": "max-age=300"}, f"{_KINDS[name]}; charset=utf-8")


@cache
def _template() -> Any:
    loader = PackageLoader("relay.web.explorer", ".")
    made = Environment(loader=loader, autoescape=select_autoescape(default=True))
    return made.get_template("explorer.html")


def _by_tag(described: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the operations by their tag, in the order of the routes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            one = {"method": method.upper(), "path": path, **operation, "body": body}
            found.setdefault(operation["tags"][0], []).append(one)
    return found


def type_of(schema: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return the words for a type, each with the name of the schema that it leads to, if it does."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        return [(name, name)]
    kinds = schema.get("anyOf") or schema.get("oneOf")
    if kinds:
        return [part for place, one in enumerate(kinds) for part in ([(" or ", None)] * bool(place) + type_of(one))]
    if schema.get("type") == "array":
        return [("list of ", None), *type_of(schema.get("items", {}))]
    if "enum" in schema:
        return [(", ".join(map(str, schema["enum"])), None)]
    if "const" in schema:
        return [(str(schema["const"]), None)]
    return [(schema.get("format") or schema.get("type") or "any JSON", None)]
