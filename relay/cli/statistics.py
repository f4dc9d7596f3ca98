"""`relay statistics`: what arrived, what failed, and how long it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox import EVERY_TENANT, statistics
from outbox.ids import SubscriptionId
from relay.cli.options import filters, json_option
from relay.cli.output import fields_of, print_fields, print_json, print_json_lines, print_table
from relay.cli.source import Source, with_source
from relay.client import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.statistics import Statistics

__all__ = ["statistics_command"]


@click.command("statistics")
@filters("subscription", "tenant", "type")
@click.option("--over", default="24h", show_default=True, metavar="TIME", help="How far back: 90m, 24h, 7d, 30d.")
@click.option("--by", type=click.Choice(["subscription", "tenant", "type"]), help="One line each, most failures first.")
@click.option("--series", "as_series", is_flag=True, help="Over time, one line a step.")
@click.option("--step", type=int, metavar="SECONDS", help="Of --series. [default: as fits --over]")
@json_option
@with_source
def statistics_command(
    source: Source, type_: str | None, by: Any, step: int | None, *, as_series: bool, as_json: bool, **given: Any
) -> None:
    """Count what was delivered, what failed and died, and how long delivered requests took.

    Each attempt counts once, from the moment it is settled: as failed also where an endpoint asked for fewer
    requests (slowed), not at all where the relay itself stood still (stood_still).

    Times are milliseconds of delivered requests; percentiles are exact below 16 ms and wrong by 4.4 % at most above.

    \b
    Examples:
      relay statistics
      relay statistics --subscription sub_… --over 7d
      relay statistics --by subscription --over 1h
      relay statistics --tenant acme --series --json
    """
    whose = EVERY_TENANT if given["tenant"] is None else given["tenant"]
    about = {"type": type_, "over": given["over"]}
    name = given["subscription"]
    narrow = about | {"subscription": name and str(SubscriptionId.of(name))}
    if by and (as_series or given["subscription"]):
        raise click.UsageError("--by ranks all of them: give it without --series and --subscription.")
    if step is not None and not as_series:
        raise click.UsageError("--step is of --series: give both.")
    if by:
        ranked = source.ask(
            lambda connection: tuple(statistics.rank(connection, whose, by, **about)),
            lambda: calls.rank_statistics(by, tenant=given["tenant"], **about),
        )
        _print_ranking(ranked, by, as_json=as_json)
    elif as_series:
        points = source.ask(
            lambda connection: tuple(statistics.series(connection, whose, **narrow, step_seconds=step)),
            lambda: calls.get_series(tenant=given["tenant"], **narrow, step_seconds=step),
        )
        _print_points(points, as_json=as_json)
    else:
        found = source.ask(
            lambda connection: statistics.read(connection, whose, **narrow),
            lambda: calls.get_statistics(tenant=given["tenant"], **narrow),
        )
        print_json(found) if as_json else print_fields(_readable(found))


def _readable(found: Statistics) -> dict[str, Any]:
    shown = fields_of(found, "mean", "p50", "p95", "p99", "success_rate", "attempts_per_second")
    shown["attempts_per_second"] = f"{found.attempts_per_second:.3g}"
    shown["success_rate"] = _percent(found.success_rate)
    for name in ("mean", "p50", "p95", "p99"):
        shown[name] = _milliseconds(getattr(found, name))
    return shown


def _print_ranking(found: Sequence[Statistics], by: str, *, as_json: bool) -> None:
    if as_json:
        print_json_lines(found)
        return
    name = "subscription_id" if by == "subscription" else by
    rows = [
        (getattr(item, name), item.delivered, item.failed, item.dead, _percent(item.success_rate),
         _milliseconds(item.p50), _milliseconds(item.p99), item.last_outcome, item.last_error)
        for item in found
    ]  # fmt: skip
    heads = [by.upper(), "DELIVERED", "FAILED", "DEAD", "SUCCESS", "P50", "P99", "LAST FAILURE", "ERROR"]
    print_table(heads, rows, flexible=["ERROR", "LAST FAILURE"])


def _print_points(points: Sequence[statistics.Point], *, as_json: bool) -> None:
    if as_json:
        print_json_lines(points)
        return
    rows = [
        (point.start, point.delivered, point.failed, point.dead, *map(_milliseconds, (point.p50, point.p95, point.p99)))
        for point in points
    ]
    print_table(["AT UTC", "DELIVERED", "FAILED", "DEAD", "P50", "P95", "P99"], rows)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f} %"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
