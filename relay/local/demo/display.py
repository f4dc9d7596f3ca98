"""How a run is shown: a live panel in a terminal, plain lines anywhere else, 80 columns in both."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from relay.local.demo.figures import Figures
    from relay.local.demo.result import Clause, DemoResult

__all__ = ["Display", "PlainDisplay", "TerminalDisplay", "choose_display", "milliseconds"]

LINE_SECONDS = 1.0
_BARS = "▁▂▃▄▅▆▇█"
_BUCKET_SECONDS = 0.5
_COLUMNS = 80
_NAME_WIDTH = len("rolled back = never received")
_SHOWN = 5
_WIDTHS = (9, 9, 9, 8, 5, 7, 8, 8)  # of the plain columns after the time
_WORDS = {"error": "answered 500", "cut": "cut off", "late": "too late"}


class Display(Protocol):
    """Where a run is shown."""

    def say(self, words: str) -> None:
        """Show that something happened."""

    def alarm(self, words: str) -> None:
        """Show that something was done to the relay."""

    def show(self, figures: Figures) -> None:
        """Show the figures of this moment."""

    def judge(self, result: DemoResult, *closing: str) -> None:
        """Show the result with a last word, and close."""

    def close(self) -> None:
        """Leave the terminal as it was. Harmless when called twice."""


def choose_display(title: str) -> Display:
    """Return a panel where standard output is a terminal that can draw one, and plain lines elsewhere."""
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return TerminalDisplay(title)
    return PlainDisplay(title, sys.stdout)


class PlainDisplay:
    """A line for each event, and the figures once a second."""

    def __init__(self, title: str, output: TextIO) -> None:
        self._output = output
        self._start = time.monotonic()
        self._shown_at = self._start
        self._headed = False
        self._write(title)

    def say(self, words: str) -> None:
        """Write it down with the time since the start."""
        self._write(f"{self._elapsed()}  {words}")

    def alarm(self, words: str) -> None:
        """Write it down as anything else."""
        self.say(words)

    def show(self, figures: Figures) -> None:
        """Write the figures, if a second has passed."""
        if time.monotonic() - self._shown_at >= LINE_SECONDS and figures.orders:
            self._shown_at = time.monotonic()
            if not self._headed:
                self._write(
                    _row("   time", "recorded", "delivered", "in flight", "retrying", "dead", "rate", "p50", "p99")
                )
                self._headed = True
            self._write(
                _row(
                    self._elapsed(),
                    *(figures.recorded, figures.delivered, figures.in_flight, figures.retrying, figures.dead),
                    f"{figures.rate:.0f}/s",
                    milliseconds(figures.p50),
                    milliseconds(figures.p99),
                )
            )

    def judge(self, result: DemoResult, *closing: str) -> None:
        """Write each clause, and what speaks against it."""
        for clause in result.clauses:
            mark = "ok    " if clause.ok else "FAILED"
            first = f"{mark}  {clause.name:{_NAME_WIDTH}}  "
            self._write(
                textwrap.fill(clause.figures, _COLUMNS, initial_indent=first, subsequent_indent=" " * len(first))
            )
            for words in against(clause):
                self._write(f"        {words}")
        for line in closing:
            self._write(line)

    def close(self) -> None:
        """Nothing to restore."""

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._start:5.1f} s"

    def _write(self, line: str) -> None:
        self._output.write(line + "\n")
        self._output.flush()


def _row(time: str, *cells: object) -> str:
    return time + "".join(f" {cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))


class TerminalDisplay:
    """A panel that is drawn again in place, with what happened last above it."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console: Console = Console(highlight=False)
        self._start = time.monotonic()
        self._rates: deque[float] = deque(maxlen=46)
        self._bucket = 0
        self._console.print(f"[bold]{title}[/bold]")
        self._live: Live = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def say(self, words: str) -> None:
        """Print it above the panel with the time since the start."""
        self._print(words, "")

    def alarm(self, words: str) -> None:
        """Print it like `say`, to be noticed."""
        self._print(words, "bold yellow")

    def _print(self, words: str, style: str) -> None:
        from rich.text import Text

        elapsed = f"{time.monotonic() - self._start:5.1f} s  "
        self._live.console.print(Text.assemble((elapsed, "dim"), (words, style)))

    def show(self, figures: Figures) -> None:
        """Draw the panel."""
        bucket = int((time.monotonic() - self._start) / _BUCKET_SECONDS)
        if bucket > self._bucket and figures.orders:
            self._bucket = bucket
            self._rates.append(figures.rate)
        seconds = time.monotonic() - self._start
        self._live.update(_panel(figures, sparkline(self._rates), f"{seconds:.0f} s"), refresh=True)

    def judge(self, result: DemoResult, *closing: str) -> None:
        """Print each clause with its mark, and the last word."""
        from rich.table import Table
        from rich.text import Text

        self.close()
        clauses = Table.grid(padding=(0, 1))
        clauses.add_column(width=2, justify="right")
        clauses.add_column(width=_NAME_WIDTH, style="bold")
        clauses.add_column()
        for clause in result.clauses:
            mark = Text("✓", "bold green") if clause.ok else Text("✗", "bold red")
            complaints = "".join(f"\n{words}" for words in against(clause))
            clauses.add_row(mark, clause.name, Text.assemble(clause.figures, (complaints, "red")))
        self._console.print(clauses, width=_COLUMNS)
        first, *others = closing
        self._console.print(Text(f"\n {first}", "bold green" if result.ok else "bold red"))
        for line in others:
            self._console.print(Text(f" {line}"))

    def close(self) -> None:
        """Leave the last panel standing and give the cursor back."""
        self._live.stop()


