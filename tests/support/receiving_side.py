"""The receiving side of a proof from PostgreSQL to PostgreSQL: a database, an application that dies, and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

import outbox
from outbox.signing.verify import new_secret
from relay.local.embedded import free_port
from tests.support import databases
from tests.support.application import Application
from tests.support.inbox_receiver import SOURCE
from tests.support.processes import WarmProcess

POINTS = ("taken", "acted", "committed")
_FOUND = {
    "acted upon": "select event_id from effect",
    "ids": f"select message_id from outbox.inbox_ids where source = '{SOURCE}'",
    "next events": "select key from outbox.events",
    "accepted rows": "select message_id from outbox.inbox where outcome = 'accepted'",
}


@dataclass
class ReceivingSide:
    """A database and the application on it, which is started again after each kill."""

    directory: Path
    database_url: str
    port: int
    secret: str
    starts: int = 0
    process: WarmProcess | None = None

    def subscribe(self, app: Application, **options: object) -> None:
        """Subscribe the receiving application to every event of the sending one."""
        with app.engine.begin() as connection:
            url = f"http://127.0.0.1:{self.port}/hook"
            outbox.subscribe(connection, url, ["*"], secret=self.secret, **options)  # type: ignore[arg-type]

    def start(self, crash_after: int = 0) -> None:
        """Start it; after so many messages it kills itself, each time at another point."""
        self.end()
        point = POINTS[self.starts % len(POINTS)]
        program = ["-m", "tests.support.inbox_receiver", self.database_url, str(self.port), self.secret,
                   str(crash_after), point]  # fmt: skip
        self.process = WarmProcess(program, self.directory / f"receiving-{self.starts}.log")
        self.starts += 1

    @property
    def alive(self) -> bool:
        """Whether it has not killed itself yet."""
        return self.process is not None and self.process.alive

    def end(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.end()

    def broken(self, committed: Iterable[str]) -> dict[str, int]:
        """Return how many events are missing, repeated or strange in each place, {} where none is anywhere."""
        expected = Counter(committed)
        found: dict[str, int] = {}
        with psycopg.connect(self.database_url) as connection:
            for place, statement in _FOUND.items():
                seen = Counter(name for (name,) in connection.execute(statement))
                wrong = {name for name in expected.keys() | seen.keys() if seen[name] != 1 or name not in expected}
                found |= {place: len(wrong)} if wrong else {}
        return found

    def outcomes(self) -> dict[str, int]:
        """Return how many rows the inbox has of each outcome."""
        with psycopg.connect(self.database_url) as connection:
            return dict(connection.execute("select outcome, count(*) from outbox.inbox group by 1").fetchall())


@contextmanager
def receiving_side(directory: Path, server_url: str) -> Iterator[ReceivingSide]:
    """Make its database; end what was started."""
    with databases.database(server_url) as url:
        databases.migrate(url)
        with psycopg.connect(url) as connection:
            connection.execute("create table effect (event_id text)")  # nothing but the inbox keeps a second row out
        side = ReceivingSide(directory, url, free_port(), new_secret())
        try:
            yield side
        finally:
            side.end()
