"""Findings: what a person should look at, as data. The faces put it into words, or into a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outbox.ids import Id

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    `code` is a name that stays, with its area before the dot: `tls.expired`. `subject` says what it is about: an id, or
    a word such as `server`. `seen` and `mend` are for people; `mend` is empty where nothing is to be done.
    `severity` is `problem` where somebody has to act, which `relay status --check` tells a monitor, and `note` where it
    mends itself or is good to know.
    """

    code: str
    subject: Id | str
    seen: str
    mend: str = ""
    severity: Literal["problem", "note"] = "problem"
