"""How long the relay rests: quick after work, easing to slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.poll_interval import QUIET_AT_START_SECONDS, pause_seconds

quiet = st.floats(0, 1e7)
random_number = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("quiet_seconds", "seconds"), [(0, 0.008), (60, 0.008), (330, 0.129), (600, 0.250), (1e7, 0.250)]
)
def test_eight_milliseconds_for_a_minute_then_easing_to_a_quarter_second(quiet_seconds: float, seconds: float) -> None:
    assert pause_seconds(quiet_seconds, 1, 0.5) == pytest.approx(seconds)


@given(quiet, st.integers(1, 64), random_number)
def test_jitter_is_a_fifth_either_way(quiet_seconds: float, processes: int, random_number: float) -> None:
    middle = pause_seconds(quiet_seconds, processes, 0.5)
    assert 0.8 * middle * 0.999 <= pause_seconds(quiet_seconds, processes, random_number) <= 1.2 * middle * 1.001


@given(quiet, quiet, st.integers(1, 64))
def test_the_longer_it_is_quiet_the_longer_the_rest(one: float, other: float, processes: int) -> None:
    shorter, longer = sorted([one, other])
    assert pause_seconds(shorter, processes, 0.5) <= pause_seconds(longer, processes, 0.5)


@given(st.integers(1, 64))
def test_processes_share_the_looking_while_busy(processes: int) -> None:
    """All together they look no more often than one alone would."""
    assert processes / pause_seconds(0.0, processes, 0.5) == pytest.approx(1 / pause_seconds(0.0, 1, 0.5))


@given(st.floats(0.01, 10))
def test_the_longest_rest_is_a_setting(slow_seconds: float) -> None:
    assert pause_seconds(600, 1, 0.5, slow_seconds) == pytest.approx(slow_seconds)
    assert pause_seconds(60, 1, 0.5, slow_seconds) == pytest.approx(0.008)


@pytest.mark.field("F76")
def test_a_relay_that_starts_where_nothing_happens_looks_forty_times_a_second_at_most() -> None:
    assert 1 / pause_seconds(QUIET_AT_START_SECONDS, 1, 0.5) <= 40
