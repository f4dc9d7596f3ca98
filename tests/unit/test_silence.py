"""Blocks without events: which types they silence, and that neither threads nor tasks take them along."""

from __future__ import annotations

import asyncio
import threading

import pytest

import outbox
from outbox import ArgumentError, PayloadError
from outbox.recording.silence import is_silenced, silenced


@pytest.mark.parametrize(
    ("patterns", "silent", "heard"),
    [
        ((), ["a", "a.b"], []),
        (("*",), ["a", "a.b"], []),
        (("product.*",), ["product.created", "product.stock.low"], ["product", "products.created", "order.placed"]),
        (("product.created", "order.*"), ["product.created", "order.placed"], ["product.deleted"]),
    ],
)
def test_a_block_silences_what_its_patterns_match(patterns, silent, heard):
    with silenced(*patterns):
        assert [type_ for type_ in (*silent, *heard) if is_silenced(type_)] == silent
    assert not any(map(is_silenced, (*silent, *heard)))


def test_an_inner_block_adds_to_the_outer():
    with silenced("a.*"):
        with silenced("b.*"):
            assert [is_silenced(type_) for type_ in ("a.x", "b.x", "c.x")] == [True, True, False]
        assert [is_silenced(type_) for type_ in ("a.x", "b.x")] == [True, False]


def test_a_block_ends_with_an_error_too():
    with pytest.raises(ZeroDivisionError), silenced():
        raise ZeroDivisionError
    assert not is_silenced("a")


@pytest.mark.parametrize("wrong", ["", "a b", "product*", ".*", 5, "x" * 129])
def test_what_is_no_pattern_is_refused(wrong):
    with pytest.raises(ArgumentError, match="types"), silenced(wrong):
        pass


def test_a_thread_of_its_own_is_not_silenced():
    heard = []
    with silenced():
        thread = threading.Thread(target=lambda: heard.append(not is_silenced("a")))
        thread.start()
        thread.join()
    assert heard == [True]


def test_tasks_begun_inside_are_silenced_as_long_as_the_block_lasts_and_others_are_not():
    async def ask(ready: asyncio.Event, go: asyncio.Event) -> list[bool]:
        before = is_silenced("a")
        ready.set()
        await go.wait()
        return [before, is_silenced("a")]

    async def main() -> None:
        outer, inner, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        other = asyncio.create_task(ask(outer, go))
        await outer.wait()
        with silenced():
            own = asyncio.create_task(ask(inner, go))
            await inner.wait()
            assert await asyncio.to_thread(is_silenced, "a")
        go.set()
        assert await own == [True, False]
        assert await other == [False, False]

    asyncio.run(main())


def test_a_silenced_event_is_checked_and_says_that_it_is_none():
    with silenced("product.*"):
        event = outbox.record(None, "product.created", {"id": 7}, key="7")  # no target is asked for
        with pytest.raises(PayloadError, match=r"data\.when"):
            outbox.record(None, "product.created", {"when": object()})
        with pytest.raises(outbox.TargetError):
            outbox.record(None, "order.placed", {})
    assert (event.recorded, event.type, event.key) == (False, "product.created", "7")
