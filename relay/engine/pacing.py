"""How long the relay rests between two looks at the database. Pure arithmetic; the clock and the dice are passed in.

Polling, because the application's transaction must carry no NOTIFY (it halves its commits at 32 clients) and read no
"asleep" flag (a proven race). Eight milliseconds keep the median from commit to receiver below ten.
"""

from __future__ import annotations

__all__ = ["pause_seconds"]

FAST_SECONDS = 0.008
SLOW_SECONDS = 0.250
BUSY_FOR_SECONDS = 60.0
ASLEEP_AFTER_SECONDS = 600.0
JITTER = 0.2


def pause_seconds(quiet_seconds: float, processes: int, dice: float) -> float:
    """Return the rest after a look that found nothing.

    Args:
        quiet_seconds: time since this process last saw work.
        processes: how many processes share the looking; each looks that much more rarely.
        dice: a random number in [0, 1) for the jitter of ±20 %.
    """
    eased = (quiet_seconds - BUSY_FOR_SECONDS) / (ASLEEP_AFTER_SECONDS - BUSY_FOR_SECONDS)
    base = FAST_SECONDS * processes + (SLOW_SECONDS - FAST_SECONDS) * min(max(eased, 0.0), 1.0)
    return base * (1 + JITTER * (2 * dice - 1))
