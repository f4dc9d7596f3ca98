"""What is wrong with data, in words that name the place and never hold the value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from outbox.recording.payload import step_text
from outbox.recording.raw_json import parse

__all__ = [
    "TOO_LONG",
    "Problem",
    "place_of",
    "problems_of_pydantic",
    "problems_of_schema",
    "problems_of_struct",
    "told",
]

Problem = tuple[str, str]
"""A place, such as `data.items[2].cents`, and what is wrong there."""

TOO_LONG: Problem = ("data", "holds a number that cannot be checked: it has too many digits")
"""What is wrong with a number that a RawJSON may hold, and the library that checks cannot read."""

_SHOWN = 5
_LONGEST = 300


def told(problems: Iterable[Problem]) -> str:
    """Return the first problems as one line."""
    lines = [f"{place}: {why[:_LONGEST]}" for place, why in problems]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "; ".join([*lines[:_SHOWN], *more])


def place_of(steps: Iterable[str | int]) -> str:
    """Return a path from the data's top: `data.items[2].cents`, at most 200 characters."""
    path = "data" + "".join(step_text(step) for step in steps)
    return path if len(path) <= 200 else f"{path[:120]}…{path[-60:]}"


def problems_of_pydantic(error: Any, payload: str) -> list[Problem]:
    """Return what a pydantic ValidationError says of this JSON text."""
    data = parse(payload)  # only where its members are: a number may have more digits than Python reads
    found = error.errors(include_url=False, include_context=False)
    return [(place_of(_steps_in(data, one["loc"], one["type"])), _pydantic_words(one)) for one in found]


def _steps_in(data: Any, location: Iterable[str | int], kind: str) -> Iterator[str | int]:
    """Yield the steps that are places in the data: pydantic also names the members of unions that it tried."""
    steps = list(location)
    for number, step in enumerate(steps):
        is_last = number == len(steps) - 1
        if isinstance(data, dict) and isinstance(step, str) and (step in data or (is_last and kind == "missing")):
            data = data.get(step)
            yield step
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
            yield step


_PYDANTIC_WORDS = {"missing": "is missing", "extra_forbidden": "is not declared"}


def _pydantic_words(error: dict[str, Any]) -> str:
    """Return pydantic's words without the value: its own have none but for tags, those of validators may."""
    if error["type"] in _PYDANTIC_WORDS:
        return _PYDANTIC_WORDS[error["type"]]
    if error["type"] == "union_tag_invalid":
        return "has a tag that is not declared"
    if error["type"] == "json_invalid" and "number out of range" in error["msg"]:
        return TOO_LONG[1]
    words = str(error["msg"]).replace("Input should be", "must be").replace("Input should", "must")
    given = error["input"]
    if isinstance(given, str | int | float) and len(str(given)) > 1:
        words = words.replace(str(given), "…")
    return words[:1].lower() + words[1:]


def problems_of_struct(message: str) -> list[Problem]:
    """Return what msgspec says: one problem, and its path behind `at`."""
    words, _, path = message.partition(" - at `$")
    place = f"data{path.rstrip('`')}"[:200]
    if words.startswith("Invalid enum value"):
        return [(place, "is not one of the values that are declared")]
    if words.startswith("Expected `"):
        expected, _, given = words.removeprefix("Expected ").replace("`", "").partition(", got ")
        return [(place, f"must be {expected}, not {given}" if given else f"must be {expected}")]
    return [(place, words[:1].lower() + words[1:])]


_SCHEMA_WORDS: dict[str, Callable[[Any], str]] = {
    "type": lambda kind: f"must be {_alternatives(kind.types)}",
    "enum": lambda kind: f"must be one of {json.dumps(kind.options, ensure_ascii=False)}",
    "const": lambda kind: f"must be {json.dumps(kind.expected_value, ensure_ascii=False)}",
    "minimum": lambda kind: f"must be at least {kind.limit}",
    "maximum": lambda kind: f"must be at most {kind.limit}",
    "exclusiveMinimum": lambda kind: f"must be more than {kind.limit}",
    "exclusiveMaximum": lambda kind: f"must be less than {kind.limit}",
    "minLength": lambda kind: f"must have at least {kind.limit} characters",
    "maxLength": lambda kind: f"must have at most {kind.limit} characters",
    "minItems": lambda kind: f"must have at least {kind.limit} items",
    "maxItems": lambda kind: f"must have at most {kind.limit} items",
    "uniqueItems": lambda _: "must have no item twice",
    "multipleOf": lambda kind: f"must be a multiple of {kind.multiple_of}",
    "pattern": lambda kind: f"must match {kind.pattern}",
    "format": lambda kind: f"must be a {kind.format}",
    "required": lambda _: "is missing",
    "additionalProperties": lambda _: "is not declared",
    "unevaluatedProperties": lambda _: "is not declared",
    "falseSchema": lambda _: "is not declared",
    "anyOf": lambda _: "is none of the forms that are declared",
    "oneOf": lambda _: "is none of the forms that are declared, or more than one",
}


def problems_of_schema(errors: Iterable[Any]) -> list[Problem]:
    """Return what jsonschema_rs found."""
    return [problem for error in errors for problem in _schema_problems(error)]


def _schema_problems(error: Any) -> Iterator[Problem]:
    kind = error.kind
    words = _SCHEMA_WORDS.get(kind.name, lambda kind: f"does not keep {kind.name}")(kind)
    missing = [kind.property] if kind.name == "required" else getattr(kind, "unexpected", [None])
    for name in missing:
        steps = [*error.instance_path, *(() if name is None else (name,))]
        yield place_of(steps), words


def _alternatives(types: list[str]) -> str:
    """Return JSON's types in words: `an integer or null`."""
    articled = [name if name == "null" else f"{'an' if name[0] in 'aio' else 'a'} {name}" for name in sorted(types)]
    return " or ".join(articled)
