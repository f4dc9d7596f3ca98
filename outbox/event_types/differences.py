"""What changed between two JSON Schemas of events, and whether it breaks whoever reads them. Pure; no database.

An application writes by the new schema what receivers read by the old one. So a change is compatible where everything
that may be written now was allowed before: narrowing is safe, widening is not. Two rules go beyond that. A new field is
always compatible, since receivers pass over what they do not know; and a field that is gone always breaks, though it
was optional, since somebody may read it. What cannot be compared, such as a changed `pattern`, counts as breaking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outbox._text import brief
from outbox.errors import ArgumentError
from outbox.event_types.schema_forms import (
    TYPES,
    Schema,
    as_mapping,
    forms_of,
    mapping_at,
    positions_of,
    resolve,
    rest_of,
    types_of,
    values_of,
)
from outbox.recording.payload import step_text

__all__ = ["Difference", "compare_schemas"]

Accepts = Callable[[Any, Any], bool]

# By keyword: may what keeps the new value be found where the old one was kept?
_BOUNDS: dict[str, Accepts] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"),
                    lambda old, new: new >= old),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"),
                    lambda old, new: new <= old),
    "multipleOf": lambda old, new: new % old == 0,
    "uniqueItems": lambda old, new: new or not old,
}  # fmt: skip
# What is compared as a whole: the same, or new where there was nothing.
_WHOLE = (
    *("pattern", "format", "not", "if", "then", "else", "contains", "propertyNames", "dependentRequired"),
    *("dependentSchemas", "dependencies", "patternProperties", "unevaluatedProperties", "unevaluatedItems"),
    *("contentEncoding", "contentMediaType", "$dynamicRef"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One change: where (`data.items[].cents`), what, and whether it breaks receivers."""

    place: str
    what: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def compare_schemas(old: Schema | None, new: Schema | None) -> list[Difference]:
    """Return what changed for receivers, in order of place; None is any JSON. Descriptions do not count.

    Raises ArgumentError for what is no schema: neither a mapping nor None.
    """
    for name, given in (("old", old), ("new", new)):
        if given is not None and not isinstance(given, Mapping):
            raise ArgumentError(f"{name}: must be a JSON Schema (a mapping) or None, not {brief(given)}")
    found = _Comparison(as_mapping(old), as_mapping(new)).run()
    return sorted(dict.fromkeys(found), key=lambda one: (one.place, not one.breaking, one.what))


