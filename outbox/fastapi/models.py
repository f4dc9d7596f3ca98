"""The bodies of the API: what it takes and what it answers, with the names that a Shape gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from outbox.fastapi.shape import Shape

__all__ = ["SHOWN_CHARACTERS", "EventType", "History", "Models", "Retried", "Statistics", "Tested"]

SHOWN_CHARACTERS = 1_000
"""How much of a response's body is shown."""


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Settings(_Given):
    description: str | None = None
    headers: Annotated[dict[str, str] | None, Field(description="Sent along with every request; never shown")] = None


class EventType(BaseModel):
    """An event type that a webhook can get."""

    name: str
    description: str
    group: str


class _Webhook(BaseModel):
    """A webhook. Of its own headers it has the names; its secret is told once, when it is made."""

    id: str
    url: str
    description: str
    is_active: bool
    status: Annotated[str, Field(description="active, paused, or disabled by its receiver's answers")]
    disabled_reason: str | None
    headers: list[str]
    retry_count: int
    timeout_seconds: int
    success_count: Annotated[int, Field(description="Deliveries that arrived")]
    failure_count: Annotated[int, Field(description="Deliveries that were given up")]
    last_triggered_at: datetime | None
    last_error: Annotated[str | None, Field(description="Of the last attempt, where it failed")]
    created_at: datetime
    updated_at: datetime


class _Secret(BaseModel):
    secret: Annotated[str, Field(description="Shown this once; '' where requests are unsigned")]


class _Page(BaseModel):
    total: int
    limit: int
    offset: int
    has_more: bool
    next: Annotated[str | None, Field(description="Give it as `after` for the next page; quicker than offset")]


class _Entry(BaseModel):
    """One attempt to deliver, or with the status `pending` a delivery that waits."""

    id: Annotated[str, Field(description="The delivery's; its attempts share it")]
    webhook_id: str
    event_id: str | None
    status: Annotated[str, Field(description="delivered, retry, dead, cancelled, test, or pending")]
    attempt: int
    payload: Annotated[
        Any,
        Field(
            description="The event's data, as text where Python cannot write it; null for a test or past its retention"
        ),
    ]
    status_code: int | None
    response_body: Annotated[
        str | None, Field(description=f"Its first {SHOWN_CHARACTERS:,} characters, as far as it is kept")
    ]
    response_time_ms: int | None
    error: str | None
    created_at: datetime | None
    due_at: Annotated[datetime | None, Field(description="When it is tried, of one that is pending")]


class History(BaseModel):
    """A page of a webhook's history, the newest first."""

    limit: int
    offset: int
    has_more: bool
    next: Annotated[str | None, Field(description="Give it as `after` for the next page")]


class Tested(BaseModel):
    """What came of a test."""

    success: bool
    status_code: int | None
    response_time_ms: int
    response_body: str | None
    error: str | None


class Retried(BaseModel):
    """The delivery that is under way now: the same, or a new one where it had been given up or had arrived."""

    id: str


class Statistics(BaseModel):
    """What became of a webhook's deliveries since a time; milliseconds are of those that arrived."""

    since: datetime
    success_count: int
    failure_count: int
    failed_attempts: int
    success_rate: Annotated[float | None, Field(description="Of attempts, 0 to 1; null without one")]
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_error: str | None


_make: Any = create_model  # its types know no fields whose names are data


def _list_of(model: Any) -> Any:
    return list[model]


class Models:
    """The bodies whose fields have other names or bounds in another shape."""

    def __init__(self, shape: Shape) -> None:
        events = {shape.events: (list[str], ...)}
        retries = Annotated[int, Field(ge=0, le=shape.most_retries)]
        seconds = Annotated[int, Field(ge=1, le=shape.longest_timeout_seconds)]
        own: Any = (str | None, Field(default=None, description="Your own; one is made where it is left out"))
        self.new: Any = _make(
            "NewWebhook", __base__=_Settings, url=(str, ...), **events, secret=own, is_active=(bool, True),
            retry_count=(retries, shape.retry_count), timeout_seconds=(seconds, shape.timeout_seconds),
        )  # fmt: skip
        self.changes: Any = _make(
            "WebhookChanges", __base__=_Settings, url=(str, ""), **{shape.events: (list[str], [])},
            secret=(str, ""), is_active=(bool, True), retry_count=(retries | None, None),
            timeout_seconds=(seconds | None, None),
        )  # fmt: skip
        self.rotation: Any = _make("Rotation", __base__=_Given, secret=own)
        self.test: Any = _make(
            "WebhookTest", __base__=_Given, **{shape.event: (str, shape.test_type)},
            payload=(Any, Field(default=None, description="The data to send; {\"test\": true} where it is left out")),
        )  # fmt: skip
        self.webhook: Any = _make("Webhook", __base__=_Webhook, **events)
        self.told: Any = _make("WebhookWithSecret", __base__=(self.webhook, _Secret))
        self.page: Any = _make("WebhookPage", __base__=_Page, items=(_list_of(self.webhook), ...))
        self.entry: Any = _make("WebhookDelivery", __base__=_Entry, **{shape.event: (str | None, None)})
        self.entries = _list_of(self.entry)
        self.history: Any = _make("WebhookHistory", __base__=History, items=(self.entries, ...))
