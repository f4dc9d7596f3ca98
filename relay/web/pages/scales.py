"""The scale of a chart's axis: round ticks for values, short labels for numbers and times. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Scale", "amount", "scale_of", "time_label"]

_TICKS = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """The round values that are marked, from zero up to `top`."""

    ticks: tuple[float, ...]

    @property
    def top(self) -> float:
        """The greatest value that there is room for."""
        return self.ticks[-1]


def scale_of(most: float, *, whole: bool) -> Scale:
    """Return a scale from zero to `most` or a little above, with about five ticks; `whole`: no fractions."""
    rough = max(most, 1.0) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = math.ceil(step)
    return Scale(tuple(step * place for place in range(max(1, math.ceil(most / step - 1e-9)) + 1)))


def amount(value: float) -> str:
    """Return a number as a tick has it: 0, 2.5, 750, 1.5k, 20k, 3M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def time_label(moment: datetime, seconds: int) -> str:
    """Return a time as the axis of a chart over so many seconds has it, in UTC: 14:30, or 29 Nov."""
    return f"{moment:%H:%M}" if seconds <= 2 * 86_400 else f"{moment.day} {moment:%b}"
