"""The types of a document's fields, as values: from them the HTTP API makes its descriptions, and its client reads.

Documents name many types for the type checker alone, behind TYPE_CHECKING. Here those names are imported after all.
"""

from __future__ import annotations

import ast
import inspect
import sys
from contextlib import suppress
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
    names: dict[str, Any] = {}
    for line in (line for node in guarded for line in node.body if isinstance(line, ast.ImportFrom)):
        # A module of an extra that is not installed names no field of a document: one that did is a NameError later.
        with suppress(ImportError):
            source = import_module(line.module or "")
            names |= {alias.asname or alias.name: getattr(source, alias.name) for alias in line.names}
    return names
