"""When attempts begin: as soon as a place is free, and once a turn of the loop for all that ended in it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.engine.endpoint import Endpoint
from relay.engine.room import BEGUN_AT_ONCE, Room
from relay.secrets.keyring import Keyring
from tests.unit.test_endpoint import subscription

pytestmark = pytest.mark.anyio
PLACES = 4


class Owner:
    """Begins attempts as an engine does, and notes how many began before the loop turned."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.begun = 0

    def begin_next(self, endpoint: Endpoint) -> None:
        endpoint.unbegun.pop(0)
        self._room.begin(endpoint)
        self.begun += 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def room() -> Room:
    return Room(PLACES)


@pytest.fixture
def endpoint(room: Room) -> Endpoint:
    """One that answers, with ten deliveries that wait and as many requests on the wire as there are places."""
    one = Endpoint(subscription(), 64, Keyring(), cast(Any, Owner(room)))
    one.window.answers = True
    for _ in range(10 + PLACES):
        room.enter(one, cast(Any, SimpleNamespace(size=2)))
    room.begin_attempts()
    return one


def begun_by(endpoint: Endpoint) -> int:
    return cast(Owner, endpoint.owner).begun


async def test_no_more_begin_than_there_are_places(endpoint: Endpoint) -> None:
    assert begun_by(endpoint) == endpoint.sending == PLACES
    assert len(endpoint.unbegun) == 10


async def test_what_ended_in_a_turn_is_followed_together_in_the_next(room: Room, endpoint: Endpoint) -> None:
    for ended in range(1, 4):
        room.end(endpoint)
        room.enqueue(endpoint)
        room.begin_attempts_soon()
        assert (begun_by(endpoint), endpoint.sending) == (PLACES, PLACES - ended), "it waits for the others"
    await asyncio.sleep(0)
    assert (begun_by(endpoint), endpoint.sending) == (PLACES + 3, PLACES)


async def test_there_is_one_look_a_turn_and_another_in_the_next(
    room: Room, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(room, "begin_attempts", lambda: looks.append(endpoint.sending))
    for turn in range(1, 4):
        for _ in range(3):
            room.begin_attempts_soon()
        assert len(looks) == turn - 1
        await asyncio.sleep(0)
        assert len(looks) == turn


async def test_the_loop_turns_between_sixteen_requests_and_the_next() -> None:
    """Else what the database answers waits until all have begun."""
    room = Room(64)
    one = Endpoint(subscription(), 64, Keyring(), cast(Any, Owner(room)))
    one.window.answers, one.window.size = True, 64
    for _ in range(40):
        room.enter(one, cast(Any, SimpleNamespace(size=2)))
    room.begin_attempts()
    for begun in (BEGUN_AT_ONCE, 2 * BEGUN_AT_ONCE, 40, 40):
        assert begun_by(one) == one.sending == begun
        await asyncio.sleep(0)


class Behind:
    """What a room asks a settler."""

    unwritten = 0


def test_unwritten_results_beyond_the_leases_take_places_and_no_more_than_there_are() -> None:
    """Who asks how many are free takes a number below none for many."""
    room, settler = Room(8, leased_max=10), Behind()
    room.add_settler(settler)  # type: ignore[arg-type]
    free = []
    for settler.unwritten in (0, 10, 13, 20, 21, 500):
        free.append(room.free)
    assert free == [10, 10, 7, 0, 0, 0]
    room.remove_settler(settler)  # type: ignore[arg-type]
    assert room.free == 10
