"""Retention: the calls that delete by age what is done, in their order; for housekeeping and for `relay prune`.

The rules stand in the database's own functions, most of them first made in 0008_leaves.sql and changed later: ask the
database for the rule of today, by pg_get_functiondef. Leaves that are emptied here are dropped by another round, "empty
leaves". Each call is one short transaction and opens a bounded number of leaves, however many there are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["RETENTION", "RetentionStep"]


class RetentionStep(NamedTuple):
    """A statement to repeat, with `after` = what it reached, from 0 on, until `reached` is null.

    Its parameters are days, after and batch (rows at most, where it deletes rows); its one row is (reached, gone), and
    `gone` counts rows. A step of whole leaves empties a leaf at once; the step behind it deletes single rows. With 0
    days dead letters and the audit are kept for good.
    """

    name: str
    kind: Literal["events", "attempts", "resolutions", "dead_letters", "audit"]
    unit: Literal["leaves", "rows"]
    statement: str


_OLDER = "clock_timestamp() - make_interval(days => %(days)s)"
_NEXT_LEAF = "select reached, gone from outbox.retire_next_{}_leaf(" + _OLDER + ", %(after)s)"
_PRUNE_EVENTS = f"select reached, gone from outbox.prune_events({_OLDER}, %(after)s, %(batch)s)"
_PRUNE = "select case when gone >= %(batch)s then 1 end as reached, gone from outbox.{}(" + _OLDER + ", %(batch)s) gone"
_IF_ASKED = (
    "select case when gone >= %(batch)s then 1 end as reached, gone from (select case when %(days)s > 0 then outbox.{}("
)
_PRUNE_IF_ASKED = _IF_ASKED + _OLDER + ", %(batch)s) else 0 end as gone) pruned"

RETENTION = (
    RetentionStep("leaves of old events", "events", "leaves", _NEXT_LEAF.format("event")),
    RetentionStep("old events", "events", "rows", _PRUNE_EVENTS),
    RetentionStep("leaves of old attempts", "attempts", "leaves", _NEXT_LEAF.format("attempt")),
    RetentionStep("old attempts", "attempts", "rows", _PRUNE.format("prune_attempts")),
    RetentionStep("old resolutions", "resolutions", "rows", _PRUNE.format("prune_resolutions")),
    RetentionStep("old dead letters", "dead_letters", "rows", _PRUNE_IF_ASKED.format("prune_dead_letters")),
    RetentionStep("old audit", "audit", "rows", _PRUNE_IF_ASKED.format("prune_audit")),
)
