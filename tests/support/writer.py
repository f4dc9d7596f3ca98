"""An application as a process: commits business rows together with events, and rolls some back.

`WRITER_DATABASE_URL=… python -m tests.support.writer LOG --events N --per-second R …` appends one JSON object a line to
LOG, after COMMIT or ROLLBACK returned: `committed`, `rolled back`, or `unknown` when the connection was lost in COMMIT
(the business row then tells). Each names the `events` as [id, type]. A database that is away is waited for. With
--keys N each event has one of N keys, and `numbers` has [key, number] for each: the number comes from the key's row,
which is locked up to the commit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import outbox


class Base(DeclarativeBase):
    """The application's own table."""


class Entry(Base):
    """A business row, committed or rolled back together with its event."""

    __tablename__ = "entry"
    event_id: Mapped[str] = mapped_column(primary_key=True)


class Counter(Base):
    """A row for each key: the number of its last event."""

    __tablename__ = "counter"
    key: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]


_DRAW = text(
    "insert into counter values (:key, 1) on conflict (key) do update set number = counter.number + 1 returning number"
)


class Writer:
    """Runs one transaction after the other at a steady rate, and writes down what became of each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._dice = random.Random(options.seed)
        self._log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        url = make_url(os.environ["WRITER_DATABASE_URL"]).set(drivername="postgresql+psycopg")
        self._engine = create_engine(url, pool_pre_ping=True)

    def run(self) -> None:
        """Write until the wanted number of events is committed."""
        self._create_table()
        began, committed, tried = time.monotonic(), 0, 0
        while committed < self._options.events:
            time.sleep(max(0.0, began + tried / self._options.per_second - time.monotonic()))
            size = min(self._options.batch, self._options.events - committed)
            tried += size
            committed += size if self._transaction(size) else 0

    def _create_table(self) -> None:
        for _ in range(100):
            try:
                return Base.metadata.create_all(self._engine)
            except DBAPIError:
                time.sleep(0.1)
        raise SystemExit("the database stayed away for 10 s")

    def _transaction(self, size: int) -> bool:
        events: list[tuple[str, str]] = []
        numbers: dict[str, tuple[str, int]] = {}
        doomed = self._dice.random() < self._options.rollback_share
        committing = False
        try:
            with Session(self._engine) as session:
                for key in self._keys(size):
                    number = session.execute(_DRAW, {"key": key}).scalar_one() if key else 0
                    event = outbox.record(session, self._dice.choice(self._options.types), {"text": "x" * 100}, key=key)
                    if key:
                        numbers[event.id] = (key, number)
                    session.add(Entry(event_id=event.id))
                    events.append((event.id, event.type))
                session.flush()
                if doomed:
                    session.rollback()
                else:
                    committing = True
                    session.commit()
        except DBAPIError:
            self._write("unknown" if committing else "rolled back", events, numbers)
            time.sleep(0.1)
            return False
        self._write("rolled back" if doomed else "committed", events, numbers)
        return not doomed

    def _keys(self, size: int) -> list[str | None]:
        """The keys of one transaction, sorted: two that lock them in another order would wait for each other."""
        if not self._options.keys:
            return [None] * size
        return sorted(f"key-{self._dice.randrange(self._options.keys)}" for _ in range(size))

    def _write(self, what: str, events: list[tuple[str, str]], numbers: dict[str, tuple[str, int]]) -> None:
        facts = {"what": what, "at": time.time(), "events": events, "numbers": numbers}
        os.write(self._log, json.dumps(facts).encode() + b"\n")


def main() -> None:
    """Parse the options and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--per-second", type=float, default=1000.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rollback-share", type=float, default=0.1)
    parser.add_argument("--types", nargs="+", default=["order.placed"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keys", type=int, default=0)
    Writer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
