"""Every row of cases/bad_inputs.md has a test that is marked with its id, or waits for the area named here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([A-F][0-9]+) \|", re.MULTILINE)
AT_THE_START = re.compile(r"((?:[A-F][0-9]{1,2} )+)\S")

WAITING = {
    "B18": "no setting for jitter: it is a tenth of each delay",
    "C27": "no command writes CSV: lists are tables, or JSON Lines",
    "E35": "a challenge that an endpoint answers once",
    "F11": "a server whose clock jumps: leases are of its clock alone",
    "F14": "the second release: there is one version of the protocol",
    "F15": "recovery from a backup",
}


def rows() -> set[str]:
    return set(ROW.findall((TESTS / "cases" / "bad_inputs.md").read_text()))


def marked() -> Iterator[str]:
    """Ids in marks of tests, and at the start of the texts that name parametrized cases."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
                yield from (ast.literal_eval(argument) for argument in node.args)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                match = AT_THE_START.match(node.value)
                yield from match[1].split() if match else ()


def test_every_row_is_tested_or_waits_for_its_area() -> None:
    tested = set(marked())
    assert rows() - tested - set(WAITING) == set()
    assert set(WAITING) & tested == set(), "these have a test now"
    assert set(WAITING) - rows() == set()
