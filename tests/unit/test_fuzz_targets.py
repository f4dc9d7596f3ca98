"""Every parser against all that was ever interesting (tests/fuzz/corpus), and for a moment against random bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_random_bytes_break_nothing(name: str) -> None:
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())[:50]]

    @settings(max_examples=50)
    @given(st.binary(max_size=300), st.sampled_from(seeds), st.integers(0, 300))
    def check(noise: bytes, seed: bytes, at: int) -> None:
        TARGETS[name](noise)
        TARGETS[name](seed[:at] + noise + seed[at:])

    check()


def test_no_corpus_is_left_without_its_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
