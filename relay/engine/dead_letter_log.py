"""Log dead letters: each by itself while they are few, counted by subscription and reason when they come in thousands.

An endpoint that is gone for good buries everything that waits for it within minutes. A line for each would hide what
else the log says, and does not tell more than their number.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

from outbox.ids import text_id
from relay.engine.log_bursts import MOST_LINES, LogBursts

if TYPE_CHECKING:
    from relay.model.settlement import Settlement

__all__ = ["DeadLetterLog"]

log = logging.getLogger("relay.engine")


class DeadLetterLog:
    """At most 41 lines in each window of ten seconds: of single dead letters, and again of groups at its end."""

    def __init__(self) -> None:
        self._bursts = LogBursts(self._tell_counted)
        self._counted: Counter[tuple[bytes, str]] = Counter()

    def note(self, settlement: Settlement) -> None:
        """Tell of a dead letter at once, or count it for the end of the window."""
        subscription_id, reason = settlement.delivery.subscription_id, str(settlement.outcome)
        if self._bursts.admits():
            log.warning("%s of %s is a dead letter: %s", settlement.delivery, _name(subscription_id), reason)
        else:
            self._counted[subscription_id, reason] += 1

    def tell(self) -> None:
        """Tell what was counted, the largest groups first, and begin anew; also at the end of the process."""
        self._bursts.end()

    def _tell_counted(self) -> None:
        counted, self._counted = self._counted, Counter()
        groups = counted.most_common()
        for (subscription_id, reason), count in groups[:MOST_LINES]:
            name = _name(subscription_id)
            log.warning("%s: %d more dead letters: %s; relay dead-letters list --subscription %s",
                        name, count, reason, name)  # fmt: skip
        if rest := groups[MOST_LINES:]:
            count, others = sum(count for _, count in rest), len({key[0] for key, _ in rest})
            log.warning("%d more dead letters of %d other subscriptions; relay dead-letters list", count, others)


def _name(subscription_id: bytes) -> str:
    return text_id("sub", UUID(bytes=subscription_id))
