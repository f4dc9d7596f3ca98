"""What a fence is: a condition that keeps two from harming each other, and the tests that fail without it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Fence"]


class Fence(NamedTuple):
    """One row: `fragment` stands once in `module`; with `without` in its place, each of `tests` fails.

    `without` is SQL or Python of the same form, so that a test fails for what happens then and not for a syntax error.
    `mends` names the report from the field that the fence mends, if there is one.
    """

    name: str
    module: str
    fragment: str
    without: str
    tests: tuple[str, ...]
    mends: str = ""
