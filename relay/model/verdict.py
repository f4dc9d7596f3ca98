"""The verdicts that decide.py makes: what follows from an outcome, for the delivery and for the endpoint asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from relay.model.outcome import Scope

__all__ = ["Disable", "EndpointChange", "Hold", "Verdict", "VerdictKind"]


class VerdictKind(IntEnum):
    """What becomes of the delivery. The settle statement uses these numbers."""

    DELIVERED = 0
    """Done: the delivery leaves the hot table."""
    RETRY = 1
    """Due again after the verdict's wait."""
    DEAD = 2
    """Given up: the delivery becomes a dead letter."""
    RELEASE = 3
    """Not sent: due again after the verdict's wait, the attempt given back."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Send nothing more for `seconds` to the endpoint, or to all that the scope says.

    With RELEASE, only this process holds back, in memory.
    """

    seconds: float
    scope: Scope = Scope.ENDPOINT


@dataclass(frozen=True, slots=True)
class Disable:
    """Send nothing more to the endpoint until a person resumes it; `reason` tells that person why."""

    reason: str


EndpointChange: TypeAlias = Hold | Disable


class Verdict(NamedTuple):
    """What becomes of the delivery, the seconds until its next attempt, and the change of its endpoint, if any.

    charged: whether the attempt counts; False only with RETRY.
    halves: the members of the batch are tried again in two batches, each half as large; only with RETRY.
    """

    kind: VerdictKind
    wait_seconds: float = 0.0
    endpoint: EndpointChange | None = None
    charged: bool = True
    halves: bool = False
