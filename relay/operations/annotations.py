"""The types of a document's fields, as values: from them the HTTP API makes its descriptions, and its client reads.

Documents name many types for the type checker alone, behind TYPE_CHECKING. Here those names are imported after all.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["hints_of"]


@cache
def hints_of(document: type) -> Mapping[str, Any]:
    """Return the resolved types of a document's fields, those of its bases first."""
    names: dict[str, Any] = {}
    for base in reversed(document.__mro__):
        names |= _named_for_type_checkers(base.__module__)
    return get_type_hints(document, localns=names)


@cache
def _named_for_type_checkers(module: str) -> dict[str, Any]:
    if module == "builtins":
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.asname or alias.name: getattr(import_module(line.module), alias.name)
        for node in guarded
        for line in node.body
        if isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names
    }
