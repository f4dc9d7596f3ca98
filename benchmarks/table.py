"""The table, in Markdown and at most 100 columns wide."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench, Result

__all__ = ["configuration", "markdown"]

HEADINGS = ("what", "measured", "bar", "absolute")


def markdown(results: Sequence[Result]) -> str:
    """Return the table; a figure below its bar is marked with a cross."""
    rows = [(r.what, f"**{r.figure}**" + ("" if r.met else " ✗"), r.bar, r.anchors) for r in results]
    return "\n".join(f"| {' | '.join(row)} |" for row in [HEADINGS, ("---",) * len(HEADINGS), *rows])


def configuration(bench: Bench) -> str:
    """Return the line that says what the figures were measured on."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}) shared by PostgreSQL, relay, receiver and application · "
        f"{bench.server.described()} · Python {platform.python_version()} · {bench.sizes.shown()}"
    )
