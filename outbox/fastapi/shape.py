"""What the fields and paths of the API are called, and how far values may go."""

from __future__ import annotations

from dataclasses import dataclass

from outbox._text import brief
from outbox.errors import ArgumentError

__all__ = ["Shape"]

_LONGEST_DELAY = 604_800  # seconds: a week, as for every schedule


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the API looks like. Every value has a default; give those in which yours differs.

    Args:
        event: the word for an event's type. `event` gives the fields `event` and `events`, `event_type` (the default)
            gives `event_type` and `event_types`.
        event_types_path: where the list of event types is.
        history_path: where a webhook's history is, below the webhook.
        history_is_list: whether the history is a bare list. Else it is an object with `items`, and has cursors.
        retry_count: how many retries a new webhook has.
        most_retries: how many it may have, 20 at most.
        first_delay_seconds: how long the first retry waits. Each later one waits twice as long, a week at most.
        timeout_seconds: how long one attempt of a new webhook may take.
        longest_timeout_seconds: how long it may be told to take, 300 at most.
        most_webhooks: how many one owner may have.
        test_type: the type of a test that names none.
        unsigned_without_secret: whether a webhook that is made without a secret sends unsigned requests. Else a secret
            is made for it.
        test_seconds: how long a test waits for its answer.
    """

    event: str = "event_type"
    event_types_path: str = "/event-types"
    history_path: str = "/deliveries"
    history_is_list: bool = False
    retry_count: int = 5
    most_retries: int = 10
    first_delay_seconds: int = 60
    timeout_seconds: int = 15
    longest_timeout_seconds: int = 300
    most_webhooks: int = 100
    test_type: str = "webhook.test"
    unsigned_without_secret: bool = False
    test_seconds: float = 20.0

    def __post_init__(self) -> None:
        if not self.event.isidentifier():
            raise ArgumentError(f"event: {brief(self.event)} cannot be a field's name; use one such as event_type")
        for name in ("event_types_path", "history_path"):
            path = getattr(self, name)
            if not path.startswith("/") or path.strip("/") == "" or "{" in path:
                raise ArgumentError(f"{name}: {brief(path)} is not a path such as /deliveries")
        for name, low, high in (
            ("most_retries", 0, 20),
            ("retry_count", 0, self.most_retries),
            ("first_delay_seconds", 0, _LONGEST_DELAY),
            ("longest_timeout_seconds", 1, 300),
            ("timeout_seconds", 1, self.longest_timeout_seconds),
            ("most_webhooks", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ArgumentError(f"{name}: {brief(value)} is not a whole number from {low} to {high}")

    @property
    def events(self) -> str:
        """The field with the types that a webhook gets."""
        return f"{self.event}s"

    def schedule(self, retry_count: int) -> list[int]:
        """Return the delays of so many retries, in seconds."""
        return [min(self.first_delay_seconds * 2**number, _LONGEST_DELAY) for number in range(retry_count)]
