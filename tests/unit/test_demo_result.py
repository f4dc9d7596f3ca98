"""The demo's result turns red for each thing that can go wrong, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import pytest

from relay.local.demo.result import SETTLE_WINDOW_SECONDS, Kill, judge_run

KILL = Kill(at=100.0, next_start=100.4)


class Logs:
    """Hand-made logs of a shop and a receiver. Times are seconds; both clocks are the same here."""

    def __init__(self) -> None:
        self.shop: list[str] = []
        self.receiver = [json.dumps({"what": "listening", "at": 0, "clock": 0, "port": 1, "timeout_seconds": 2.0})]
        self._numbers: Iterator[int] = count(1)

    def commits(self, event_id: str) -> None:
        self.shop.append(f"1.0 {event_id} committed\n")

    def rolls_back(self, event_id: str) -> None:
        self.shop.append(f"1.0 {event_id} rolled back\n")

    def receives(
        self,
        event_id: str,
        at: float = 50.0,
        *,
        connected: float = 1.0,
        end: str = "answered",
        after: float = 0.01,
        status: int = 200,
        body: str = "same",
    ) -> None:
        number = next(self._numbers)
        common = {"request": number, "id": event_id, "plan": "ok", "body": body, "connected": connected}
        self.receiver.append(json.dumps({"what": "received", "at": at, "clock": at, **common}))
        if end != "open":
            done = {"what": end, "at": at + after, "clock": at + after, "request": number}
            self.receiver.append(json.dumps(done | ({"status": status} if end == "answered" else {})))

    def refuses(self, reason: str) -> None:
        line = {"what": "refused", "at": 1, "clock": 1, "request": next(self._numbers), "reason": reason}
        self.receiver.append(json.dumps(line))

    def findings(self) -> dict[str, tuple[str, ...]]:
        """What speaks against the run, by the name of the clause that failed."""
        result = judge_run(self.shop, self.receiver, [KILL])
        failed = {clause.name: clause.against for clause in result.clauses if not clause.ok}
        assert result.ok == (not failed)
        return failed


@pytest.fixture
def logs() -> Logs:
    """A healthy run of three events, one of them rolled back."""
    logs = Logs()
    for event_id in ("evt_a", "evt_b"):
        logs.commits(event_id)
        logs.receives(event_id)
    logs.rolls_back("evt_c")
    return logs


def test_a_healthy_run_passes(logs: Logs) -> None:
    assert logs.findings() == {}


def test_a_lost_event_is_named(logs: Logs) -> None:
    logs.commits("evt_lost")
    assert logs.findings() == {"committed = received": ("evt_lost never arrived",)}


def test_a_delivered_rollback_is_named(logs: Logs) -> None:
    logs.receives("evt_c")
    assert logs.findings() == {"rolled back = never received": ("evt_c arrived",)}


def test_an_event_that_nobody_recorded_is_named(logs: Logs) -> None:
    logs.receives("evt_x")
    assert logs.findings() == {"committed = received": ("evt_x is not the shop's",)}


def test_a_request_that_does_not_verify_fails_the_run(logs: Logs) -> None:
    logs.refuses("no signature matches")
    assert logs.findings() == {"signatures": ("no signature matches",)}


def test_other_bytes_under_the_same_id_fail_the_run(logs: Logs) -> None:
    logs.receives("evt_d", 10, status=500, body="one")
    logs.receives("evt_d", 20, body="two")
    logs.commits("evt_d")
    assert list(logs.findings()) == ["same bytes"]


def test_a_shop_that_committed_nothing_proves_nothing() -> None:
    assert list(Logs().findings()) == ["committed = received"]


def test_an_event_that_came_again_after_success_is_unexplained(logs: Logs) -> None:
    logs.receives("evt_a", 60)
    assert logs.findings() == {"duplicates explained": ("evt_a came again after answered 200",)}


@pytest.mark.parametrize(
    ("end", "after", "status"),
    [
        ("answered", 0.01, 500),
        ("answered", 0.01, 404),
        ("cut", 0.01, 0),
        ("answered", 2.5, 200),
        ("hung up", 2.0, 0),
        ("hung up", 1.1, 0),
    ],
    ids=["500", "404", "cut", "late answer", "late hang-up", "late, with a slow way"],
)
def test_a_duplicate_is_explained_by_what_the_receiver_did_before(
    logs: Logs, end: str, after: float, status: int
) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", 10, end=end, after=after, status=status)
    logs.receives("evt_d", 20)
    assert logs.findings() == {}


def test_every_request_but_the_last_needs_an_explanation(logs: Logs) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", 10, status=500)
    logs.receives("evt_d", 20)
    logs.receives("evt_d", 30)
    assert list(logs.findings()) == ["duplicates explained"]


@pytest.mark.parametrize("after", [0.0, 0.9])
def test_a_relay_that_hangs_up_before_its_timeout_is_not_excused(logs: Logs, after: float) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", 10, end="hung up", after=after)
    logs.receives("evt_d", 20)
    assert list(logs.findings()) == ["duplicates explained"]


@pytest.mark.parametrize(
    ("at", "end", "after"),
    [
        (KILL.at - 0.2, "hung up", 0.25),
        (KILL.at - 0.2, "open", 0),
        (KILL.at - 0.2, "answered", 0.3),
        (KILL.at - 0.3, "answered", 0.1),
        (KILL.at + 0.05, "hung up", 0.01),
    ],
    ids=["cut by the kill", "never answered", "answered to nobody", "answered, not settled", "read after the kill"],
)
def test_a_duplicate_is_explained_by_the_kill(logs: Logs, at: float, end: str, after: float) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", at, connected=50, end=end, after=after)
    logs.receives("evt_d", 110, connected=KILL.next_start + 1)
    assert logs.findings() == {}


def test_the_kill_excuses_nothing_that_was_answered_well_before(logs: Logs) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", KILL.at - SETTLE_WINDOW_SECONDS - 0.1, after=0.01)
    logs.receives("evt_d", 110, connected=KILL.next_start + 1)
    assert list(logs.findings()) == ["duplicates explained"]


def test_the_kill_does_not_excuse_the_next_relay(logs: Logs) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", 105, connected=KILL.next_start + 1, end="hung up", after=0.1)
    logs.receives("evt_d", 110, connected=KILL.next_start + 1)
    assert list(logs.findings()) == ["duplicates explained"]


def test_the_kill_does_not_excuse_what_came_again_before_it(logs: Logs) -> None:
    logs.commits("evt_d")
    logs.receives("evt_d", KILL.at - 0.4, connected=50, after=0.01)
    logs.receives("evt_d", KILL.at - 0.2, connected=50)
    assert list(logs.findings()) == ["duplicates explained"]


def test_each_reason_is_counted(logs: Logs) -> None:
    for number, status in enumerate((500, 500, 503)):
        logs.commits(f"evt_{number}")
        logs.receives(f"evt_{number}", 10, status=status)
        logs.receives(f"evt_{number}", 20)
    figures = {clause.name: clause.figures for clause in judge_run(logs.shop, logs.receiver, [KILL]).clauses}
    assert figures["duplicates explained"] == "2 answered 500, 1 answered 503"
    assert figures["same bytes"] == "3 events came more than once"
