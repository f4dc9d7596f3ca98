"""Patterns of event types, as subscriptions and silences have them: which there are, and what each matches."""

from __future__ import annotations

import re
from collections.abc import Sequence

from outbox._text import MAX_TYPE_BYTES, brief
from outbox.errors import SubscriptionError

__all__ = ["check_patterns", "covers", "patterns_of"]

_PATTERN = re.compile(r"\*|[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*(\.\*)?")
_MAX_TYPES = 200


def check_patterns(name: str, value: object) -> tuple[str, ...]:
    """Return the type patterns without repetitions: `*`, an exact type, or a prefix followed by `.*`."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise SubscriptionError(f"{name}: give a list of 1 to 200 patterns, such as ['order.created', 'user.*']")
    patterns = tuple(dict.fromkeys(_check_pattern(name, item) for item in value))
    if len(patterns) > _MAX_TYPES:
        raise SubscriptionError(f"{name}: {len(patterns)} patterns, the limit is {_MAX_TYPES}; use a prefix and .*")
    return patterns


def _check_pattern(name: str, value: object) -> str:
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        raise SubscriptionError(
            f"{name}: {brief(value)} is not a pattern; use a type (order.created), a prefix (order.*) or *"
        )
    if len(value) > MAX_TYPE_BYTES:
        raise SubscriptionError(f"{name}: a pattern has {len(value)} characters, the limit is {MAX_TYPE_BYTES}")
    return value


def covers(pattern: str, type_: str) -> bool:
    """Tell whether a pattern matches a type. As `patterns_of` it is a twin of outbox.patterns_of, the function in SQL.

    `*` is every event of the application; those of the relay are asked for by `relay.*` or a longer pattern.
    """
    if pattern == "*":
        return not type_.startswith("relay.")
    return pattern == type_ or (pattern.endswith(".*") and type_.startswith(pattern[:-1]))


def patterns_of(type_: str) -> list[str]:
    """Return the patterns that match a type, the longest prefix before the shorter ones."""
    patterns = [type_] if type_.startswith("relay.") else ["*", type_]
    end = type_.rfind(".")
    while end >= 0:
        patterns.append(f"{type_[:end]}.*")
        end = type_.rfind(".", 0, end)
    return patterns
