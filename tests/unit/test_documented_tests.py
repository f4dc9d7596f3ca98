"""docs/testing.md leads from each behaviour to its tests, and leaves no test file out."""

from __future__ import annotations

import re

from tests.support.readme import ROOT

ROW = re.compile(r"^\| (?P<behaviour>[^|]+?) \| (?P<tests>(?:tests/[^ |]+)?) \|$", re.MULTILINE)
TABLE = (ROOT / "docs" / "testing.md").read_text("utf-8").partition("| behaviour | tests |\n|---|---|\n")[2]
ROWS = [
    (row["behaviour"], [file for file in row["tests"].split("<br>") if file])
    for row in ROW.finditer(TABLE.partition("\n\n")[0])
]
NAMED = [file for _, files in ROWS for file in files]


def test_every_line_of_the_table_is_a_heading_or_a_behaviour_with_its_tests() -> None:
    assert len(ROWS) == len(TABLE.partition("\n\n")[0].splitlines()) > 50
    assert [behaviour for behaviour, files in ROWS if behaviour.startswith("**") == bool(files)] == []


def test_every_file_that_is_named_exists_and_every_test_file_is_named_once() -> None:
    there = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
    assert sorted(NAMED) == there
