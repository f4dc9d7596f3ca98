"""Charts as SVG: pure functions from points to markup, with axes, units and a tooltip for each point.

No colour is in the markup: each series has a class, and the style sheet knows dark from light. A chart is drawn twice,
for narrow and for wide screens, since text in a picture that is scaled down cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from relay.web.pages.scales import Scale, amount, scale_of, time_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

__all__ = ["CHART_WORDS", "NARROW", "WIDE", "Point", "deliveries_chart", "latency_chart"]

CHART_WORDS = {
    "attempts": "Attempts",
    "told": "{delivered} attempts delivered and {failed} failed",
    "tip": "{delivered} delivered, {failed} failed",
    "unit": "attempts in {length}",
    "latency": "Time to answer",
    "told_latency": "Of delivered requests the slowest hundredth took up to {most} ms",
    "unit_latency": "milliseconds",
    "none": "none delivered",
    "span": " from {start} UTC on.",
}
"""What a chart says; the portal has it in other languages too."""
WIDE = 560
NARROW = 320
_HEIGHT = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 22, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was attempted in `seconds` from `start` on; p50, p95 and p99 are milliseconds, None where none delivered."""

    start: datetime
    seconds: int
    delivered: int
    failed: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class _Plot:
    """The area between the axes: where a point and a value lie in a picture of this width, in pixels."""

    width: int
    points: Sequence[Point]
    scale: Scale

    @property
    def step(self) -> float:
        """How wide a point is."""
        return (self.width - _LEFT - _RIGHT) / max(1, len(self.points))

    def x(self, place: float) -> float:
        """Return where the point at this place begins."""
        return _LEFT + place * self.step

    def y(self, value: float) -> float:
        """Return how far from the top a value is."""
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * min(1.0, value / self.scale.top)


def deliveries_chart(points: Sequence[Point], width: int, name: str, words: Mapping[str, str] = CHART_WORDS) -> Markup:
    """Return attempts that were delivered and that failed, one bar above the other; `name` is unique in the page."""
    plot = _Plot(width, points, scale_of(max((one.delivered + one.failed for one in points), default=0), whole=True))
    bars = Markup("").join(_bar(plot, place, one) for place, one in enumerate(points))
    delivered, failed = sum(one.delivered for one in points), sum(one.failed for one in points)
    told = words["told"].format(delivered=f"{delivered:,}", failed=f"{failed:,}") + _span(points, words)
    tips = _tips(plot, lambda one: words["tip"].format(delivered=f"{one.delivered:,}", failed=f"{one.failed:,}"))
    unit = words["unit"].format(length=_length(points))
    return _picture(plot, name, words["attempts"], told, unit, bars + tips)


def latency_chart(points: Sequence[Point], width: int, name: str, words: Mapping[str, str] = CHART_WORDS) -> Markup:
    """Return how long delivered requests took: the 50th, 95th and 99th percentile in milliseconds, a line each."""
    most = max((value for one in points for value in (one.p50, one.p95, one.p99) if value is not None), default=0.0)
    plot = _Plot(width, points, scale_of(most, whole=False))
    series: tuple[tuple[str, Callable[[Point], float | None]], ...] = (
        ("p99", lambda one: one.p99), ("p95", lambda one: one.p95), ("p50", lambda one: one.p50),
    )  # fmt: skip
    lines = Markup("").join(_line(plot, css, value_of) for css, value_of in series)
    tips = _tips(plot, lambda one: _latencies(one, words))
    told = words["told_latency"].format(most=f"{most:,.0f}") + _span(points, words)
    return _picture(plot, name, words["latency"], told, words["unit_latency"], lines + tips)


def _latencies(one: Point, words: Mapping[str, str]) -> str:
    if one.p50 is None or one.p95 is None or one.p99 is None:
        return words["none"]
    return f"p50 {one.p50:,.0f} ms, p95 {one.p95:,.0f} ms, p99 {one.p99:,.0f} ms"


def _picture(plot: _Plot, name: str, title: str, told: str, unit: str, drawn: Markup) -> Markup:
    """Frame what was drawn: title and summary for a screen reader, unit, axes with ticks."""
    template = Markup(
        '<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        '<title id="{name}-t">{title}</title><desc id="{name}-d">{told}</desc>'
        '<text class="unit" x="0" y="12">{unit}</text>{axes}{drawn}</svg>'
    )
    return template.format(
        width=plot.width, height=_HEIGHT, name=name, title=title, told=told, unit=unit, axes=_axes(plot), drawn=drawn
    )


