"""The low-water mark is a hint: it trails, and a look without it comes often enough to find what committed late."""

from __future__ import annotations

import pytest

from relay.engine.low_water import BEHIND_SECONDS, FULL_LOOK_EVERY_SECONDS, LowWater

NOW = 1000.0


def warm() -> tuple[LowWater, float]:
    """A mark below event 100, which a look found long enough ago to count, and a full look just now."""
    low = LowWater()
    low.note_look(-1, NOW, NOW, 100, 1000)
    now = NOW + BEHIND_SECONDS + 0.1
    assert low.bound(now) == -1
    low.note_look(-1, now, now + 0.001, 100, 1000)
    return low, now + 0.001


def test_the_first_look_sees_everything() -> None:
    assert LowWater().bound(NOW) == -1


def test_the_bound_is_below_what_a_look_found_first_that_is_old_enough() -> None:
    low, now = warm()
    assert low.bound(now + 0.1) == 99


def test_a_look_moves_the_bound_only_after_a_while() -> None:
    low, now = warm()
    low.note_look(99, now, now, 500, 1000)
    assert low.bound(now + FULL_LOOK_EVERY_SECONDS / 2) == 99
    now += BEHIND_SECONDS + 0.1
    low.note_look(low.bound(now), now, now, 500, 1000)
    assert low.bound(now) == 499


def test_what_an_empty_look_has_seen_is_above_every_number_that_was_drawn() -> None:
    low, now = warm()
    low.note_look(99, now, now, None, 1000)
    now += BEHIND_SECONDS + 0.1
    low.note_look(low.bound(now), now, now + 0.01, 1001, 1001)
    assert low.bound(now + 0.02) == 1000


def test_a_look_without_the_bound_comes_again_and_again_however_busy() -> None:
    low, now = warm()
    looks = []
    for _ in range(2000):
        now += 0.01
        looks.append(low.bound(now))
        low.note_look(looks[-1], now, now, 100, 1000)
    assert looks.count(-1) == pytest.approx(20 / FULL_LOOK_EVERY_SECONDS, rel=0.1)


def test_an_empty_bounded_look_is_followed_by_one_without() -> None:
    low, now = warm()
    now += 0.1
    assert low.bound(now) == 99
    low.note_look(99, now, now + 0.001, None, 1000)
    assert low.bound(now + 0.001) == -1


@pytest.mark.parametrize("first", [None, 100])
@pytest.mark.parametrize("slow_seconds", [0.02, 0.4, 2.0])
def test_slow_looks_without_the_bound_take_about_a_twentieth_of_the_time(
    slow_seconds: float, first: int | None
) -> None:
    """From the first on: a relay that starts beside a held snapshot has a mark after a second."""
    low, now = LowWater(), NOW
    spent = 0.0
    while now < NOW + 200:
        bound = low.bound(now)
        seconds = slow_seconds if bound == -1 else 0.001
        low.note_look(bound, now, now + seconds, first, 1000)
        now += seconds + 0.01
        spent += slow_seconds if bound == -1 else 0.0
    assert 0 < spent <= 0.06 * (now - NOW) + BEHIND_SECONDS + slow_seconds


def test_a_late_event_found_lower_down_lowers_the_bound_again() -> None:
    low, now = warm()
    low.note_look(-1, now, now, 40, 1000)
    now += BEHIND_SECONDS + 0.1
    low.note_look(low.bound(now), now, now, 40, 1000)
    assert low.bound(now) == 39


def test_one_slow_look_alone_delays_no_other() -> None:
    """It waited for a lock, or this process stood still: events that commit late are found within seconds."""
    low, now = warm()
    now += BEHIND_SECONDS
    assert low.bound(now) == -1
    low.note_look(-1, now, now + 30, 100, 1000)
    now += 30 + BEHIND_SECONDS
    assert low.bound(now) == -1
    low.note_look(-1, now, now + 0.001, 100, 1000)
    assert low.bound(now + 0.001 + BEHIND_SECONDS) == -1


def test_what_a_look_without_the_mark_found_is_taken_also_after_a_look_with_it() -> None:
    low, now = warm()
    assert low.note_look(-1, now, now, 40, 1000) == 39
    assert low.note_look(99, now, now, 500, 1000) == 39
    low.note_taken()
    assert low.note_look(99, now, now, 500, 1000) == 499
    assert low.note_look(99, now, now, None, 1000) == 99
    assert low.note_look(99, now, now, 600, 1000) == 599
