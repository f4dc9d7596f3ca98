"""The list of fences names what there is. `python -m tests.fences` shows that their tests fail without them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.fences.__main__ import chosen_of, part_of
from tests.fences.fence import Fence
from tests.fences.rows import FENCES

ROOT = Path(__file__).parents[2]


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def named_in(path: str) -> frozenset[str]:
    """Return the tests of a file as pytest names them."""
    module = ast.parse(text_of(path))
    classes = [(f"{one.name}::", one) for one in module.body if isinstance(one, ast.ClassDef)]
    return frozenset(
        f"{path}::{prefix}{one.name}"
        for prefix, body in [("", module), *classes]
        for one in body.body
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.name)
def test_a_fence_stands_once_and_its_tests_exist(fence: Fence) -> None:
    assert text_of(fence.module).count(fence.fragment) == 1
    assert fence.without != fence.fragment
    assert fence.tests
    assert [test for test in fence.tests if test not in named_in(test.partition("::")[0])] == []


def test_each_fence_has_a_name_of_its_own() -> None:
    assert len({fence.name for fence in FENCES}) == len(FENCES)


def test_the_parts_together_are_all_fences_and_begin_again_after_the_last() -> None:
    parts = [part_of(f"{number}/24") for number in range(100, 124)]
    assert sorted(fence.name for one in parts for fence in chosen_of([], one)) == sorted(one.name for one in FENCES)
    assert chosen_of([], part_of("5/24")) == chosen_of([], part_of("29/24"))
    with pytest.raises(ValueError, match="3/0"):
        part_of("3/0")
