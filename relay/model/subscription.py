"""What sending needs of a subscription."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outbox.secret import Secret

__all__ = ["Subscription"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What sending needs of a subscription, as of one version of its row."""

    id: bytes
    version: int
    url: str
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    scheme: str
    final_statuses: tuple[int, ...]
    secrets: tuple[tuple[str, Secret], ...]  # kind and text, sealed or clear; newest first
    closed_seconds: float = 0.0  # nothing may be sent for so long; inf: paused, disabled or removed

    def __repr__(self) -> str:
        return f"Subscription(id={self.id.hex()}, version={self.version})"
