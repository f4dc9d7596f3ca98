"""/live, /ready and /metrics as functions: what they answer, and how seldom they ask the database."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from relay.config.kinds import address
from relay.config.option import ConfigError
from relay.config.options import Config
from relay.telemetry import gauges
from relay.telemetry.gauges import Gauges, KeptGauges, Reading
from relay.telemetry.health import Health

WELL = Gauges(
    due=0, oldest_due_seconds=0.0, pending=0, oldest_pending_seconds=0.0, dead_letters=0, leased=0, relays=1,
    sending_paused=False, subscriptions={"active": 1},
)  # fmt: skip


def health(reading: Reading, **options: Any) -> Health:
    return Health(lambda: reading, None, **options)


def answered(found: Health, path: str) -> tuple[int, dict[str, Any]]:
    answer = found.answer(path)
    assert answer.content_type == "application/json"
    return answer.status, json.loads(answer.body)


def test_ready_while_the_database_answers() -> None:
    assert answered(health(Reading(0, WELL)), "/ready") == (200, {"ready": True, "oldest_due_seconds": 0.0})


def test_not_ready_without_a_database_and_live_all_the_same() -> None:
    found = health(Reading(0, None, "OperationalError: refused"))
    assert answered(found, "/ready") == (503, {"ready": False, "reason": "OperationalError: refused"})
    assert answered(found, "/live") == (200, {"live": True})


@pytest.mark.parametrize(("limit", "status"), [(0, 200), (299, 503), (300, 200), (301, 200)])
def test_not_ready_while_something_is_due_for_too_long(limit: float, status: int) -> None:
    late = Reading(0, replace(WELL, oldest_due_seconds=300.0))
    assert answered(health(late, max_due_seconds=limit), "/ready")[0] == status


def test_not_live_when_nothing_works_any_more() -> None:
    assert answered(health(Reading(0, WELL), is_alive=lambda: False), "/live") == (503, {"live": False})


def test_without_the_extra_metrics_say_what_to_install() -> None:
    status, document = answered(health(Reading(0, WELL)), "/metrics")
    assert status == 501
    assert "outbox-relay[metrics]" in document["error"]


def test_the_database_is_read_once_in_ten_seconds_and_after_an_error_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 100.0, 0
    monkeypatch.setattr(gauges.time, "monotonic", lambda: now)

    def read() -> Gauges:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise OSError("away")
        return WELL

    kept = KeptGauges(read, str)
    for _ in range(3):
        assert kept.get().gauges is WELL
    assert asked == 1
    now += 10.5
    assert (kept.get().gauges, kept.get().error, asked) == (None, "away", 2)
    now += 1.5
    assert (kept.get().gauges, asked) == (WELL, 3)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9464", "127.0.0.1", 9464), ("[::1]:0", "::1", 0), ("relay.internal:80", "relay.internal", 80)],
)
def test_a_listen_address_is_read(text: str, host: str, port: int) -> None:
    found = address(optional=True).check(text)
    assert (found.host, found.port) == (host, port)
    assert str(found) == text


@pytest.mark.parametrize("text", ["9464", ":9464", "a:", "a:b", "a:65536", "http://a:1", "a b:1", "a:-1", 9464])
def test_what_is_no_listen_address_is_refused_by_name(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"^metrics_listen: .* is not HOST:PORT"):
        Config(metrics_listen=text)
