"""The tree of an expression, and how large it may be."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Node"]

MAX_BYTES = 4096
"""Of an expression's text in UTF-8."""
MAX_NODES = 500
MAX_DEPTH = 40


class Node(NamedTuple):
    """A part of an expression: what it does (`kind`), where it stands in the text, and the parts it is made of.

    kind and value: 'current'; 'literal' (its value); 'field' (a name); 'index' (a number); 'slice' (start, stop, step);
    'then' (each part on the result of the one before); 'project', 'project_values' (list or object, each element);
    'filter' (list, each element, condition); 'flatten'; 'or', 'and', 'not'; 'compare' (the sign); 'list'; 'object'
    (names); 'call' (the function's name), in which an argument may be an 'expression'.
    """

    kind: str
    at: int
    value: Any
    parts: tuple[Node, ...]
    depth: int