class _Comparison:
    """Walks two schemas together. `_open` are the pairs that are being walked, so that cycles end."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        self._open: set[tuple[object, object]] = set()

    def run(self) -> list[Difference]:
        return list(self._compare("data", self._old, self._new))

    def _compare(self, place: str, old: Any, new: Any) -> Iterator[Difference]:
        pair = (_identity(old), _identity(new))
        if pair in self._open:
            return
        self._open.add(pair)
        yield from self._resolved(place, resolve(self._old, as_mapping(old)), resolve(self._new, as_mapping(new)))
        self._open.discard(pair)

    def _resolved(self, place: str, old: Schema, new: Schema) -> Iterator[Difference]:
        before, after = forms_of(self._old, old), forms_of(self._new, new)
        if len(before) == len(after) == 1:
            yield from self._form(place, resolve(self._old, before[0]), resolve(self._new, after[0]))
        else:
            yield from self._union(place, before, after)

    def _union(self, place: str, before: list[Schema], after: list[Schema]) -> Iterator[Difference]:
        """Compare forms of which one holds: each new one must be an old one, or narrower."""
        left = list(before)
        for form in after:
            tried = [(old, list(self._compare(place, old, form))) for old in before]
            best, found = min(tried, key=lambda one: (sum(each.breaking for each in one[1]), len(one[1])))
            if best in left:
                left.remove(best)
            same = _same_kind(resolve(self._old, best), resolve(self._new, form))
            if same or not any(each.breaking for each in found):
                yield from found
            else:
                yield Difference(place, f"may be {_named(resolve(self._new, form))} now", breaking=True)
        for form in left if len(after) < len(before) else ():
            yield Difference(place, f"is never {_named(resolve(self._old, form))} any more", breaking=False)

    def _form(self, place: str, old: Schema, new: Schema) -> Iterator[Difference]:
        if any("$ref" in one for one in (old, new)):  # it leads nowhere that is known here
            if old != new:
                yield Difference(place, "refers to another schema", breaking=True)
            return
        was, became = types_of(old), types_of(new)
        if _widened(was, became):
            wider = f"was {_listed(was)}, is {_listed(became)}"
            yield Difference(place, wider, breaking=True)
            return
        if was != became:
            yield Difference(place, f"was {_listed(was)}, is only {_listed(became)}", breaking=False)
        yield from _values(place, old, new)
        yield from _bounds(place, old, new)
        yield from self._fields(place, old, new)
        yield from self._items(place, old, new)

    def _fields(self, place: str, old: Schema, new: Schema) -> Iterator[Difference]:
        before, after = mapping_at(old, "properties"), mapping_at(new, "properties")
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(before.keys() | after.keys() | needed | needs):
            inside = f"{place}{step_text(name)}"
            if name not in after and name in before:
                yield Difference(inside, "is not there any more", breaking=True)
                continue
            if name not in before and name not in needed:
                yield Difference(inside, "is new", breaking=False)
            elif name in needed and name not in needs:
                yield Difference(inside, "was always there, and may be missing now", breaking=True)
            elif name in needs and name not in needed:
                yield Difference(inside, "is always there now", breaking=False)
            if name in before and name in after:
                yield from self._compare(inside, before[name], after[name])
        yield from self._others(place, old, new)

    def _others(self, place: str, old: Schema, new: Schema) -> Iterator[Difference]:
        """Compare what other fields may be. That there may be others at all is no change: they are new fields."""
        was, became = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if isinstance(was, Mapping) and became is not False:
            yield from self._compare(f"{place}.*", was, became)

    def _items(self, place: str, old: Schema, new: Schema) -> Iterator[Difference]:
        if not {"items", "prefixItems"} & old.keys():
            return  # they were anything
        before, after = positions_of(old), positions_of(new)
        rest_before, rest_after = rest_of(old), rest_of(new)
        for number in range(max(len(before), len(after))):
            was = before[number] if number < len(before) else rest_before
            became = after[number] if number < len(after) else rest_after
            yield from self._compare(f"{place}[{number}]", was, became)
        if rest_after is not False:
            yield from self._compare(f"{place}[]", rest_before, rest_after)


def _identity(schema: Any) -> object:
    """Return what tells a schema from others of its document: where it refers to, or itself."""
    if not isinstance(schema, Mapping) or not schema:
        return "anything"
    return schema.get("$ref", id(schema))


def _widened(was: frozenset[str], became: frozenset[str]) -> bool:
    allowed = was | ({"integer"} if "number" in was else set())
    return not became <= allowed


def _listed(kinds: frozenset[str]) -> str:
    return "anything" if kinds == TYPES else " or ".join(sorted(kinds)) or "nothing"


def _named(schema: Schema) -> str:
    given = values_of(schema)
    return str(schema["title"]) if "title" in schema and "properties" in schema else (
        ", ".join(map(repr, given)) if given is not None else _listed(types_of(schema)))  # fmt: skip


def _same_kind(old: Schema, new: Schema) -> bool:
    """Tell whether a new form is an old one that changed, rather than one that came."""
    was, became = types_of(old), types_of(new)
    if was != became:
        return False
    titles = (old.get("title"), new.get("title"))
    return titles[0] == titles[1] or None in titles


def _values(place: str, old: Schema, new: Schema) -> Iterator[Difference]:
    was, became = values_of(old), values_of(new)
    if was is None:
        if became is not None:
            yield Difference(place, "is one of a few values now", breaking=False)
        return
    if became is None:
        yield Difference(place, "was one of a few values, and may be any now", breaking=True)
        return
    for value in (one for one in became if one not in was):
        yield Difference(place, f"may be {value!r} now", breaking=True)
    for value in (one for one in was if one not in became):
        yield Difference(place, f"is never {value!r} any more", breaking=False)


def _bounds(place: str, old: Schema, new: Schema) -> Iterator[Difference]:
    for name, accepts in _BOUNDS.items():
        was, became = old.get(name), new.get(name)
        if was == became:
            continue
        wider = was is not None and (became is None or not _accepted(accepts, was, became))
        yield Difference(place, f"{name} {_change(was, became)}", breaking=wider)
    for name in _WHOLE:
        if old.get(name) != new.get(name):
            change = _change(old.get(name), new.get(name))
            yield Difference(place, f"{name} {change}", breaking=name in old)


def _accepted(accepts: Accepts, was: Any, became: Any) -> bool:
    try:
        return bool(accepts(was, became))
    except (TypeError, ZeroDivisionError):
        return False


def _change(was: Any, became: Any) -> str:
    shown = [one if isinstance(one, str | int | float) else "a schema" for one in (was, became)]
    if was is None:
        return f"is {shown[1]} now"
    return f"was {shown[0]}, is gone" if became is None else f"was {shown[0]}, is {shown[1]}"
