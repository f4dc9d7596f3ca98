"""The part of a subscription that sending needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outbox.secret import Secret

__all__ = ["Subscription"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """The part of a subscription that sending needs, at one version of its row."""

    id: bytes
    version: int
    url: str
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    scheme: str
    final_statuses: tuple[int, ...]
    secrets: tuple[tuple[str, Secret], ...]  # kind and text, sealed or in clear; newest first
    closed_seconds: float = 0.0  # how long nothing may be sent; inf: paused, disabled or removed

    def __repr__(self) -> str:
        return f"Subscription(id={self.id.hex()}, version={self.version})"
