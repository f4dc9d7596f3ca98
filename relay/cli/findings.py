"""Findings in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.operations.findings import Finding

__all__ = ["in_words"]

# What stands between what is seen and what mends it, where that is no colon.
_JOINTS = {"events.unresolved": "; ", "settings.fsync": "; "}


def in_words(finding: Finding) -> str:
    """Return what is seen and what mends it, as one line without a full stop."""
    if not finding.mend:
        return finding.seen
    return f"{finding.seen}{_JOINTS.get(finding.code, ': ')}{finding.mend}"
