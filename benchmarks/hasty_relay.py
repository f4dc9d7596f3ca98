"""`relay` whose quiet minutes are shortened to a fraction of a second; everything else is the console script."""

from __future__ import annotations

from relay.engine import pacing

__all__ = ["ASLEEP_AFTER_SECONDS"]

ASLEEP_AFTER_SECONDS = 0.5

if __name__ == "__main__":
    from relay.__main__ import main

    pacing.BUSY_FOR_SECONDS, pacing.ASLEEP_AFTER_SECONDS = ASLEEP_AFTER_SECONDS / 10, ASLEEP_AFTER_SECONDS
    main()
