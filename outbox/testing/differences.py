"""Compare what a test wants of an event's data with what it is; say each difference with its path. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["differences", "shown"]

_SHOWN = 300


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Return where `found` is not as wanted, a line each; none where it is.

    Of a mapping the wanted members must be there, whatever else is. A function is asked. The rest must be equal; True
    is not 1, as in JSON.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(found, Mapping):
            return [_unequal(path, wanted, found)]
        lines = []
        for name, value in wanted.items():
            inner = f"{path}.{name}" if path else str(name)
            lines += differences(value, found[name], inner) if name in found else [f"{inner}: is missing"]
        return lines
    if callable(wanted) and not isinstance(wanted, type):
        return [] if wanted(found) else [f"{path}: {shown(found)} is refused by the function"]
    same_kind = isinstance(wanted, bool) is isinstance(found, bool) or not isinstance(wanted, bool | int | float)
    return [] if same_kind and wanted == found else [_unequal(path, wanted, found)]


def shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _unequal(path: str, wanted: object, found: object) -> str:
    return f"{path}: wanted {shown(wanted)}, is {shown(found)}"
