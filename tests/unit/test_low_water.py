"""The low-water mark is a hint: it trails, and a look without it comes often enough to find what committed late."""

from __future__ import annotations

import pytest

from relay.engine.low_water import BEHIND_SECONDS, LowWater

NOW = 1000.0


def warm() -> tuple[LowWater, float]:
    """A mark that saw a batch from event 100 on, long enough ago to count, and a full look just now."""
    low = LowWater()
    low.note_taken(NOW, 100)
    now = NOW + BEHIND_SECONDS + 0.1
    assert low.bound(now) == -1
    low.note_look(-1, now, now + 0.001, found=True)
    return low, now + 0.001


def test_the_first_look_sees_everything() -> None:
    assert LowWater().bound(NOW) == -1


def test_the_bound_is_below_the_first_event_of_a_batch_that_is_old_enough() -> None:
    low, now = warm()
    assert low.bound(now + 0.1) == 99


def test_a_batch_moves_the_bound_only_after_a_while() -> None:
    low, now = warm()
    low.note_taken(now, 500)
    assert low.bound(now + BEHIND_SECONDS - 1) == 99
    now += BEHIND_SECONDS + 0.1
    low.note_look(low.bound(now), now, now, found=True)
    assert low.bound(now) == 499


def test_a_look_without_the_bound_comes_every_few_seconds_however_busy() -> None:
    low, now = warm()
    looks = []
    for _ in range(200):
        now += 0.1
        looks.append(low.bound(now))
        low.note_look(looks[-1], now, now, found=True)
    assert looks.count(-1) == pytest.approx(20 / BEHIND_SECONDS, abs=1)


def test_an_empty_bounded_look_is_followed_by_one_without() -> None:
    low, now = warm()
    now += 0.1
    assert low.bound(now) == 99
    low.note_look(99, now, now + 0.001, found=False)
    assert low.bound(now + 0.001) == -1


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("slow_seconds", [0.02, 0.4, 2.0])
def test_slow_looks_without_the_bound_take_about_a_tenth_of_the_time(slow_seconds: float, found: bool) -> None:
    low, now = warm()
    spent, began = 0.0, now
    while now < began + 200:
        bound = low.bound(now)
        seconds = slow_seconds if bound == -1 else 0.001
        low.note_look(bound, now, now + seconds, found=found)
        now += seconds + 0.01
        spent += slow_seconds if bound == -1 else 0.0
    assert 0 < spent <= 0.12 * (now - began)


def test_a_late_event_found_lower_down_lowers_the_bound_again() -> None:
    low, now = warm()
    low.note_taken(now, 40)
    now += BEHIND_SECONDS + 0.1
    low.note_look(low.bound(now), now, now, found=True)
    assert low.bound(now) == 39
