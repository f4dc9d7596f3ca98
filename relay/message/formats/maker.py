"""What a family of formats is made of: functions from a subscription's settings to a function from event to body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.model.event import Body, EventParts

    Make = Callable[[EventParts], Body]
    Family = Callable[[Mapping[str, Any], str], Make]

__all__ = ["Family", "FormatError", "Make"]


class FormatError(Exception):
    """This event has no body in the format. The message names what is wrong and the mend, and quotes no data."""
