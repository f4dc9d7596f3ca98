"""Marks of claims are hints: they end by themselves, and claims that are quick have none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relay.engine.due_marks import FULL_LOOK_SHARE, LONGEST_SECONDS, DueMarks
from relay.store.claims import FIRST, Mark
from relay.store.rows import Leased

NOW, SLOW, QUICK = 1000.0, 0.2, 0.001
ONE, OTHER = b"1" * 16, b"2" * 16


def row(number: int, subscription_id: bytes = ONE) -> Leased:
    due = number.to_bytes(8, "big")
    return Leased(number.to_bytes(16, "big"), number, subscription_id, 1, 1, 15, 500, None, due=due)


def mark(number: int) -> Mark:
    return number.to_bytes(8, "big"), number.to_bytes(16, "big")


def claim(marks: DueMarks, now: float, seconds: float, rows: Sequence[Leased], *asked: bytes) -> list[Mark]:
    """Claim for `asked`; return the marks that it had."""
    had = marks.of(asked, now)
    marks.note_claim(rows, dict(zip(asked, had, strict=True)), now, now + seconds)
    return had


def test_while_claims_are_quick_each_looks_at_everything() -> None:
    marks = DueMarks()
    for number in range(5):
        assert claim(marks, NOW + number, QUICK, [row(number)], ONE, OTHER) == [FIRST, FIRST]


def test_after_a_slow_claim_the_next_begins_at_the_first_row_that_it_brought_of_each() -> None:
    marks = DueMarks()
    claim(marks, NOW, SLOW, [row(5), row(7, OTHER), row(6), row(9, OTHER)], ONE, OTHER, b"3" * 16)
    assert marks.of([ONE, OTHER, b"3" * 16], NOW + SLOW) == [mark(5), mark(7), FIRST]


def test_each_claim_with_marks_moves_them_and_one_that_brings_nothing_leaves_them() -> None:
    marks = DueMarks()
    claim(marks, NOW, SLOW, [row(5)], ONE)
    assert claim(marks, NOW + 0.3, QUICK, [row(8), row(9)], ONE) == [mark(5)]
    assert claim(marks, NOW + 0.4, QUICK, [], ONE) == [mark(8)]
    assert claim(marks, NOW + 0.5, SLOW, [row(10)], ONE) == [mark(8)]
    assert marks.of([ONE], NOW + 0.7) == [mark(10)]


@pytest.mark.parametrize("with_marks", [QUICK, SLOW])
def test_slow_claims_without_a_mark_take_a_tenth_of_the_time_at_most(with_marks: float) -> None:
    marks, now, spent = DueMarks(), NOW, 0.0
    full = 0
    while now < NOW + 100:
        is_full = marks.of([ONE], now) == [FIRST]
        seconds = SLOW if is_full else with_marks
        claim(marks, now, seconds, [row(int(now))], ONE)
        now += seconds + 0.01
        full, spent = full + is_full, spent + (SLOW if is_full else 0.0)
    assert full > 100 / (FULL_LOOK_SHARE * SLOW) / 2, "they come again and again"
    assert spent <= 1.1 * (now - NOW) / FULL_LOOK_SHARE


def test_no_mark_is_kept_for_long_after_a_claim_that_was_stuck() -> None:
    marks = DueMarks()
    claim(marks, NOW, 600.0, [row(5)], ONE)
    assert marks.of([ONE], NOW + 600 + LONGEST_SECONDS - 1) == [mark(5)]
    assert marks.of([ONE], NOW + 600 + LONGEST_SECONDS + 1) == [FIRST]


def test_what_is_forgotten_is_looked_for_from_the_first_on_also_where_a_claim_is_under_way() -> None:
    marks = DueMarks()
    claim(marks, NOW, SLOW, [row(5), row(7, OTHER)], ONE, OTHER)
    had = marks.of([ONE, OTHER], NOW + 0.3)
    marks.forget(ONE)
    marks.note_claim([row(8), row(9, OTHER)], dict(zip([ONE, OTHER], had, strict=True)), NOW + 0.3, NOW + 0.31)
    assert marks.of([ONE, OTHER], NOW + 0.4) == [FIRST, mark(9)]


def test_nothing_is_kept_when_the_last_mark_has_ended() -> None:
    marks = DueMarks()
    claim(marks, NOW, SLOW, [row(5), row(7, OTHER)], ONE, OTHER)
    end = NOW + SLOW + FULL_LOOK_SHARE * SLOW
    assert marks.of([ONE], end - 0.01) == [mark(5)]
    assert marks.of([ONE], end + 0.01) == [FIRST]
    assert len(marks) == 0


def test_another_database_has_no_marks() -> None:
    marks = DueMarks()
    claim(marks, NOW, SLOW, [row(5)], ONE)
    marks.clear()
    assert marks.of([ONE], NOW + 0.3) == [FIRST]
