"""Parts of the output that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relay.cli.output import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["host_of", "print_attempts"]


def host_of(url: str | None) -> str | None:
    """Return host and port of a URL: what tells endpoints apart in a narrow column."""
    return url and url.partition("://")[2].partition("/")[0].partition("?")[0]


def print_attempts(attempts: Sequence[Mapping[str, Any]]) -> None:
    """Print attempts as a table under a heading; nothing when there are none."""
    if not attempts:
        return
    click.echo("\nAttempts")
    rows = [
        (
            item["delivery_id"],
            item["number"],
            item["at"],
            item["status"] or item["outcome"],
            f"{item['milliseconds']} ms",
            item["verdict"] if item["error"] is None else f"{item['verdict']}: {item['error']}",
        )
        for item in attempts
    ]
    print_table(["DELIVERY", "#", "AT UTC", "ANSWER", "TOOK", "RESULT"], rows, flexible=["RESULT"])
