"""What a file of subscriptions says in place of a secret: the environment variable or the file that holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outbox._text import brief
from outbox.errors import SubscriptionError
from outbox.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Place", "is_keep", "is_reference", "resolve"]

MAX_CHARACTERS = 262_144
"""Of one secret; the longest that a subscription takes is shorter."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Place:
    """Where references are looked up: the environment, and the directory that paths begin at."""

    environment: Mapping[str, str]
    directory: Path

    def __repr__(self) -> str:
        return f"Place({str(self.directory)!r})"


def is_keep(value: object) -> bool:
    """Tell whether it is `{ keep = true }`."""
    return isinstance(value, Mapping) and dict(value) == {"keep": True}


def is_reference(value: object) -> bool:
    """Tell whether it means to be a reference: a table with `env` or `file` and nothing else."""
    return isinstance(value, Mapping) and value.keys() in ({"env"}, {"file"}) and all(_is_text(value[k]) for k in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def resolve(field: str, reference: Mapping[str, Any], place: Place) -> tuple[Secret, str]:
    """Return the text that a reference stands for, without the line end after it, and its words: `from env NAME`.

    Raises SubscriptionError that begins with `field`, and never quotes the text.
    """
    ((kind, name),) = reference.items()
    text = _of_variable(field, name, place) if kind == "env" else _of_file(field, name, place)
    text = text.rstrip("\r\n")
    if not text.strip():
        raise SubscriptionError(f"{field}: {kind} {name} is empty; put the secret there")
    if len(text) > MAX_CHARACTERS:
        raise SubscriptionError(f"{field}: {kind} {name} has {len(text)} characters, the limit is {MAX_CHARACTERS}")
    return Secret(text), f"from {kind} {name}"


def _of_variable(field: str, name: str, place: Place) -> str:
    if not _VARIABLE.fullmatch(name):  # it may be the secret itself, so it is not quoted
        raise SubscriptionError(f"{field}: env must be the name of an environment variable, such as BILLING_SECRET")
    if name not in place.environment:
        raise SubscriptionError(f"{field}: the environment variable {name} is not set; set it, or give another one")
    return place.environment[name]


def _of_file(field: str, name: str, place: Place) -> str:
    try:
        with (place.directory / name).open(encoding="utf-8-sig", newline="") as file:
            return file.read(MAX_CHARACTERS + 2)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SubscriptionError(f"{field}: the file {brief(name)} cannot be read: {reason}") from None
