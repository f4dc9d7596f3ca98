"""What happened to one row, as a function of `capture()` is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Change", "Kind"]

Kind = Literal["created", "updated", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row's change in one transaction, for one event.

    `type` is the event's; `before` and `after` are the values of the columns by attribute name, empty where the row did
    not exist. `changed` names those that differ, in the order of the columns. `instance` is the object, and None of a
    row that a bulk statement changed.
    """

    kind: Kind
    type: str
    before: Mapping[str, Any] = field(repr=False)
    after: Mapping[str, Any] = field(repr=False)
    changed: tuple[str, ...]
    instance: Any = field(repr=False)

    @property
    def row(self) -> Mapping[str, Any]:
        """The row's values: as they are now, of a deleted row as they were."""
        return self.before if self.kind == "deleted" else self.after
