"""Findings as text for people: a line or a sentence each."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outbox.control.findings import Finding

__all__ = ["in_sentences", "in_words"]

_AREAS = {"dns": "DNS: ", "tls": "TLS: ", "proxy": "By the egress proxy: "}

# The text between what is seen and what mends it, where it is not a colon.
_JOINTS = {
    **dict.fromkeys(("events.unresolved", "database.copied", "settings.fsync", "answer.redirect_refused"), "; "),
    **dict.fromkeys(("answer.400", "answer.422", "answer.other"), "; "),
    **dict.fromkeys(("way.open", "tcp.timeout", "answer.redirect"), ". "),
    **dict.fromkeys(("hindrance.disabled", "hindrance.paused"), "; to go on: "),
}
# These end with a command to copy.
_OPEN_ENDED = ("way.open", "answer.redirect")


def in_words(finding: Finding) -> str:
    """Return what is seen and what mends it, as one line without a full stop."""
    if not finding.mend:
        return finding.seen
    return f"{finding.seen}{_JOINTS.get(finding.code, ': ')}{finding.mend}"


def in_sentences(findings: Iterable[Finding]) -> str:
    """Return a sentence for each area that something was found in."""
    areas = groupby(findings, lambda finding: finding.code.partition(".")[0])
    return " ".join(_AREAS.get(area, "") + _sentence(list(found)) for area, found in areas)


def _sentence(findings: list[Finding]) -> str:
    words = "; ".join(map(in_words, findings))
    return words if words.endswith("?") or findings[-1].code in _OPEN_ENDED else f"{words}."
