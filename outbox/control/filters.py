"""The filters of lists and bulk replays, as SQL conditions with bound parameters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from outbox.errors import OutboxError
from outbox.ids import SubscriptionId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

__all__ = ["FilterError", "Filters"]


class FilterError(OutboxError):
    """A filter was refused; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which rows to return. None is no condition; a timedelta is so long before the database's now.

    `tenant` selects rows. It does not say who asks and what they may see: that is an argument of each operation.
    """

    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None
    type: str | None = None
    tenant: str | None = None
    key: str | None = None
    subscription: UUID | str | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= 10_000:
            raise FilterError(f"limit: {self.limit} is not a number from 1 to 10000")
        for name in ("type", "tenant", "key"):
            _refuse_what_is_no_text(name, getattr(self, name))
        backwards = (
            (isinstance(self.since, datetime) and isinstance(self.until, datetime) and self.since >= self.until)
            or (isinstance(self.since, timedelta) and isinstance(self.until, timedelta) and self.since <= self.until)
        )  # fmt: skip
        if backwards:
            raise FilterError("since: is not before until; exchange them")

    @property
    def empty(self) -> bool:
        """Whether no filter is given; the limit is none."""
        return all(
            value is None for value in (self.since, self.until, self.type, self.tenant, self.key, self.subscription)
        )

    def where(self, columns: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """Return the conditions as SQL and its parameters.

        `columns` says which expression each filter is about: at (for since and until), type, tenant, key,
        subscription. A filter without a column is refused, not ignored.
        """
        given = {
            "since": self.since,
            "until": self.until,
            "type": self.type,
            "tenant": self.tenant,
            "key": self.key,
            "subscription": None if self.subscription is None else SubscriptionId.of(self.subscription),
        }
        conditions, parameters = ["true"], {"limit": self.limit}
        for name, value in given.items():
            if value is None:
                continue
            column = columns.get("at" if name in ("since", "until") else name)
            if column is None:
                raise FilterError(f"{name}: does not apply here")
            condition, bound = _condition(name, column, value)
            conditions.append(condition)
            parameters |= bound
        return " and ".join(conditions), parameters


def _condition(name: str, column: str, value: Any) -> tuple[str, dict[str, Any]]:
    if name in ("since", "until"):
        sign = ">=" if name == "since" else "<"
        if isinstance(value, timedelta):
            moment = f"clock_timestamp() - make_interval(secs => :{name})"
            return f"{column} {sign} {moment}", {name: value.total_seconds()}
        return f"{column} {sign} :{name}", {name: value}
    if name == "type" and value == "*":
        return "true", {}
    if name == "type" and value.endswith(".*"):
        return f"starts_with({column}, :type)", {"type": value[:-1]}
    return f"{column} = :{name}", {name: value}


def _refuse_what_is_no_text(name: str, value: str | None) -> None:
    """Refuse the bytes that a command line keeps as lone surrogates where its locale cannot read them; and NUL."""
    if value is None:
        return
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise FilterError(f"{name}: has bytes that the locale cannot read; use a UTF-8 locale, or PYTHONUTF8=1")
    if "\0" in value:
        raise FilterError(f"{name}: has a NUL character, which PostgreSQL cannot hold; remove it")
