"""`relay` whose quiet minutes are shortened to a fraction of a second; everything else is the console script."""

from __future__ import annotations

from relay.engine import poll_interval

__all__ = ["ASLEEP_AFTER_SECONDS"]

ASLEEP_AFTER_SECONDS = 0.5

if __name__ == "__main__":
    from relay.__main__ import main

    poll_interval.BUSY_FOR_SECONDS, poll_interval.ASLEEP_AFTER_SECONDS = ASLEEP_AFTER_SECONDS / 10, ASLEEP_AFTER_SECONDS
    main()
