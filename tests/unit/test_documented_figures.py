"""The figures in docs/concepts.md are those of the code."""

from __future__ import annotations

import pytest

from outbox.subscriptions.fields import DEFAULT_SCHEDULE_SECONDS
from relay.config.options import options
from relay.engine.health import WINDOW_START
from relay.engine.settler import LINGER_BUSY_SECONDS
from relay.model.decide import JITTER
from relay.store.lease import LEASE_SLACK_SECONDS
from relay.store.suspects import MAX_CRASHES
from tests.support import readme

WORDS = {3: "three", 10: "ten", 0.1: "a tenth"}
WINDOW_MAX = next(option.default for option in options() if option.name == "max_in_flight_per_endpoint")


def delay(seconds: int) -> str:
    """Return a delay of the schedule as the document spells it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@pytest.mark.parametrize(
    "phrase",
    [
        f"the subscription's timeout and {LEASE_SLACK_SECONDS:g} s: {LEASE_SLACK_SECONDS / 2:g} to begin,",
        f"after {WORDS[MAX_CRASHES]} in a row it is a dead letter",
        f"answered in the last {LINGER_BUSY_SECONDS * 1000:g} ms",
        f"It starts at {WINDOW_START}, grows with each success to {WINDOW_MAX},",
        f"{', '.join(map(delay, DEFAULT_SCHEDULE_SECONDS))}: {WORDS[1 + len(DEFAULT_SCHEDULE_SECONDS)]} attempts",
        f"attempts over {sum(DEFAULT_SCHEDULE_SECONDS) // 3600} hours",
        f"lengthened by up to {WORDS[JITTER]}",
    ],
)
def test_the_document_says(phrase: str) -> None:
    assert phrase in " ".join(readme.prose(readme.ROOT / "docs" / "concepts.md").split())
