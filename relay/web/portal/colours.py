"""The portal's colour as the style sheet takes it: made darker or lighter until text in it can be read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DARK_GROUNDS", "LIGHT_GROUNDS", "contrast", "legible", "style_of"]

LIGHT_GROUNDS = ("#f6f7f9", "#ffffff", "#eef1f5", "#e3edfb")
DARK_GROUNDS = ("#10141a", "#181e27", "#222a36", "#17304f")
"""What text in the accent colour stands on, as in relay.css."""
_CONTRAST = 4.5  # WCAG 2.2, AA
_STEPS = 100

Rgb = tuple[float, float, float]


def style_of(colours: Sequence[str]) -> str:
    """Return the style sheet for one or two colours `#rrggbb` (light, dark), '' for none."""
    if not colours:
        return ""
    light, dark = legible(colours[0], LIGHT_GROUNDS, "#000000"), legible(colours[-1], DARK_GROUNDS, "#ffffff")
    on_light, on_dark = _text_on(light), _text_on(dark)
    return f":root {{ --accent: light-dark({light}, {dark}); --on-accent: light-dark({on_light}, {on_dark}); }}\n"


def legible(colour: str, grounds: Sequence[str], towards: str) -> str:
    """Return the colour, mixed with as much of another as text in it needs to be read on every one of the grounds."""
    for step in range(_STEPS + 1):
        mixed = _mix(colour, towards, step / _STEPS)
        if all(contrast(mixed, ground) >= _CONTRAST for ground in grounds):
            return mixed
    return towards


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it, 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _text_on(colour: str) -> str:
    return max("#ffffff", "#000000", key=lambda text: contrast(text, colour))


def _rgb(colour: str) -> Rgb:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def _mix(colour: str, other: str, share: float) -> str:
    mixed = (a + (b - a) * share for a, b in zip(_rgb(colour), _rgb(other), strict=True))
    return "#" + "".join(f"{round(value * 255):02x}" for value in mixed)


def _luminance(colour: str) -> float:
    linear = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in _rgb(colour))
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
