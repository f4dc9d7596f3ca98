"""The demo's figures come from the two logs, and fit 80 columns wherever they are shown."""

from __future__ import annotations

import io
import json

import pytest

from relay.local.demo.display import PlainDisplay, TerminalDisplay, choose_display, milliseconds
from relay.local.demo.figures import Backlog, Figures, Latency, Observer, percentile
from relay.local.demo.result import Clause, DemoResult

WIDEST = Figures(
    orders=1_000_000,
    orders_planned=1_000_000,
    recorded=1_000_000,
    delivered=1_000_000,
    in_flight=999,
    retrying=9_999,
    dead=9_999,
    rate=99_999,
    p50=99_999,
    p99=999_999,
    misbehaved={"error": 99_999, "cut": 99_999, "late": 99_999},
)
FAILED = DemoResult((Clause("committed = received", ok=False, figures="8 committed", against=("evt_x " * 4,) * 7),))


def received(number: int, event_id: str, at: float, plan: str = "ok") -> str:
    facts = {"request": number, "id": event_id, "plan": plan, "body": "", "connected": 0}
    return json.dumps({"what": "received", "at": at, "clock": at, **facts})


def answered(number: int, status: int) -> str:
    return json.dumps({"what": "answered", "at": 0, "clock": 0, "request": number, "status": status})


def test_figures_count_what_the_logs_say() -> None:
    observer = Observer(orders_planned=10)
    observer.read(["10.0 evt_a committed", "10.1 evt_b rolled back"], [received(1, "evt_a", 10.02, "error")])
    observer.read([], [answered(1, 500), received(2, "evt_a", 12.0)])
    figures = observer.figures(Backlog(retrying=1, dead=2))
    assert (figures.orders, figures.recorded, figures.delivered, figures.in_flight) == (2, 1, 0, 1)
    assert (figures.retrying, figures.dead, figures.misbehaved) == (1, 2, {"error": 1})
    observer.read([], [answered(2, 200)])
    assert observer.figures(Backlog()).delivered == 1


def test_latency_is_taken_to_the_first_arrival_even_if_its_commit_is_read_later() -> None:
    observer = Observer(orders_planned=10)
    observer.read([], [received(1, "evt_a", 10.25), answered(1, 500), received(2, "evt_a", 20.0)])
    observer.read(["10.0 evt_a committed"], [])
    assert observer.figures(Backlog()).p50 == 250


def test_latency_belongs_to_the_time_without_a_relay_when_it_overlaps_it() -> None:
    assert Latency(committed=1, arrived=3).overlaps(2, 4)
    assert Latency(committed=3, arrived=5).overlaps(2, 4)
    assert not Latency(committed=0, arrived=1).overlaps(2, 4)
    assert not Latency(committed=5, arrived=6).overlaps(2, 4)


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_percentile_of_1_to_100(percent: int, expected: int) -> None:
    assert percentile(range(100, 0, -1), percent) == expected


def test_percentile_of_nothing_is_none() -> None:
    assert percentile([], 50) is None
    assert milliseconds(None) == "-"


def test_nothing_is_left_when_neither_events_nor_deliveries_are() -> None:
    assert Backlog().empty
    assert not Backlog(pending=1).empty
    assert not Backlog(deliveries=1).empty


def test_plain_lines_fit_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("relay.local.demo.display.LINE_SECONDS", 0.0)
    display = PlainDisplay("demo", output)
    display.show(WIDEST)
    display.judge(FAILED, "Not as promised.")
    lines = output.getvalue().splitlines()
    assert lines[1].split()[:3] == ["time", "recorded", "delivered"]
    assert lines[2].split()[2:4] == ["1000000", "1000000"]
    assert max(map(len, lines)) <= 80
    assert lines[-2].strip() == "and 2 more"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_panel_fits_80_columns_and_honours_no_color(
    no_color: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    display = TerminalDisplay("demo")
    display.show(WIDEST)
    display.judge(FAILED, "Not as promised.")
    shown = capsys.readouterr().out
    assert "1,000,000" in shown
    assert "committed = received" in shown
    assert ("\x1b[1;31m" in shown) == (not no_color)


def test_without_a_terminal_the_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    display = choose_display("a title")
    assert isinstance(display, PlainDisplay)
    assert capsys.readouterr().out == "a title\n"
