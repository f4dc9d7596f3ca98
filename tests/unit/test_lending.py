"""Places that are lent: who may take them, and how those that lent them come back."""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.engine.endpoint import Endpoint
from relay.engine.fairness import Places
from relay.engine.lending import Lending
from relay.message.evaluator_process.large_bodies import TooLateError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class One:
    def __init__(self, *, answers: bool = True) -> None:
        self.window = SimpleNamespace(proven=answers)


def endpoint(*, answers: bool = True) -> Endpoint:
    return cast("Endpoint", One(answers=answers))


def counts(places: Places) -> tuple[int, int, int]:
    return places.total, places.unproven_max, places.allowance(0)


async def test_who_comes_back_waits_for_a_place_until_its_time_has_passed() -> None:
    places = Places(1)
    lending, before = Lending(places), counts(places)
    places.take(endpoint())

    async def lend() -> None:
        async with lending.lent(unproven=False, start_by=time.monotonic()):
            assert places.has_one(unproven=False)
            places.take(endpoint())

    with pytest.raises(TooLateError):
        await lend()
    assert counts(places) == before
    places.give_back(endpoint())
    lending.take_back()
    assert counts(places) == before, "who gave up has no place"


async def test_those_that_come_back_have_the_free_places_in_their_order() -> None:
    places, order = Places(2), []
    lending = Lending(places)

    async def lend(name: str) -> None:
        places.take(endpoint())
        async with lending.lent(unproven=False, start_by=math.inf):
            places.take(endpoint())  # another request has it
        order.append(name)

    tasks = [asyncio.create_task(lend(name)) for name in ("first", "second")]
    for told in (["first"], ["first", "second"]):
        await asyncio.sleep(0)
        assert not places.has_one(unproven=False)
        places.give_back(endpoint())
        lending.take_back()
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED if len(told) == 1 else asyncio.ALL_COMPLETED)
        assert order == told
    assert places.taken == places.total == 2


async def test_the_place_of_one_that_answers_is_not_for_those_that_do_not() -> None:
    places = Places(8)
    for _ in range(7):
        places.take(endpoint(answers=False))
    places.take(endpoint())
    async with lending_of(places, unproven=False):
        assert places.has_one(unproven=False)
        assert (places.has_one(unproven=True), places.allowance(0)) == (False, 0)
    async with lending_of(places, unproven=True):
        assert (places.has_one(unproven=True), places.allowance(0)) == (True, 1)


async def test_one_that_does_not_answer_comes_back_to_no_place_that_is_kept_for_others() -> None:
    places = Places(8)
    for _ in range(7):
        places.take(endpoint(answers=False))
    with pytest.raises(TooLateError):
        async with Lending(places).lent(unproven=True, start_by=time.monotonic()):
            places.take(endpoint(answers=False))
    assert places.total == 8


async def test_a_block_that_raises_leaves_nothing_lent() -> None:
    places = Places(8)
    before = counts(places)
    for error in (ValueError, asyncio.CancelledError):
        with pytest.raises(error):
            async with lending_of(places, unproven=True):
                raise error
    assert counts(places) == before


def lending_of(places: Places, *, unproven: bool) -> Any:
    return Lending(places).lent(unproven=unproven, start_by=math.inf)
