"""The registry of endpoints gives back what it held, however many subscriptions come and go."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from outbox.secret import Secret
from relay.engine import endpoint as endpoint_module
from relay.engine.endpoint import Endpoint
from relay.engine.endpoint_registry import Endpoints
from relay.engine.room import Room
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.subscription import SubscriptionVersion
from relay.secrets.keyring import Keyring

MANY = 4_000
CONTRACT = 50_000  # of the report; their envelopes, nine tenths of the time, are one here


class Nobody:
    def begin_next(self, endpoint: Endpoint) -> None:
        raise AssertionError(endpoint)


def come_and_go(endpoints: Endpoints, first: int, count: int = MANY) -> None:
    """Make and forget many subscriptions; half of them were known not to be sendable."""
    owner, secrets = Nobody(), (("signing", Secret("whsec_" + "A" * 43 + "=")),)
    ids = [n.to_bytes(16, "big") for n in range(first, first + count)]
    for n, subscription_id in enumerate(ids):
        version = SubscriptionVersion(subscription_id, 1, "http://127.0.0.1/", 15, (), "standard", (), secrets)
        endpoint = endpoints.update(version, owner)
        if n % 2:
            endpoints.note_not_sendable(endpoint)
    for subscription_id in ids:
        endpoints.forget(subscription_id)


@pytest.mark.field("F77")
def test_thousands_that_came_and_went_leave_nothing() -> None:
    require_nothing_left(MANY)


@pytest.mark.slow
@pytest.mark.field("F77")
def test_fifty_thousand_that_came_and_went_leave_nothing_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = endpoint_module.Envelope(known(1), Keyring())
    monkeypatch.setattr(endpoint_module, "Envelope", lambda *_: envelope)
    monkeypatch.setattr("relay.engine.endpoint_registry.KNOWN_MAX", CONTRACT)
    require_nothing_left(CONTRACT)


def require_nothing_left(count: int) -> None:
    endpoints = Endpoints(64, Keyring())
    come_and_go(endpoints, 0, 10)  # what is imported and cached once
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for round_ in (1, 2):
            come_and_go(endpoints, round_ * count, count)
            gc.collect()
            left, _ = tracemalloc.get_traced_memory()
            assert left - before < 150_000  # the tables of a thousand are not made smaller
    finally:
        tracemalloc.stop()
    assert len(endpoints) == 0


def test_those_that_stay_are_still_known_after_the_tables_shrank() -> None:
    endpoints = Endpoints(64, Keyring())
    kept = SubscriptionVersion(b"k" * 16, 3, "http://127.0.0.1/", 15, (), "standard", (), ())
    endpoints.note_not_sendable(endpoints.update(kept, Nobody()))
    come_and_go(endpoints, 0)
    assert [endpoint.subscription for endpoint in endpoints] == [kept]
    assert endpoints.take_sendable_again() == [kept.id]


def known(number: int) -> SubscriptionVersion:
    secrets = (("signing", Secret("whsec_" + "A" * 43 + "=")),)
    return SubscriptionVersion(number.to_bytes(16, "big"), 1, "http://127.0.0.1/", 15, (), "standard", (), secrets)


@pytest.mark.field("F78")
def test_beyond_the_most_only_what_is_idle_and_open_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first, but not one that holds something, is held back, or was just asked for."""
    monkeypatch.setattr("relay.engine.endpoint_registry.KNOWN_MAX", 4)
    endpoints = Endpoints(64, Keyring())
    busy, held, asked, idle = (endpoints.update(known(n), Nobody()) for n in range(4))
    busy.leased = 1
    held.send_nothing_for(60)
    assert endpoints.stale([(asked.subscription.id, 1)]) == []
    last = endpoints.update(known(4), Nobody())
    assert set(endpoints) == {busy, held, asked, last}
    assert endpoints.get(idle.subscription.id) is None
    assert endpoints.stale([(idle.subscription.id, 1)]) == [idle.subscription.id], "it is read again when needed"


def test_one_that_was_forgotten_comes_back_as_it_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.engine.endpoint_registry.KNOWN_MAX", 100)
    endpoints = Endpoints(64, Keyring())
    for number in range(1, 1000):
        endpoints.update(known(number), Nobody()).window.answers = number % 3 == 0
    assert len(endpoints) == 100
    assert all(endpoints.answers(known(number).id) is (number % 3 == 0) for number in range(1, 1000))
    assert all(endpoints.update(known(number), Nobody()).answers is (number % 3 == 0) for number in range(1, 1000))


def test_it_knows_which_of_them_do_not_answer() -> None:
    endpoints, room = Endpoints(64, Keyring()), Room(64)
    one, other = (endpoints.update(known(n), Nobody()) for n in (1, 2))
    ids = one.subscription.id, other.subscription.id
    assert endpoints.unproven == {*ids}, "never asked"
    room.learn(one, Outcome(OutcomeKind.DELIVERED, 204, 3))
    assert endpoints.unproven == {ids[1]}
    room.learn(one, Outcome(OutcomeKind.TIMEOUT, None, 3))
    room.learn(other, Outcome(OutcomeKind.DELIVERED, 204, 3))
    assert endpoints.unproven == {ids[0]}
    endpoints.forget(ids[0])
    assert not endpoints.unproven


def test_one_that_answers_no_more_comes_back_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.engine.endpoint_registry.KNOWN_MAX", 1)
    endpoints = Endpoints(64, Keyring())
    for answers in (True, False):
        endpoints.update(known(1), Nobody()).window.answers = answers
        endpoints.update(known(2), Nobody())
        assert endpoints.answers(known(1).id) is answers
    endpoints.update(known(1), Nobody()).window.answers = True
    endpoints.update(known(2), Nobody())
    endpoints.distrust()
    assert not endpoints.answers(known(1).id), "another server's"
