"""What an attempt says of its endpoint, and which successes have to be written."""

from __future__ import annotations

from typing import Any

import pytest

from relay.engine.ailing import NOTED_SECONDS, Ailing, note_health
from relay.model.health_sign import Sign, sign_of
from relay.model.outcome import OutcomeKind
from relay.model.verdict import Disable, Hold, Verdict, VerdictKind

RETRY = Verdict(VerdictKind.RETRY)


@pytest.mark.parametrize("kind", OutcomeKind)
def test_each_outcome_is_a_fault_of_the_endpoint_or_of_ourselves(kind: OutcomeKind) -> None:
    ours = {
        *("local", "aborted", "internal", "key_unavailable", "unsendable", "event_gone", "payload_unreadable"),
        *("transformation_failed", "unformatted", "stood_still"),
    }
    named = {"delivered": Sign.SUCCESS, "slowed": Sign.SLOW_DOWN}
    expected = Sign.NOTHING if kind in ours else named.get(kind, Sign.FAILURE)
    assert sign_of(kind, None, RETRY) is expected


@pytest.mark.parametrize(
    ("status", "change", "expected"),
    [
        (429, None, Sign.SLOW_DOWN),
        (503, Hold(5.0), Sign.SLOW_DOWN),
        (503, None, Sign.FAILURE),
        (404, None, Sign.FAILURE),
        (410, Disable("gone"), Sign.NOTHING),
    ],
)
def test_who_asks_to_wait_is_slow_and_who_is_gone_is_gone(status: int, change: Any, expected: Sign) -> None:
    assert sign_of(OutcomeKind.HTTP_4XX, status, Verdict(VerdictKind.RETRY, 1.0, change)) is expected


class _Endpoint:
    ailing: Ailing | None = None


def test_the_first_success_after_a_failure_is_written_however_late(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint: Any = _Endpoint()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    assert not note_health(endpoint, failed=False)
    assert note_health(endpoint, failed=True)
    now += 10 * NOTED_SECONDS
    assert note_health(endpoint, failed=False)
    assert not note_health(endpoint, failed=False)
    assert endpoint.ailing is None


def test_successes_within_the_window_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint: Any = _Endpoint()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    note_health(endpoint, failed=True)
    assert [note_health(endpoint, failed=False) for _ in range(3)] == [True] * 3
    note_health(endpoint, failed=True)
    now += NOTED_SECONDS + 1
    assert [note_health(endpoint, failed=False) for _ in range(2)] == [True, False]
