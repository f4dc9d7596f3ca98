"""A recorded event as its recorder sees it, and the keywords that it is recorded with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypedDict

__all__ = ["Event", "EventOptions"]


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event. Others see it once its transaction has committed, and only then.

    `id` is the `webhook-id` of every delivery (`evt_…`); `available_at` is as given to `record()`, also where an
    idempotency key found the event recorded already. `recorded` is False for an event that was silenced, or refused at
    once where errors are logged: nobody will ever see it, and its id is of nothing but a line in the log.
    """

    id: str
    type: str
    key: str | None
    tenant: str
    available_at: datetime | timedelta | None
    recorded: bool = True


class EventOptions(TypedDict, total=False):
    """The keywords of `record()`."""

    key: str | None
    tenant: str
    available_at: datetime | timedelta | None
    idempotency_key: str | None
    priority: int
    trace: Mapping[str, str] | None
    metadata: Mapping[str, str] | None
    on_error: Literal["raise", "log"]
