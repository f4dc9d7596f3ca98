"""The published rules of receivers, from cases/presets.json: whether a message keeps them, and what answers mean."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema

__all__ = ["PRESETS", "broken_rules", "filled"]

_CASES = Path(__file__).parents[1] / "cases" / "presets.json"
PRESETS: dict[str, Any] = json.loads(_CASES.read_text(encoding="utf-8"))["presets"]


def broken_rules(name: str, message: Any) -> set[str]:
    """Return the rules that a message breaks: a keyword of the schema, at any depth, or `beyond_schema:name`."""
    preset = PRESETS[name]
    checker = jsonschema.Draft202012Validator(preset["schema"], format_checker=jsonschema.FormatChecker())
    broken = {str(error.validator) for top in checker.iter_errors(message) for error in _all(top)}
    for rule in preset["beyond_schema"]:
        if not _keeps(rule, message):
            broken.add(f"beyond_schema:{rule['name']}")
    return broken


def _all(error: Any) -> Iterator[Any]:
    yield error
    for inner in error.context or ():
        yield from _all(inner)


def _keeps(rule: dict[str, Any], message: Any) -> bool:
    if rule["rule"] == "utf8_bytes_of_body":
        return (
            len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
            <= rule["max"]
        )
    if rule["rule"] == "sum_of_lengths":
        return sum(len(text) for pointer in rule["pointers"] for text in _at(message, pointer)) <= rule["max"]
    found = list(_at(message, rule["pointer"]))
    return len(found) == len(set(found))


def _at(value: Any, pointer: str) -> Iterator[Any]:
    step, _, rest = pointer.removeprefix("/").partition("/")
    if not step:
        yield value
    elif step.startswith("*") and isinstance(value, list):
        member, _, wanted = step[2:-1].partition("=")
        for item in value:
            if not member or item.get(member) == wanted:
                yield from _at(item, rest)
    elif isinstance(value, list) and step.isdigit():
        yield from _at(value[int(step)], rest)
    elif isinstance(value, dict) and step in value:
        yield from _at(value[step], rest)


def filled(example: dict[str, Any]) -> Any:
    """Return an example's message with what `fill` says put in."""
    message = copy.deepcopy(example["message"])
    for fill in example.get("fill", ()):
        *path, last = [int(step) if step.isdigit() else step for step in fill["pointer"].strip("/").split("/")]
        where = message
        for step in path:
            where = where[step]
        where[last] = where[last] * fill["copies"] if "copies" in fill else fill["char"] * fill["count"]
    return message
