"""The values of a row's columns by attribute name: as an object has them before and after a flush.

What an object does not hold (expired, deferred, made by the database) is UNKNOWN here; rows.py reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import InstanceState
from sqlalchemy.orm.base import NO_VALUE

from outbox.capturing.shape import Shape

__all__ = ["UNKNOWN", "Image", "after_insert", "after_update", "before", "differing", "has_unknown"]

Image = dict[str, Any]

UNKNOWN: Final = object()
"""Stands for a value that only the database knows."""

_ATOMS = frozenset({NoneType, bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta, UUID, object})


def before(state: InstanceState[Any], shape: Shape) -> Image:
    """Return a row as it was before the changes that are not flushed yet."""
    values = state.dict
    image = {name: values.get(name, UNKNOWN) for name in shape.names}
    for name, old in state.committed_state.items():
        if name in image:
            image[name] = UNKNOWN if old is NO_VALUE else old
    return _kept(image)


def after_insert(state: InstanceState[Any], shape: Shape) -> Image:
    """Return a row as it was just inserted. What nobody gave is null, unless the database has a default for it."""
    values = state.dict
    image = {name: values.get(name, UNKNOWN) for name in shape.names}
    if has_unknown(image):
        open_ = shape.defaulted | state.expired_attributes
        for name in [name for name, value in image.items() if value is UNKNOWN and name not in open_]:
            image[name] = None
    return _kept(image)


def after_update(
    state: InstanceState[Any], shape: Shape, was: Image, changed: Collection[str], expired: Collection[str]
) -> Image:
    """Return a row as it was just updated.

    `was`: the image before it; `changed`: what the flush was to change; `expired`: what was not loaded before it, and
    was not set in it. What has expired since is SQL that a later listener set, or what the database makes of a row.
    """
    values = state.dict
    image = {name: values.get(name, UNKNOWN) for name in shape.names}
    if has_unknown(image):
        open_ = {*changed, *state.expired_attributes.difference(expired, shape.key)}
        if not shape.every.isdisjoint(changed):
            open_ |= shape.volatile
        for name, value in image.items():
            if value is UNKNOWN and name not in open_:
                image[name] = was[name]
    return _kept(image)


def has_unknown(image: Image) -> bool:
    """Tell whether the database has to be asked for a value."""
    return object in map(type, image.values())


def differing(one: Image, other: Image, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names whose values differ."""
    # A list: it takes two thirds of a generator's time, and each changed row asks twice.
    return tuple([name for name in names if one[name] is not other[name] and not _is_same(one[name], other[name])])


def _is_same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - a foreign type that cannot be compared, such as an array of numpy
        return False


def _kept(image: Image) -> Image:
    """Return the image with copies of what the application may still change."""
    if not _ATOMS.issuperset(map(type, image.values())):
        for name, value in image.items():
            image[name] = _copied(value)
    return image


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    if isinstance(value, set | bytearray):
        return type(value)(value)
    return value
