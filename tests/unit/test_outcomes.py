"""One vocabulary of failures: what the sender says is what the documentation explains and decide() knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.model.decide import decide
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.verdict import VerdictKind

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts.md"
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
MEANT = {
    "done": VerdictKind.DELIVERED,
    "retry": VerdictKind.RETRY,
    "dead letter": VerdictKind.DEAD,
    "given back, not charged": VerdictKind.RELEASE,
}


def documented() -> dict[str, str]:
    text = CONCEPTS.read_text()
    return dict(ROW.findall(text[text.index("## Outcomes") : text.index("## Pause")]))


def test_every_outcome_is_explained_and_no_other() -> None:
    assert sorted(documented()) == sorted(OutcomeKind)


@pytest.mark.parametrize(("kind", "follows"), documented().items())
def test_what_is_said_to_follow_follows(kind: OutcomeKind, follows: str) -> None:
    outcome = Outcome(kind=kind, status=None, milliseconds=1)
    assert decide(outcome, 1, (5,), 0.0).kind is MEANT[follows.partition(";")[0]]
