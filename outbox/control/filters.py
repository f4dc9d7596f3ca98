"""The filters of lists and bulk replays, as SQL conditions with bound parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from outbox._text import brief
from outbox.errors import FilterError
from outbox.ids import EventId, SubscriptionId

__all__ = ["FAILED", "OUTCOMES", "SEQ_OF_EVENT", "FilterError", "Filters", "bound_of", "refuse_what_is_no_text"]

FAILED = "failed"
"""The word for every outcome but `delivered`."""
OUTCOMES = (
    *("delivered", "http_3xx", "http_4xx", "slowed", "http_5xx", "protocol", "timeout", "refused", "connection", "dns"),
    *("tls", "authorization", "blocked_address", "local", "stood_still", "aborted", "internal", "key_unavailable"),
    *("unsendable", "event_gone", "unformatted", "not_taken", "payload_unreadable", "transformation_failed"),
    "cancelled",
)
"""What an attempt can have come to; `cancelled` is the record of a delivery that a person cancelled."""

SEQ_OF_EVENT = """
select seq from outbox.events where id = :event_id
union all (select event_seq from outbox.dead_letters where event_id = :event_id limit 1) limit 1
"""
"""The number of an event, also of one past its retention that a dead letter has kept."""

_STATUS = re.compile(r"[1-9][0-9]{2}|[1-9]xx", re.IGNORECASE)
_MAX_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which rows to return. None is no condition; a timedelta is so long before the database's now.

    `tenant` selects rows. It does not say who asks and what they may see: that is an argument of each operation.
    `outcome` is one of OUTCOMES, or `failed` for all but delivered; `status` a status, 503, or a class, "5xx"; `text`
    is looked for as it is written, in payload, error and response. Where a list has no such thing, it is refused.
    """

    since: datetime | timedelta | None = None
    until: datetime | timedelta | None = None
    type: str | None = None
    tenant: str | None = None
    key: str | None = None
    subscription: UUID | str | None = None
    event: UUID | str | None = None
    outcome: str | None = None
    status: int | str | None = None
    text: str | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if type(self.limit) is not int or not 1 <= self.limit <= 10_000:
            raise FilterError(f"limit: {brief(self.limit)} is not a number from 1 to 10000")
        for name in ("since", "until"):
            _refuse_what_is_no_time(name, getattr(self, name))
        for name in ("type", "tenant", "key", "text"):
            refuse_what_is_no_text(name, getattr(self, name))
        if self.text is not None and not 1 <= len(self.text) <= _MAX_TEXT:
            raise FilterError(f"text: has {len(self.text)} characters; give 1 to {_MAX_TEXT}")
        if self.outcome is not None and self.outcome not in [FAILED, *OUTCOMES]:
            raise FilterError(f"outcome: {brief(self.outcome)} is not one of {FAILED}, {', '.join(OUTCOMES)}")
        if self.status is not None and not _is_status(self.status):
            raise FilterError(f"status: {brief(self.status)} is no status such as 503, and no class such as 5xx")
        backwards = (
            (isinstance(self.since, datetime) and isinstance(self.until, datetime) and self.since >= self.until)
            or (isinstance(self.since, timedelta) and isinstance(self.until, timedelta) and self.since <= self.until)
        )  # fmt: skip
        if backwards:
            raise FilterError("since: is not before until; exchange them")

    @property
    def empty(self) -> bool:
        """Whether no filter is given; the limit is none."""
        return all(getattr(self, each.name) is None for each in fields(self) if each.name != "limit")

    def given(self) -> dict[str, Any]:
        """Return the filters that are given, by name."""
        named = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "limit"}
        given = {name: value for name, value in named.items() if value is not None}
        for name, kind in (("subscription", SubscriptionId), ("event", EventId)):
            if name in given:
                given[name] = kind.of(given[name], name)
        return given

    def where(self, columns: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """Return the conditions as SQL and its parameters.

        `columns` says which expression each filter is about: at (for since and until), type, tenant, key,
        subscription, event (its number), outcome, status; for text it is the whole condition, on `:text`. A filter
        without a column is refused, not ignored.
        """
        conditions, parameters = ["true"], {"limit": self.limit}
        for name, value in self.given().items():
            column = columns.get("at" if name in ("since", "until") else name)
            if column is None:
                raise FilterError(f"{name}: does not apply here")
            condition, bound = _condition(name, column, value)
            conditions.append(condition)
            parameters |= bound
        return " and ".join(conditions), parameters


def _is_status(value: object) -> bool:
    if type(value) is int:
        return 100 <= value <= 999
    return isinstance(value, str) and _STATUS.fullmatch(value) is not None


def bound_of(name: str, column: str, filters: Filters) -> str:
    """Return the condition of `since` or `until`, which is given, on this column; its parameter has the same name."""
    return _condition(name, column, getattr(filters, name))[0]


def _condition(name: str, column: str, value: Any) -> tuple[str, dict[str, Any]]:
    if name in ("since", "until"):
        sign = ">=" if name == "since" else "<"
        if isinstance(value, timedelta):
            # Not clock_timestamp(): no index is asked about what may change from row to row.
            moment = f"statement_timestamp() - make_interval(secs => :{name})"
            return f"{column} {sign} {moment}", {name: value.total_seconds()}
        return f"{column} {sign} :{name}", {name: value}
    if name == "type" and value == "*":
        return "true", {}
    if name == "type" and value.endswith(".*"):
        return f"starts_with({column}, :type)", {"type": value[:-1]}
    if name == "event":
        return f"{column} = ({SEQ_OF_EVENT})", {"event_id": value}
    if name == "outcome" and value == FAILED:
        return f"{column} <> 'delivered'", {}
    if name == "status" and str(value)[1:].lower() == "xx":
        return f"{column} / 100 = :status", {"status": int(str(value)[0])}
    if name == "status":
        return f"{column} = :status", {"status": int(value)}
    return (column if name == "text" else f"{column} = :{name}"), {name: value}


def _refuse_what_is_no_time(name: str, value: object) -> None:
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise FilterError(f"{name}: a datetime without time zone is ambiguous; give it a tzinfo")
    if not isinstance(value, datetime | timedelta | None):
        raise FilterError(f"{name}: must be a datetime or a timedelta, not {brief(value)}")


def refuse_what_is_no_text(name: str, value: object) -> None:
    """Refuse the bytes that a command line keeps as lone surrogates where its locale cannot read them; and NUL."""
    if value is None:
        return
    if not isinstance(value, str):
        raise FilterError(f"{name}: must be a str, not {brief(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise FilterError(f"{name}: has bytes that the locale cannot read; use a UTF-8 locale, or PYTHONUTF8=1")
    if "\0" in value:
        raise FilterError(f"{name}: has a NUL character, which PostgreSQL cannot hold; remove it")
