"""The checker of order finds what it is there to find."""

from __future__ import annotations

from typing import Any

from tests.support.order import Order

WRITTEN = [{"numbers": {"a1": ["a", 1], "a2": ["a", 2], "b1": ["b", 1]}}]


def order(*steps: str) -> Order:
    """The verdict on `event` (it came and was acknowledged), `event?` (it came) and `event!` (it failed)."""
    log: list[dict[str, Any]] = []
    for number, step in enumerate(steps):
        log.append({"what": "received", "path": "/", "request": number, "id": step.rstrip("?!")})
        if not step.endswith("?"):
            log.append({"what": "answered", "request": number, "status": 500 if step.endswith("!") else 200})
    return Order.of(WRITTEN, ["a1", "a2", "b1"], log, "/")


def test_keys_may_come_in_any_order_and_each_again() -> None:
    found = order("b1", "a1!", "a1", "a1", "a2", "a1")
    assert (found.broken, found.missing, found.repeats) == ([], 0, 2)


def test_a_later_event_that_comes_first_is_found_even_where_it_fails() -> None:
    assert order("a2!", "a1", "a2").broken == ["a: 2 came, but only 0 were acknowledged"]


def test_a_later_event_that_comes_while_the_first_hangs_is_found() -> None:
    assert order("a1?", "a2?").broken


def test_what_never_was_acknowledged_is_missing() -> None:
    assert order("a1", "b1", "a2!").missing == 1
