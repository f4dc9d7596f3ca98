"""A dashboard over the scene of an ordinary bad day, the same for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.support import databases
from tests.support.dashboard import Scene, seed, served
from tests.support.loopback import allow_loopback
from tests.support.visiting import close_opened


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[tuple[str, Scene, Engine]]:
    """The address of a dashboard, its scene and its database, the same for all tests here."""
    allow_loopback()
    with databases.database(server_url, template=migrated_template) as url, databases.engine_on(url) as engine:
        with engine.begin() as connection:
            scene = seed(connection)
        with served(url) as address:
            yield address, scene, engine


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    """Close what a test opened."""
    yield
    close_opened()
