"""What endpoints that do not answer may hold together."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.byte_shares import ByteGrants, ByteRoom
from relay.engine.endpoint import Endpoint
from relay.engine.fairness import Grants, Places, Queues
from relay.engine.room import BYTES_MAX
from relay.engine.tenants import Tenants, TenantUse
from relay.secrets.keyring import Keyring
from tests.unit.test_endpoint import OWNER, subscription


def endpoint(*, answers: bool = False, waiting: int = 100, tenant: TenantUse | None = None) -> Endpoint:
    one = Endpoint(subscription(), 64, Keyring(), OWNER, tenant)
    one.window.answers = answers
    one.unbegun.extend([cast("Any", None)] * waiting)
    return one


@given(places=st.integers(1, 3000), asked=st.lists(st.integers(0, 30), max_size=400))
def test_unproven_never_hold_more_than_seven_eighths_nor_less_than_one_place(places: int, asked: list[int]) -> None:
    held, own = Places(places), dict.fromkeys(range(31), 0)
    for number in asked:
        if held.allowance(own[number]):
            own[number] += 1
            held.unproven += 1
    assert held.unproven <= places - places // 8
    assert held.unproven >= min(1, len(asked))


def test_once_half_is_taken_each_unproven_endpoint_has_one() -> None:
    places = Places(256)
    assert places.allowance(0) == 128
    places.unproven = 128
    assert (places.allowance(0), places.allowance(1)) == (1, 0)
    places.unproven = 224
    assert places.allowance(0) == 0


def test_a_batch_leases_no_more_for_unproven_than_they_may_hold() -> None:
    grants, unproven = (
        Grants(Places(2048), ByteGrants(ByteRoom(BYTES_MAX)), Tenants()),
        [endpoint() for _ in range(2000)],
    )
    taken = sum(grants.take(one, one.free - taken, 2) for taken in range(16) for one in unproven)
    assert taken == 2048 - 256
    assert all(grants.take(endpoint(answers=True), 0, 2) for _ in range(100)), "who answers is not among them"
    grants = Grants(Places(2048), ByteGrants(ByteRoom(BYTES_MAX)), Tenants())
    assert sum(map(grants.promise, unproven)) <= 2048 - 256
    assert grants.promise(endpoint(answers=True)) == 16


def test_endpoints_that_were_forgotten_count_as_they_were() -> None:
    tenants = Tenants()
    uses = [tenants.use_of(name) for name in "ab"]
    grants = Grants(Places(2048), ByteGrants(ByteRoom(BYTES_MAX)), tenants)
    assert sum(grants.promise_unread(uses[0], answers=False) for _ in range(2048)) == 1792 - 224
    assert sum(grants.promise_unread(uses[1], answers=False) for _ in range(2048)) == 224
    assert sum(grants.promise_unread(uses[0], answers=True) for _ in range(2048)) == 224


def test_who_answers_passes_unproven_that_hold_all_they_may() -> None:
    requests = Places(8)
    queues = Queues(requests, Tenants())
    unproven, answering = [endpoint() for _ in range(20)], endpoint(answers=True, waiting=2)
    for one in [*unproven, answering]:
        queues.append(one)
    served = []
    while (one := queues.next()) is not None:
        one.unbegun.pop(0)
        one.sending += 1
        requests.unproven += not one.answers
        served.append(one)
        queues.append(one)
    assert served.count(answering) == 2
    assert len(served) == 2 + 7
    assert answering in served[:2], "the queues take turns"


def test_an_endpoint_that_begins_to_answer_changes_the_line() -> None:
    requests = Places(8)
    queues, one = Queues(requests, Tenants()), endpoint()
    queues.append(one)
    requests.unproven = 7
    assert queues.next() is None
    one.window.answers = True
    queues.move(one)
    assert queues.next() is one
    assert queues.next() is None


def test_an_endpoint_answers_until_it_does_not() -> None:
    one = Endpoint(subscription(), 64, Keyring(), OWNER)
    assert not one.answers, "it was never asked"
    for kind, status, answers in (("dns", None, False), ("http_5xx", 500, True), ("local", None, True),
                                  ("timeout", None, False), ("blocked_address", None, False),
                                  ("delivered", 200, True)):  # fmt: skip
        one.window.learn(kind, status, 0.1)
        assert one.answers is answers


def test_an_endpoint_that_answers_after_seconds_is_unproven_until_it_is_quick_again() -> None:
    one = endpoint(answers=True)
    seen = []
    for seconds in (1.0, *(8.0,) * 2, *(0.0,) * 10):
        one.window.learn("delivered", 200, seconds)
        seen.append((round(one.window.latency, 1), one.answers))
    assert seen[:3] == [(1.0, True), (1.9, True), (2.6, False)]
    assert [answers for _, answers in seen[3:]] == [latency < 1 for latency, _ in seen[3:]]
    assert one.answers


def test_the_first_answer_tells_that_an_endpoint_is_slow() -> None:
    """Hundreds that are asked for the first time would hold all places before the second one."""
    one = endpoint()
    one.window.learn("delivered", 200, 8.0)
    assert (one.window.answers, one.answers) == (True, False)
