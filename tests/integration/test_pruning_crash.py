"""Whether the server still ends where a statement prunes after it looked again at changed rows."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.local import embedded
from relay.local.embedded import EmbeddedServer
from tests.support.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "postgresql-pruning-crash.md"
MADE, KEPT, WAITING = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
WAITS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
NO_LONGER = (
    "this server no longer ends: tell in docs/postgresql-pruning-crash.md which version it is."
    " Once all supported ones are like it, pruning may be switched on (relay.store.database.SETTINGS)"
)

pytestmark = pytest.mark.field("F64")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server that nobody else uses."""
    directory = Path(tempfile.mkdtemp(prefix="outbox-pruning-"))
    try:
        with embedded.start(directory, settings={"fsync": "off"}) as server:
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(MADE)
            yield server
            wait_until(lambda: is_up(server.url()))  # one that still recovers stops late
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def is_up(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def wait_and_prune(url: str, pruning: str) -> list[Any]:
    """Run both sessions of the page; return the rows of the second."""
    found: list[list[Any]] = []

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as two:
            two.execute(f"set enable_partition_pruning = {pruning}")
            try:
                found.append(two.execute(WAITING).fetchall())
            except psycopg.OperationalError:
                found.append([])

    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as watching:
        one.execute(KEPT)
        second = threading.Thread(target=look)
        second.start()
        wait_until(lambda: watching.execute(WAITS).fetchone() == (1,))
        one.execute("commit")
        second.join()
    return found[0]


@pytest.mark.slow
def test_without_pruning_the_server_answers_and_with_it_it_ends(server: EmbeddedServer) -> None:
    assert len(wait_and_prune(server.url(), "off")) == 20
    assert wait_and_prune(server.url(), "on") == [], NO_LONGER
