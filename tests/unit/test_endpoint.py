"""What an endpoint may have at once follows its health; what closes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.secret import Secret
from relay.engine.endpoint import Endpoint
from relay.engine.window import QUEUE_MAX, WINDOW_START
from relay.model.subscription import SubscriptionVersion
from relay.secrets.keyring import Keyring

SECRET = "whsec_" + "A" * 43 + "="
OWNER = cast(Any, None)  # nothing is sent here


def subscription(**changes: Any) -> SubscriptionVersion:
    fields = {"id": bytes(16), "version": 1, "url": "http://127.0.0.1/", "timeout_seconds": 15,
              "schedule_seconds": (5,), "scheme": "standard",
              "final_statuses": (), "secrets": (("signing", Secret(SECRET)),), **changes}  # fmt: skip
    return SubscriptionVersion(**fields)


def endpoint(window_max: int = 64) -> Endpoint:
    return Endpoint(subscription(), window_max, Keyring(), OWNER)


def healthy(one: Endpoint, times: int = 1, seconds: float = 0.01) -> None:
    for _ in range(times):
        one.window.learn("delivered", 200, seconds)


def hanging(one: Endpoint, times: int = 1) -> None:
    for _ in range(times):
        one.window.learn("timeout", None, 15.0)


def test_it_begins_with_a_small_window_and_grows_by_one_a_success() -> None:
    one = endpoint()
    assert one.window.size == WINDOW_START
    healthy(one, 5)
    assert one.window.size == WINDOW_START + 5


def test_a_window_never_exceeds_what_the_operator_allows() -> None:
    one = endpoint(window_max=4)
    assert one.window.size == 4
    healthy(one, 100)
    assert one.window.size == 4


@pytest.mark.parametrize("kind", ["timeout", "refused", "connection", "dns", "tls"])
def test_an_endpoint_that_does_not_answer_soon_holds_a_single_slot(kind: str) -> None:
    one = endpoint()
    for _ in range(5):
        one.window.learn(kind, None, 15.0)
    assert one.window.size == 1
    assert one.free == 1


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_that_asks_for_less_gets_less(status: int) -> None:
    one = endpoint()
    one.window.learn("http_4xx" if status == 429 else "http_5xx", status, 0.01)
    assert one.window.size == WINDOW_START // 2


def test_an_endpoint_that_answers_500_is_not_held_up_for_that() -> None:
    one = endpoint()
    one.window.learn("http_5xx", 500, 0.01)
    assert one.window.size == WINDOW_START + 1


def test_it_recovers() -> None:
    one = endpoint()
    hanging(one, 10)
    healthy(one, 64)
    assert one.window.size == 64


def test_nothing_queues_up_for_an_endpoint_that_is_not_at_its_best() -> None:
    one = endpoint()
    healthy(one, 10)
    assert one.free == one.window.size
    healthy(one, 100)
    assert one.free > one.window.size
    hanging(one)
    assert one.free == one.window.size == 32


def test_at_most_what_the_endpoint_takes_off_in_a_second_waits_here() -> None:
    slow, quick = endpoint(), endpoint()
    healthy(slow, 200, seconds=0.5)
    healthy(quick, 200, seconds=0.0005)
    assert slow.free == pytest.approx(64 + 128, abs=3)
    assert quick.free == 64 + QUEUE_MAX


def test_leased_deliveries_take_room() -> None:
    one = endpoint()
    one.leased = 10
    assert one.free == WINDOW_START - 10


def test_sending_more_than_the_window_waits() -> None:
    one = endpoint()
    one.unbegun.append(cast(Any, object()))
    one.sending = WINDOW_START - 1
    assert one.may_send
    one.sending = WINDOW_START
    assert not one.may_send


def test_an_update_keeps_the_counts_and_takes_the_new_endpoint() -> None:
    one = endpoint()
    one.leased, one.sending = 3, 2
    one.update(subscription(version=2, url="http://127.0.0.1/new"))
    assert (one.leased, one.sending, one.envelope.endpoint.url.target, one.subscription.version) == (3, 2, "/new", 2)


@pytest.mark.parametrize(
    "change",
    [{"secrets": ()}, {"secrets": (("signing", Secret("whsec_?")),)}, {"url": "ftp://x"}, {"scheme": "unheard-of"}],
)
def test_a_subscription_that_cannot_be_sent_to_is_a_problem_with_a_name_and_no_secret(change: dict[str, Any]) -> None:
    one = Endpoint(subscription(**change), 64, Keyring(), OWNER)
    assert one.problem
    assert "whsec_?" not in one.problem[1]
    one.update(subscription(version=2))
    assert one.problem is None


def test_a_subscription_never_shows_its_secrets() -> None:
    assert SECRET not in repr(subscription())


events = st.lists(st.sampled_from([("delivered", 200), ("timeout", None), ("http_5xx", 503), ("http_4xx", 404)]))


@given(events, st.integers(1, 200))
def test_whatever_happens_the_window_stays_between_one_and_its_maximum(
    heard: list[tuple[str, int | None]], window_max: int
) -> None:
    one = endpoint(window_max)
    for kind, status in heard:
        one.window.learn(kind, status, 0.1)
        assert 1 <= one.window.size <= window_max
        assert 1 <= one.free <= window_max + QUEUE_MAX


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The endpoints' time, which goes on only when told."""
    now = [1000.0]
    monkeypatch.setattr("relay.engine.endpoint.time.monotonic", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_an_endpoint_that_is_not_sendable_takes_nothing_until_its_time(clock: Callable[[float], None]) -> None:
    one = endpoint()
    one.send_nothing_for(60.0)
    one.send_nothing_for(5.0)
    clock(59.0)
    assert (one.is_sendable, one.free) == (False, 0)
    clock(1.0)
    assert (one.is_sendable, one.free) == (True, WINDOW_START)


def test_what_the_database_says_now_counts_more_than_what_was_heard_before(clock: Callable[[float], None]) -> None:
    one = endpoint()
    one.send_nothing_for(60.0)
    one.update(subscription(version=2))
    assert one.is_sendable
    one.update(subscription(version=3, sendable_in_seconds=math.inf))
    clock(1e9)
    assert not one.is_sendable
    one.update(subscription(version=4, sendable_in_seconds=30.0))
    assert not one.is_sendable
    clock(30.0)
    assert one.is_sendable
