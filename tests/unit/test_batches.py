"""Batches: what is grouped, what is halved, what is refused when somebody subscribes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from outbox.errors import SubscriptionError
from outbox.subscriptions.batching import check_batching
from relay.model.decide import halve
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.verdict import Hold, Verdict, VerdictKind
from relay.store.batch_plan import BATCH_BYTES, Candidate, Group, group

RETRY, DEAD = Verdict(VerdictKind.RETRY, 5.0), Verdict(VerdictKind.DEAD)


def answer(status: int | None) -> Outcome:
    return Outcome(OutcomeKind.HTTP_4XX if status else OutcomeKind.TIMEOUT, status, 1)


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 499])
def test_a_refused_batch_is_halved_at_once(status: int) -> None:
    verdict = halve(RETRY, answer(status), 2)
    assert (verdict.kind, verdict.wait_seconds, verdict.halves) == (VerdictKind.RETRY, 0.0, True)


@pytest.mark.parametrize("status", [408, 410, 425, 429, 500, 503, 399, None])
def test_what_says_nothing_of_the_body_is_tried_again_as_it_is(status: int | None) -> None:
    assert halve(RETRY, answer(status), 100) == RETRY
    assert halve(DEAD, answer(status), 100).halves, "nothing dies for another"


def test_one_alone_is_decided_as_ever_and_a_success_is_one() -> None:
    delivered = Verdict(VerdictKind.DELIVERED)
    assert halve(DEAD, answer(422), 1) == DEAD
    assert halve(RETRY, answer(422), 1) == RETRY
    assert halve(delivered, answer(422), 9) == delivered
    assert halve(Verdict(VerdictKind.DEAD, endpoint=Hold(3.0)), answer(422), 9).endpoint == Hold(3.0)


def row(
    seq: int, *, batch: bytes | None = None, size: int | None = None, weight: int = 10, age: float = 9.0
) -> Candidate:
    return Candidate(bytes([seq]) * 16, seq, 0, weight, batch, size, 0, age)


def made(
    rows: list[Candidate],
    *,
    counts: dict[bytes, int] | None = None,
    most: int = 9,
    budget: int = 10**9,
    wait: float = 1.0,
) -> list[Group]:
    members: dict[bytes, list[Candidate]] = {}
    for one in rows:
        if one.batch is not None:
            members.setdefault(one.batch, []).append(one)
    counts = {batch: len(some) for batch, some in members.items()} | (counts or {})
    return group(rows, members, counts, most=most, limit=3, byte_budget=budget, wait_seconds=wait)


def seqs(groups: list[Group]) -> list[list[int]]:
    return [[one.event_seq for one in each.rows] for each in groups]


def test_new_batches_are_full_or_old_enough_and_in_the_order_of_events() -> None:
    assert seqs(made([row(n) for n in (5, 1, 3, 4)])) == [[1, 3, 5], [4]]
    assert seqs(made([row(n, age=0.5) for n in (5, 1, 3, 4)])) == [[1, 3, 5]]
    assert seqs(made([row(n) for n in (1, 2, 3, 4)], most=1)) == [[1, 2, 3]]
    assert made([row(1, age=0.5)]) == []


def test_a_batch_ends_before_it_is_too_large() -> None:
    half = BATCH_BYTES // 2
    assert seqs(made([row(1, weight=half), row(2, weight=half), row(3, weight=1)])) == [[1, 2], [3]]
    assert seqs(made([row(1, weight=4 * half), row(2)])) == [[1], [2]]
    assert seqs(made([row(1, weight=half), row(2, weight=half), row(3)], budget=5)) == [[1, 2]], "one, whatever it is"


def test_a_batch_is_whole_with_its_id_or_another() -> None:
    whole = [row(n, batch=b"b" * 16, size=2, age=0.0) for n in (2, 1)]
    assert made(whole)[0].id == b"b" * 16
    assert seqs(made(whole)) == [[1, 2]]
    (rest,) = made(whole[:1])
    assert rest.id != b"b" * 16
    assert made(whole[:1], counts={b"b" * 16: 2}) == [], "somebody else has the other"


def test_order_and_formats_without_batches_are_refused_whichever_comes_first() -> None:
    stored = SimpleNamespace(batch_events=10, ordered=False, format="standard")
    with pytest.raises(SubscriptionError, match=r"^batch_events: an ordered subscription sends"):
        check_batching({"batch_events": 10, "ordered": True})
    with pytest.raises(SubscriptionError, match=r"^batch_events: an ordered subscription sends"):
        check_batching({"ordered": True}, stored)
    with pytest.raises(
        SubscriptionError, match=r"slack takes one event at a time; .* standard, raw, thin, cloudevents"
    ):
        check_batching({"format": "slack"}, stored)
    check_batching({"format": "slack", "batch_events": None}, stored)
    check_batching({"ordered": True, "batch_events": None}, stored)
    check_batching({"url": "https://example.com"}, SimpleNamespace(batch_events=10, ordered=True, format="standard"))
