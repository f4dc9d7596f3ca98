"""What this machine could not send for long is named."""

from __future__ import annotations

import logging

import pytest

from relay.engine.unsent import Unsent

ONE, OTHER = b"1" * 16, b"2" * 16


@pytest.mark.field("F02")
def test_what_cannot_be_sent_for_long_is_named_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, unsent = [1000.0], Unsent()
    monkeypatch.setattr("relay.engine.unsent.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING, "relay"):
        for _ in range(130):
            unsent.note(ONE, "no free file descriptor")
            now[0] += 1
        unsent.note(OTHER, "no free file descriptor")
    assert [record.message.partition(":")[2][:11] for record in caplog.records] == [" for 60 s t", " for 120 s "]
    assert "relay subscriptions check sub_" in caplog.text
    assert [(one.subscription_id, one.error) for one in unsent.for_long()] == [(ONE, "no free file descriptor")]


@pytest.mark.field("F02")
def test_what_nobody_tries_any_more_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now, unsent = [1000.0], Unsent()
    monkeypatch.setattr("relay.engine.unsent.time.monotonic", lambda: now[0])
    for _ in range(100):
        unsent.note(ONE, "no free file descriptor")
        now[0] += 1
    assert len(unsent.for_long()) == 1
    now[0] += 60
    assert (unsent.for_long(), bool(unsent)) == ([], False)


@pytest.mark.field("F02")
def test_whoever_was_reached_is_not_named(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now, unsent = [1000.0], Unsent()
    monkeypatch.setattr("relay.engine.unsent.time.monotonic", lambda: now[0])
    for _ in range(130):
        unsent.note(ONE, "no free file descriptor")
        unsent.forget(ONE)
        now[0] += 1
    assert (bool(unsent), unsent.for_long(), caplog.records) == (False, [], [])