def _panel(figures: Figures, rates: str, subtitle: str) -> RenderableType:
    from rich import box
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    shop = Table.grid(padding=(0, 1))
    shop.add_row(
        ProgressBar(total=figures.orders_planned, completed=figures.orders, width=46),
        Text(f"{figures.orders:,} of {figures.orders_planned:,} orders", style="dim"),
    )
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold cyan", width=8)
    rows.add_column()
    rows.add_row("shop", shop)
    rows.add_row(
        "relay",
        _pairs(
            recorded=figures.recorded,
            delivered=figures.delivered,
            in_flight=figures.in_flight,
            retrying=figures.retrying,
            dead=figures.dead,
        ),
    )
    rows.add_row("rate", Text.assemble((f"{rates:46}", "green"), f" {figures.rate:,.0f}/s"))
    latency = f"p50 {milliseconds(figures.p50)}  p99 {milliseconds(figures.p99)}"
    rows.add_row("latency", Text.assemble((latency, "bold"), ("  from commit to the receiver, last 5 s", "dim")))
    misbehaved = ", ".join(f"{figures.misbehaved.get(way, 0)} {words}" for way, words in _WORDS.items())
    rows.add_row("receiver", Text.assemble(("misbehaves on purpose: ", "dim"), (misbehaved, "yellow")))
    return Panel(rows, box=box.ROUNDED, width=_COLUMNS, border_style="dim", subtitle=subtitle)


def _pairs(**numbers: int) -> RenderableType:
    from rich.text import Text

    parts: list[tuple[str, str]] = []
    for name, number in numbers.items():
        bad = name == "dead" and number > 0
        parts += [(f"{name.replace('_', ' ')} ", "dim"), (f"{number:,}  ", "bold red" if bad else "bold")]
    return Text.assemble(*parts)


def sparkline(values: deque[float]) -> str:
    """Return one block a value, the highest one full."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)


def milliseconds(value: float | None) -> str:
    """Return a latency as text, from a second on in seconds."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def against(clause: Clause) -> list[str]:
    """Return what speaks against it, the first few in words and the rest as a number."""
    shown = list(clause.against[:_SHOWN])
    if len(clause.against) > _SHOWN:
        shown.append(f"and {len(clause.against) - _SHOWN:,} more")
    return shown
