"""decide: from what the network said to what we conclude."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.decide import JITTER, OWN_PAUSES, decide, keep_at_head
from relay.model.outcome import RETRY_AFTER_MAX_SECONDS, Outcome
from relay.model.verdict import Disable, Hold, Verdict, VerdictKind

FAILURES = ["http_3xx", "http_4xx", "http_5xx", "protocol", "timeout", "refused", "connection", "dns", "tls",
            "aborted", "internal", "unsendable", "authorization"]  # fmt: skip


def outcome(kind: str, retry_after_seconds: float | None = None, status: int | None = None) -> Outcome:
    return Outcome(kind=kind, status=status, milliseconds=1, retry_after_seconds=retry_after_seconds)


schedules = st.lists(st.integers(0, 604_800), max_size=20)
dice = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 21), schedules, dice)
def test_a_2xx_is_delivered_whatever_the_schedule(attempts: int, schedule: list[int], dice: float) -> None:
    assert decide(outcome("delivered"), attempts, schedule, dice).kind is VerdictKind.DELIVERED


@pytest.mark.parametrize("kind", FAILURES)
def test_every_failure_is_tried_again_until_the_schedule_ends(kind: str) -> None:
    schedule = [5, 300]
    verdicts = [decide(outcome(kind), attempts, schedule, 0.0) for attempts in (1, 2, 3)]
    assert verdicts == [
        Verdict(VerdictKind.RETRY, 5.0),
        Verdict(VerdictKind.RETRY, 300.0),
        Verdict(VerdictKind.DEAD),
    ]


def test_an_empty_schedule_allows_one_attempt() -> None:
    assert decide(outcome("http_5xx"), 1, [], 0.0).kind is VerdictKind.DEAD


@pytest.mark.parametrize("kind", ["event_gone", "payload_unreadable", "transformation_failed"])
def test_what_can_never_succeed_is_dead_at_once(kind: str) -> None:
    assert decide(outcome(kind), 1, [5, 5, 5], 0.0) == Verdict(VerdictKind.DEAD)


def test_a_blocked_address_is_tried_again() -> None:
    """It may be a resolver's mood, or one relay's configuration: no fact about the delivery."""
    assert decide(outcome("blocked_address"), 1, [5], 0.0) == Verdict(VerdictKind.RETRY, 5.0)


@pytest.mark.parametrize("kind", OWN_PAUSES)
@pytest.mark.parametrize("attempts", [1, 4])
def test_our_own_fault_is_released_even_after_the_last_attempt(attempts: int, kind: str) -> None:
    """And nothing else of the endpoint is tried meanwhile: it would fare alike."""
    pause = OWN_PAUSES[kind]
    assert decide(outcome(kind), attempts, [5, 5, 5], 0.9) == Verdict(VerdictKind.RELEASE, pause, Hold(pause))


@given(st.integers(0, 604_800), dice)
def test_jitter_only_makes_the_wait_longer_and_by_a_tenth_at_most(delay: int, dice: float) -> None:
    verdict = decide(outcome("timeout"), 1, [delay], dice)
    assert delay <= verdict.wait_seconds <= delay * (1 + JITTER)


@given(st.floats(0, 1e9), st.integers(0, 604_800), dice)
def test_a_receiver_may_ask_for_a_longer_wait_within_a_day_never_a_shorter(
    asked: float, delay: int, dice: float
) -> None:
    """The wait is the schedule's alone: a hold that a person lifts leaves nothing behind in its deliveries."""
    verdict = decide(outcome("http_4xx", asked), 1, [delay], dice)
    assert delay <= verdict.wait_seconds <= delay * (1 + JITTER)
    hold = min(asked, RETRY_AFTER_MAX_SECONDS)
    assert verdict.endpoint == (Hold(hold) if hold else None), "what the endpoint asked for, without the schedule"


@pytest.mark.parametrize("schedule", [(), (5,), (5, 5, 5)])
def test_410_closes_the_endpoint_and_never_buries_its_delivery(schedule: tuple[int, ...]) -> None:
    for attempts in (1, 2, 30_000):
        verdict = decide(outcome("http_4xx", status=410), attempts, schedule, 0.5)
        assert verdict == Verdict(VerdictKind.RETRY, 0.0, Disable("the endpoint answered 410 Gone"))


def test_the_answer_to_a_last_attempt_still_holds_the_endpoint_back() -> None:
    assert decide(outcome("http_5xx", 60.0, 503), 1, (), 0.0) == Verdict(VerdictKind.DEAD, endpoint=Hold(60.0))


@pytest.mark.case("E9")
@given(st.integers(200, 599), st.lists(st.integers(400, 499).filter(lambda one: one not in (408, 410, 425, 429))))
def test_a_4xx_is_final_only_where_the_subscription_says_so(status: int, final: list[int]) -> None:
    kind = {2: "delivered", 3: "http_3xx", 4: "http_4xx", 5: "http_5xx"}[status // 100]
    verdict = decide(outcome(kind, status=status), 1, (5,), 0.0, final)
    assert (verdict.kind is VerdictKind.DEAD) == (status in final)


@pytest.mark.parametrize("kind", FAILURES)
def test_only_answers_close_an_endpoint(kind: str) -> None:
    assert decide(outcome(kind), 1, (5,), 0.0).endpoint is None


@pytest.mark.case("B12")
@pytest.mark.parametrize(("schedule", "wait"), [([5, 300], 300.0), ([], 300.0), ([300, 0], 1.0)])
def test_a_head_that_blocks_is_tried_again_with_its_last_delay(schedule: list[int], wait: float) -> None:
    failed = outcome("http_5xx", 60.0, 503)
    dead = decide(failed, 3, schedule, 0.0)
    assert dead.kind is VerdictKind.DEAD
    assert keep_at_head(dead, failed, schedule, 0.0) == Verdict(VerdictKind.RETRY, wait, Hold(60.0))
    assert keep_at_head(dead, failed, schedule, 0.5).wait_seconds == pytest.approx(wait * (1 + JITTER / 2))


@pytest.mark.case("B12")
@pytest.mark.parametrize("kind", ["event_gone", "payload_unreadable"])
def test_a_head_that_has_no_body_blocks_nobody(kind: str) -> None:
    failed = outcome(kind)
    dead = decide(failed, 1, [5], 0.0)
    assert keep_at_head(dead, failed, [5], 0.0) == dead
