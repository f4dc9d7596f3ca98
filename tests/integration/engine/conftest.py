"""A world for each test: a database seen from outside, and a far end that does as told."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO

import pytest

from relay.message.evaluator_process.frames import write_frame
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World
from tests.support import databases


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def shared_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """One database for many tests: emptying it is ten times as fast as making one."""
    with databases.database(server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def world(shared_url: str, relays_with_their_own_rights: None) -> Iterator[World]:
    """An empty database that has the schema; what a test changes beyond rows would stay for the next."""
    world = World(shared_url)
    world.empty()
    yield world
    world.close()


@pytest.fixture
def own_world(database_url: str, relays_with_their_own_rights: None) -> Iterator[World]:
    """A database of the test's own, to be changed as it likes: triggers, settings, statistics."""
    world = World(database_url)
    yield world
    world.close()


@pytest.fixture
def far_end() -> FarEnd:
    return FarEnd()


@pytest.fixture
async def store(world: World) -> AsyncIterator[Store]:
    store = Store(databases.as_relay(world.url))
    yield store
    await store.close()


@pytest.fixture
async def other_store(world: World) -> AsyncIterator[Store]:
    """A second relay's."""
    store = Store(databases.as_relay(world.url))
    yield store
    await store.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What is set as soon as a question is on its way to the evaluator; clear it after that has started."""
    begun = threading.Event()

    def write(stream: IO[bytes], content: bytes) -> None:
        begun.set()
        write_frame(stream, content)

    monkeypatch.setattr("relay.message.evaluator_process.child.write_frame", write)
    return begun


@pytest.fixture
def process_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the evaluator answer each question by this expression in Python; it has a list, `later`, of its own."""

    def patch(expression: str) -> None:
        program = (
            "import os, time\nfrom relay.message.evaluator_process import __main__ as process\n"
            f"later = []\nprocess.answer = lambda asked: asked and ({expression})\nprocess.main()"
        )
        monkeypatch.setattr("relay.message.evaluator_process.child.COMMAND", ("-c", program))

    return patch
