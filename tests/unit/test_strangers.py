"""What endpoints that do not answer may hold together."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.fairness import Grants, Lines, Stock
from relay.engine.routes import Route
from relay.secrets.keyring import Keyring
from tests.unit.test_routes import subscription


def route(*, answers: bool = False, waiting: int = 100) -> Route:
    one = Route(subscription(), 64, Keyring())
    one.answers = answers
    one.waiting.extend([cast("Any", None)] * waiting)
    return one


@given(places=st.integers(1, 3000), asked=st.lists(st.integers(0, 30), max_size=400))
def test_strangers_never_hold_more_than_seven_eighths_nor_less_than_one_place(places: int, asked: list[int]) -> None:
    stock, own = Stock(places), dict.fromkeys(range(31), 0)
    for stranger in asked:
        if stock.allowance(own[stranger]):
            own[stranger] += 1
            stock.held += 1
    assert stock.held <= places - places // 8
    assert stock.held >= min(1, len(asked))


def test_once_half_is_taken_each_stranger_has_one() -> None:
    stock = Stock(256)
    assert stock.allowance(0) == 128
    stock.held = 128
    assert (stock.allowance(0), stock.allowance(1)) == (1, 0)
    stock.held = 224
    assert stock.allowance(0) == 0


def test_a_batch_leases_no_more_for_strangers_than_they_may_hold() -> None:
    grants, strangers = Grants(Stock(2048)), [route() for _ in range(2000)]
    taken = sum(grants.take(one, taken) for taken in range(16) for one in strangers)
    assert taken == 2048 - 256
    assert all(grants.take(route(answers=True), 0) for _ in range(100)), "who answers is not among them"
    grants = Grants(Stock(2048))
    assert sum(map(grants.to, strangers)) <= 2048 - 256
    assert grants.to(route(answers=True)) == 16


def test_who_answers_passes_strangers_that_hold_all_they_may() -> None:
    requests = Stock(8)
    lines = Lines(requests)
    strangers, answering = [route() for _ in range(20)], route(answers=True, waiting=2)
    for one in [*strangers, answering]:
        lines.append(one)
    served = []
    while (one := lines.next()) is not None:
        one.waiting.popleft()
        one.sending += 1
        requests.held += not one.answers
        served.append(one)
        lines.append(one)
    assert served.count(answering) == 2
    assert len(served) == 2 + 7
    assert answering in served[:2], "the lines take turns"


def test_a_route_that_begins_to_answer_changes_the_line() -> None:
    requests = Stock(8)
    lines, one = Lines(requests), route()
    lines.append(one)
    requests.held = 7
    assert lines.next() is None
    one.answers = True
    lines.change(one)
    assert lines.next() is one
    assert lines.next() is None


def test_an_endpoint_answers_until_it_does_not() -> None:
    one = Route(subscription(), 64, Keyring())
    assert not one.answers, "it was never asked"
    for kind, status, answers in (("dns", None, False), ("http_5xx", 500, True), ("local", None, True),
                                  ("timeout", None, False), ("blocked_address", None, False),
                                  ("delivered", 200, True)):  # fmt: skip
        one.learn(kind, status, 0.1)
        assert one.answers is answers
