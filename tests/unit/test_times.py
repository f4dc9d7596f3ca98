"""How times, lengths of time and text from outside are written: nothing steers a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.control.times import ago_text, duration, moment_of, rfc3339
from relay.cli.output import escape


@pytest.mark.case("C28")
@given(st.text())
def test_what_is_printed_moves_no_cursor_and_starts_no_escape(text):
    assert escape(text).isprintable()


@pytest.mark.case("C28", "B36")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\u202eb", "a\\u202eb"),
        ("a\r\nb\t", "a\\r\\nb\\t"),
        ("\x9b31m", "\\x9b31m"),
        ("Grüße 日本", "Grüße 日本"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (-3, "0s"), (59.9, "59s"), (320, "5m 20s"), (11_520, "3h 12m"), (349_200, "4d 1h")],
)
def test_lengths_of_time_have_two_units(seconds, shown):
    assert duration(seconds) == shown


def test_a_time_is_in_utc_to_the_microsecond() -> None:
    moment = datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
    assert rfc3339(moment) == "2026-01-31T12:00:00.000000Z"


@pytest.mark.parametrize("text", ["0d", "90s", "15m", "2h", "3d", "999999s", "36500d"])
def test_a_length_of_time_is_written_as_it_is_read(text: str) -> None:
    length = moment_of(text)
    assert isinstance(length, timedelta)
    assert ago_text(length) == text
