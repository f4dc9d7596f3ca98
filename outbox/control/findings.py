"""Findings: what a person should look at, as data. The faces put it into words, or into a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from outbox.ids import Id

__all__ = ["Action", "Finding"]


@dataclass(frozen=True, slots=True)
class Action:
    """Where in the browser a finding is mended: a page, and what it is asked for.

    `page` is the page of one thing, whose `id` it needs (`test`: the one that checks and tests a subscription), or a
    list, whose filters are `parameters`. `does` names the button that mends it there: `resume` a subscription, or all
    sending; `retry` what waits for a retry to the subscription `id`.
    """

    page: Literal["subscription", "test", "delivery", "subscriptions", "events", "dead_letters", "findings"]
    id: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    does: Literal["", "resume", "retry"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    `code` is a name that stays, with its area before the dot: `tls.expired`. `subject` says what it is about: an id, or
    a word such as `server`. `seen` and `mend` are for people; `mend` is empty where nothing is to be done.
    `severity` is `problem` where somebody has to act, which `relay status --check` tells a monitor, and `note` where it
    mends itself or is good to know. `action` is where the dashboard mends it, None where only a command can.
    """

    code: str
    subject: Id | str
    seen: str
    mend: str = ""
    severity: Literal["problem", "note"] = "problem"
    action: Action | None = None
