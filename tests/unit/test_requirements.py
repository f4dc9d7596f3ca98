"""Every requirement of the four systems is shown by a test and stands in its example's README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = re.findall(r"^\| (S\d-\d\d) \|", (ROOT / "tests/cases/requirements.md").read_text("utf-8"), re.MULTILINE)
EXAMPLES = {"S1": "notely", "S2": "catalogue", "S3": "soundhash", "S4": "leads"}


def test_there_are_sixty_one_lines() -> None:
    assert len(REQUIRED) == len(set(REQUIRED)) == 61


@pytest.mark.parametrize(("system", "example"), EXAMPLES.items())
def test_each_is_marked_at_a_test_and_stands_in_the_readme(system: str, example: str) -> None:
    wanted = [one for one in REQUIRED if one.startswith(system)]
    files = (ROOT / "tests/acceptance").glob(f"test_example_{example}*.py")
    source = "".join(file.read_text("utf-8") for file in files)
    marks = re.findall(r"pytest\.mark\.requirement\(([^)]*)\)", source)
    assert sorted({name for mark in marks for name in re.findall(r'"(S\d-\d\d)"', mark)}) == wanted
    readme = (ROOT / f"examples/{example}/README.md").read_text("utf-8")
    assert re.findall(r"^\| (S\d-\d\d) \|", readme, re.MULTILINE) == wanted
