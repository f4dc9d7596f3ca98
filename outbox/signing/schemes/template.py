"""Parse texts with named parts, such as `{timestamp}.{body}`: a declaration says by them what is signed and sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

__all__ = ["Element", "Template", "dividing", "elements_of", "formatter", "parse"]

_PART = re.compile(r"\{([a-z_]*)\}")
_INSIDE = {"id": re.compile("[A-Za-z0-9_]"), "type": re.compile("[A-Za-z0-9_.]"), "timestamp": re.compile("[0-9]")}
"""What the id, the type and the time of an event consist of."""


class Template(NamedTuple):
    """A parsed text. `literals` stand around `parts`, so there is one more of them; each may be ''."""

    literals: tuple[str, ...]
    parts: tuple[str, ...]

    def divider(self, part: str) -> str:
        """Return the literal that stands beside a part, on the side of the body; '' where there is no such part."""
        if part not in self.parts:
            return ""
        at = self.parts.index(part)
        return self.literals[at + 1 if at < self.parts.index("body") else at]


class Element(NamedTuple):
    """One element of a header's value: at most one part ('' else), and what stands around it."""

    before: str
    part: str
    after: str


def parse(text: str) -> Template:
    """Parse a text."""
    pieces = _PART.split(text)
    return Template(tuple(pieces[::2]), tuple(pieces[1::2]))


def dividing(part: str, divider: str) -> str:
    """Return the characters of a divider that the part itself never holds, so that they tell where it ends."""
    return _INSIDE[part].sub("", divider)


def elements_of(value: str, separator: str) -> tuple[Element, ...]:
    """Return the elements of a header's value. Raises ValueError where one has several parts."""
    elements = []
    for text in value.split(separator) if separator else [value]:
        template = parse(text)
        if len(template.parts) > 1:
            raise ValueError(text)
        elements.append(Element(template.literals[0], "".join(template.parts), "".join(template.literals[1:])))
    return tuple(elements)


def formatter(template: Template, places: Mapping[str, int]) -> tuple[bytes, Callable[[Any], Any]]:
    """Return a format, and what picks its arguments: `format % pick(values)` is the text.

    places: where in `values` each part is found.
    """
    escaped = [literal.replace("%", "%%") for literal in template.literals]
    return "%b".join(escaped).encode("ascii"), itemgetter(*(places[part] for part in template.parts))
