"""A stage for each test: its own database, a receiver, an application, and relays as real processes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.local import embedded
from relay.local.embedded import EmbeddedServer
from tests.support import databases
from tests.support.application import Application, staged
from tests.support.processes import ReceiverProcess


@pytest.fixture(scope="session")
def receiver_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    """The receiver of all tests of a worker; each begins with a log of its own."""
    receiver = ReceiverProcess(tmp_path_factory.mktemp("receiver"))
    yield receiver
    receiver.end()


@pytest.fixture
def app(
    tmp_path: Path, database_url: str, receiver_process: ReceiverProcess, relays_with_their_own_rights: None
) -> Iterator[Application]:
    """An application with a receiver, on a fresh database of the shared server."""
    with staged(tmp_path, database_url, receiver_process) as app:
        app.stage.relays_url = databases.as_relay(database_url)
        yield app


@pytest.fixture
def receiver(app: Application) -> ReceiverProcess:
    """The application's receiver."""
    return app.receiver


@pytest.fixture(scope="module")
def killable() -> Iterator[EmbeddedServer]:
    """A server of our own that keeps its promises, which a test may kill and start again."""
    directory = Path(tempfile.mkdtemp(prefix="outbox-killable-"))
    try:
        with embedded.start(directory, settings={"fsync": "on", "max_connections": "50"}) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def killable_app(tmp_path: Path, killable: EmbeddedServer, receiver_process: ReceiverProcess) -> Iterator[Application]:
    """As `app`, on the server that may be killed; it runs again afterwards."""
    with databases.database(killable.url()) as url:
        databases.migrate(url)
        with staged(tmp_path, url, receiver_process) as app:
            yield app
        killable.restart()
