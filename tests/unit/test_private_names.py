"""Tests ask by public names: of the private ones of the code they read, set or import fewer than ten."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PRIVATE = re.compile(r"_[A-Za-z]\w*")
NO_SECRET = {"_replace", "_asdict", "_fields", "_exit"}  # underscored by Python, and public
SET = re.compile(r"(?:.*\.)?_[A-Za-z]\w*")


def private_names(module: ast.Module) -> Iterator[ast.AST]:
    """Yield where a file reads or sets an attribute of another object, patches one, or imports one of ours."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            yield node
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("outbox", "relay"):
            yield from (name for name in node.names if is_private(name.name) and name.name != "_version")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            named = (arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant))
            if any(isinstance(name, str) and SET.fullmatch(name) for name in named):
                yield node


def is_private(name: str) -> bool:
    return PRIVATE.fullmatch(name) is not None and name not in NO_SECRET


def is_own(owner: ast.expr) -> bool:
    return ast.unparse(owner) in ("self", "cls", "other", "super()")


def test_fewer_than_ten_private_names_of_the_code_are_used() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
        for path in sorted(TESTS.rglob("*.py"))
        for node in private_names(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(found) < 10, "\n".join(found)