def _axes(plot: _Plot) -> Markup:
    return Markup("").join([*_values(plot), *_times(plot)])


def _values(plot: _Plot) -> list[Markup]:
    """Draw a line and a label for each tick of the values."""
    template = Markup(
        '<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        '<text class="tick" x="{label}" y="{below}" text-anchor="end">{text}</text>'
    )
    right, left, label = plot.width - _RIGHT, _LEFT, _LEFT - 6
    ticks = [(round(plot.y(value), 1), amount(value)) for value in plot.scale.ticks]
    return [template.format(left=left, right=right, label=label, y=y, below=y + 4, text=text) for y, text in ticks]


def _times(plot: _Plot) -> list[Markup]:
    """Draw a label below every so many points, none of which touches another or the border."""
    if not plot.points:
        return []
    seconds = plot.points[0].seconds * len(plot.points)
    room = 52 if seconds <= 2 * 86_400 else 64
    every = max(1, -(-len(plot.points) * room // (plot.width - _LEFT - _RIGHT)))
    template = Markup('<text class="tick" x="{x}" y="{y}">{text}</text>')
    return [
        template.format(x=round(plot.x(place), 1), y=_HEIGHT - 7, text=time_label(one.start, seconds))
        for place, one in enumerate(plot.points)
        if place % every == 0 and plot.x(place) + room - 14 <= plot.width
    ]


def _bar(plot: _Plot, place: int, one: Point) -> Markup:
    gap = 1 if plot.step > 4 else 0
    x, width = round(plot.x(place) + gap / 2, 1), round(plot.step - gap, 1)
    base, middle, top = plot.y(0), plot.y(one.delivered), plot.y(one.delivered + one.failed)
    template = Markup('<rect class="{css}" x="{x}" y="{y}" width="{width}" height="{height}"/>')
    parts = (("delivered", base, middle, one.delivered), ("failed", middle, top, one.failed))
    return Markup("").join(
        template.format(css=css, x=x, y=round(high, 1), width=width, height=round(max(low - high, 1.0), 1))
        for css, low, high, value in parts
        if value
    )


def _line(plot: _Plot, css: str, value_of: Callable[[Point], float | None]) -> Markup:
    """Draw a line for each run of points that have the value, a dot where a run is one point."""
    drawn, run = Markup(""), list[tuple[float, float]]()
    for place, one in enumerate([*plot.points, None]):
        value = None if one is None else value_of(one)
        if value is not None:
            run.append((round(plot.x(place + 0.5), 1), round(plot.y(value), 1)))
        elif run:
            drawn, run = drawn + _run(css, run), []
    return drawn


def _run(css: str, run: Sequence[tuple[float, float]]) -> Markup:
    if len(run) == 1:
        ((x, y),) = run
        return Markup('<circle class="{css} dot" cx="{x}" cy="{y}" r="2.5"/>').format(css=css, x=x, y=y)
    points = " ".join(f"{x},{y}" for x, y in run)
    return Markup('<polyline class="{css} line" points="{points}"/>').format(css=css, points=points)


def _tips(plot: _Plot, words_of: Callable[[Point], str]) -> Markup:
    """Lay an invisible column over each point, whose title a mouse shows."""
    template = Markup(
        '<rect class="tip" x="{x}" y="{y}" width="{width}" height="{height}"><title>{words}</title></rect>'
    )
    height = _HEIGHT - _TOP - _BOTTOM
    return Markup("").join(
        template.format(
            x=round(plot.x(place), 1), y=_TOP, width=round(plot.step, 1), height=height,
            words=f"{one.start:%Y-%m-%d %H:%M}Z: {words_of(one)}",
        )
        for place, one in enumerate(plot.points)
    )  # fmt: skip


def _span(points: Sequence[Point], words: Mapping[str, str]) -> str:
    return words["span"].format(start=f"{points[0].start:%Y-%m-%d %H:%M}") if points else "."


def _length(points: Sequence[Point]) -> Markup:
    seconds = points[0].seconds if points else 60
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return escape(f"{seconds // size} {unit}")
    return escape(f"{seconds} s")
