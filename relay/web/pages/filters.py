"""The filters of a list, as its form sends them and as operations take them; pages share one spelling.

A time is read as everywhere: 2026-01-31T12:00Z, a day, or how long ago.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from fastapi import Request

from outbox.control.filters import FilterError, Filters
from outbox.control.times import moment_of
from outbox.errors import OutboxError

__all__ = ["FILTER_NAMES", "PAGE_ROWS", "SINCE", "Asked", "times_in", "wrong_of"]

PAGE_ROWS = 50
SINCE = {
    "1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30),
}  # fmt: skip
"""What the portal offers; the dashboard takes any time."""
_OF_ATTEMPTS = ("outcome", "status", "text")
FILTER_NAMES = ("type", "key", "subscription", "event", "tenant", "since", "until")
_MOST_CHARACTERS = 40  # of a time


def times_in(values: Mapping[str, str]) -> dict[str, Any]:
    """Return `since` and `until`, read; None where nothing is asked. Raises FilterError, which names the field."""
    return {name: _time_in(name, values.get(name, "").strip()) for name in ("since", "until")}


def _time_in(name: str, text: str) -> datetime | timedelta | None:
    try:
        return moment_of(text[:_MOST_CHARACTERS]) if text else None
    except ValueError as error:
        raise FilterError(f"{name}: {error}") from None


def wrong_of(error: OutboxError) -> dict[str, str]:
    """Return what is wrong by the name of its field, for a form that says it beside that."""
    name, _, said = str(error).partition(": ")
    return {name: said} if said else {}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for: texts by name, '' where nothing is asked."""

    values: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request, *more: str) -> Self:
        """Return what a page's address asks for; `more` names what it has besides the filters of every list."""
        given = request.query_params
        return cls({name: given.get(name, "").strip() for name in (*FILTER_NAMES, *more, "after")})

    def __getattr__(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def is_filtered(self) -> bool:
        """Whether anything is asked for but a page."""
        return any(value for name, value in self.values.items() if name != "after")

    @property
    def cursor(self) -> str | None:
        """The cursor of the page, as operations take it."""
        return self.values["after"] or None

    def filters(self, limit: int = PAGE_ROWS) -> Filters:
        """Return them as operations take them. Raises FilterError, or NotFoundError for what is no id."""
        return Filters(
            **times_in(self.values),
            type=self.values["type"] or None,
            key=self.values["key"] or None,
            subscription=self.values["subscription"] or None,
            event=self.values["event"] or None,
            tenant=self.values["tenant"] or None,
            **{name: self.values[name] for name in _OF_ATTEMPTS if self.values.get(name)},  # type: ignore[arg-type]
            limit=limit,
        )

    def without_page(self) -> Self:
        """Return the same from the first page on."""
        return replace(self, values=self.values | {"after": ""})
