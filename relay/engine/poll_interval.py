"""How long the relay rests between two looks at the database. Pure: time and random number are passed in.

The relay polls, because NOTIFY in the application's transaction halves its commits at 32 clients, and a flag "asleep"
that it would read is a proven race. A rest of 8 ms keeps the median from commit to receiver below 10 ms.
"""

from __future__ import annotations

__all__ = ["QUIET_AT_START_SECONDS", "SLOW_SECONDS", "pause_seconds"]

FAST_SECONDS = 0.008
SLOW_SECONDS = 0.250
BUSY_FOR_SECONDS = 60.0
ASLEEP_AFTER_SECONDS = 600.0
JITTER = 0.2
# A relay that starts where nothing happens begins with a rest of some 30 ms: it was not there for a last event.
QUIET_AT_START_SECONDS = 110.0


def pause_seconds(
    quiet_seconds: float, processes: int, random_number: float, slow_seconds: float = SLOW_SECONDS
) -> float:
    """Return the rest after a look that found nothing.

    Args:
        quiet_seconds: time since this process last saw work.
        processes: how many processes share the work; each looks that much more rarely.
        random_number: in [0, 1), for the jitter of ±20 %.
        slow_seconds: the rest after ten quiet minutes.
    """
    eased = (quiet_seconds - BUSY_FOR_SECONDS) / (ASLEEP_AFTER_SECONDS - BUSY_FOR_SECONDS)
    base = FAST_SECONDS * processes + (slow_seconds - FAST_SECONDS) * min(max(eased, 0.0), 1.0)
    return base * (1 + JITTER * (2 * random_number - 1))
