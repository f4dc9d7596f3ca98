"""Charts, their scales, and how values are written on a page."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from relay.web.pages import display
from relay.web.pages.charts import NARROW, WIDE, Point, deliveries_chart, latency_chart
from relay.web.pages.scales import amount, scale_of, time_label

START = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def points(count: int, seconds: int = 60) -> list[Point]:
    return [
        Point(start=START + timedelta(seconds=seconds * n), seconds=seconds, delivered=n * 3, failed=n % 4,
              p50=None if n % 5 == 0 else 10.0 * n, p95=None if n % 5 == 0 else 12.0 * n,
              p99=None if n % 5 == 0 else 20.0 * n)
        for n in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("count", [0, 1, 2, 30, 60])
@pytest.mark.parametrize("chart", [deliveries_chart, latency_chart])
def test_a_chart_is_well_formed_inside_its_picture_and_has_a_tooltip_a_point(chart, count: int, width: int) -> None:
    drawn = ET.fromstring(chart(points(count), width, "c"))
    assert drawn.attrib["role"] == "img"
    assert {one.attrib["id"] for one in drawn if "id" in one.attrib} == {"c-t", "c-d"}
    assert len(drawn.findall("rect[@class='tip']/title")) == count
    for rect in drawn.iter("rect"):
        x, wide = float(rect.attrib["x"]), float(rect.attrib["width"])
        y, high = float(rect.attrib["y"]), float(rect.attrib["height"])
        assert 0 <= x <= x + wide <= width + 0.2
        assert 0 <= y <= y + high <= 210
    assert not [one for one in drawn.iter() if {"style", "fill", "onclick"} & set(one.attrib)]


def test_bars_are_as_high_as_their_numbers_and_stand_on_each_other() -> None:
    drawn = ET.fromstring(deliveries_chart(points(4), WIDE, "c"))
    delivered = [float(one.attrib["height"]) for one in drawn.findall("rect[@class='delivered']")]
    assert delivered == pytest.approx([delivered[0], 2 * delivered[0], 3 * delivered[0]], abs=0.2)
    failed = drawn.findall("rect[@class='failed']")[2]
    good = drawn.findall("rect[@class='delivered']")[2]
    assert float(failed.attrib["y"]) + float(failed.attrib["height"]) == pytest.approx(float(good.attrib["y"]))


def test_a_line_ends_where_nothing_was_attempted() -> None:
    drawn = ET.fromstring(latency_chart(points(11), WIDE, "c"))
    assert len(drawn.findall("polyline[@class='p50 line']")) == 2
    alone = points(2)
    assert len(ET.fromstring(latency_chart(alone, WIDE, "c")).findall("circle[@class='p99 dot']")) == 1


@given(st.floats(0, 1e12), st.booleans())
def test_a_scale_has_round_ticks_from_zero_to_above_the_most(most: float, whole: bool) -> None:
    ticks = scale_of(most, whole=whole).ticks
    assert ticks[0] == 0
    assert ticks[-1] >= most * 0.999
    assert 2 <= len(ticks) <= 6
    assert all(later > earlier for earlier, later in pairwise(ticks))
    assert not whole or all(float(tick).is_integer() for tick in ticks)


def test_ticks_are_short() -> None:
    assert [amount(value) for value in (0, 2.5, 750, 1500, 20_000, 3e6, 4e9)] == [
        "0", "2.5", "750", "1.5k", "20k", "3M", "4G",
    ]  # fmt: skip
    assert (time_label(START, 3600), time_label(START, 7 * 86_400)) == ("23:30", "1 Mar")


@given(st.text())
def test_what_a_template_prints_has_no_character_that_hides_or_turns_text(text: str) -> None:
    shown = display.finalize(text)
    assert shown.isprintable()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x1f\x7f]", shown)
    assert display.finalize(Markup("<b>\n")) == "<b>\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON, st.booleans())
def test_indenting_moves_tokens_apart_and_changes_none(value: object, compact: bool) -> None:
    text = json.dumps(value, separators=(",", ":") if compact else None, ensure_ascii=compact)
    assert display.indented(text) == json.dumps(value, indent=2, ensure_ascii=compact)


@pytest.mark.parametrize("text", ["", "{", "1.50e400", '{"a":1.50}', "[" * 5000, "not json"])
def test_indenting_leaves_numbers_as_they_are_and_what_is_no_json_alone(text: str) -> None:
    assert re.sub(r"\s", "", display.indented(text)) == re.sub(r"\s", "", text)


def test_very_deep_values_are_not_indented_to_megabytes() -> None:
    """White space in front of each of forty thousand numbers, nine hundred levels deep, was seventy megabytes."""
    text = "[" * 900 + "1," * 40_000 + "1" + "]" * 900
    shown = display.indented(text)
    assert len(shown) < 5_000_000
    assert re.sub(r"\s", "", shown) == text


def test_times_and_lengths_are_said_in_words() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert display.ago(now - timedelta(minutes=5), now) == "5m 0s ago"
    assert display.ago(now + timedelta(hours=2), now) == "in 2h 0m"
    assert (display.ago(now, now), display.ago(None, now)) == ("now", "")
    assert [display.seconds(one) for one in (None, -3.0, 0.25, 41.0, 7200.0)] == ["–", "0 s", "250 ms", "41s", "2h"]
    assert "2026-03-01 00:00:00Z" in display.moment(now)
