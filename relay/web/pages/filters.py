"""The filters of a list, as its form sends them and as operations take them; pages share one spelling."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Self

from fastapi import Request

from outbox.control.filters import Filters

__all__ = ["FILTER_NAMES", "PAGE_ROWS", "SINCE", "Asked"]

PAGE_ROWS = 50
SINCE = {
    "1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30),
}  # fmt: skip
_OF_ATTEMPTS = ("outcome", "status", "text")
FILTER_NAMES = ("type", "key", "subscription", "tenant", "since")


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
            since=SINCE.get(self.values["since"]),
            type=self.values["type"] or None,
            key=self.values["key"] or None,
            subscription=self.values["subscription"] or None,
            tenant=self.values["tenant"] or None,
            **{name: self.values[name] for name in _OF_ATTEMPTS if self.values.get(name)},  # type: ignore[arg-type]
            limit=limit,
        )

    def without_page(self) -> Self:
        """Return the same from the first page on."""
        return replace(self, values=self.values | {"after": ""})
