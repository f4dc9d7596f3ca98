"""The test's own application: subscribes, records, knows what has to arrive, and looks into the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import make_url

import outbox
from tests.support.loopback import allow_loopback
from tests.support.processes import ReceiverProcess, Stage, WriterProcess, read_log
from tests.support.reconcile import Incidents, Pair, Reconciliation, committed_events, reconcile
from tests.support.waiting import wait_until

_DEAD = sa.text(
    "select outbox.text_id('evt', event_id), outbox.text_id('sub', subscription_id), reason from outbox.dead_letters"
)
_LEFT = sa.text("select (select count(*) from outbox.pending) + (select count(*) from outbox.deliveries)")


@dataclass
class Application:
    """One application on one database, with one receiver."""

    stage: Stage
    receiver: ReceiverProcess
    timeout_seconds: int = 5
    paths: dict[str, str] = field(default_factory=dict)  # subscription id: path
    types: dict[str, tuple[str, ...]] = field(default_factory=dict)  # path: the types it wants; () is every type
    committed: dict[str, str] = field(default_factory=dict)  # event id: type

    def __post_init__(self) -> None:
        allow_loopback()
        url = make_url(self.stage.database_url).set(drivername="postgresql+psycopg")
        # Tests poll, and a connection costs more than a query; a statement that is prepared would outlive a migration.
        self.engine = sa.create_engine(url, pool_pre_ping=True, connect_args={"prepare_threshold": None})

    def switch_breakers_off(self) -> None:
        """Let no burst of failures open a breaker."""
        self.rows("update outbox.settings set value = 0 where name = 'breaker_failure_percent'")

    def subscribe(
        self,
        path: str = "/hook",
        *types: str,
        timeout_seconds: int | None = None,
        schedule_seconds: Sequence[int] = (0, 0, 0, 0, 0),
        **options: Any,
    ) -> str:
        """Subscribe a path of the receiver to these exact types, or to all; return the subscription's id."""
        with self.engine.begin() as connection:
            new = outbox.subscribe(
                connection,
                self.receiver.url(path),
                types or ["*"],
                secret=self.receiver.secret,
                timeout_seconds=timeout_seconds or self.timeout_seconds,
                schedule_seconds=schedule_seconds,
                **options,
            )
        self.know(new.id, path, *types)
        return new.id

    def know(self, subscription_id: str, path: str, *types: str) -> None:
        """Take note of a subscription."""
        self.paths[subscription_id] = path
        self.types[path] = types

    def record(self, count: int, event_type: str = "order.placed", **options: Any) -> list[str]:
        """Commit so many events in one transaction; return their ids."""
        with self.engine.begin() as connection:
            events = [outbox.record(connection, event_type, {"number": n}, **options) for n in range(count)]
        ids = [event.id for event in events]
        self.committed |= dict.fromkeys(ids, event_type)
        return ids

    def record_and_roll_back(self, count: int, event_type: str = "order.placed") -> None:
        """Record so many events in a transaction that is rolled back."""
        with self.engine.connect() as connection:
            for n in range(count):
                outbox.record(connection, event_type, {"number": n})
            connection.rollback()

    def take_over(self, writer: WriterProcess) -> None:
        """Make what a writer process committed ours."""
        log = read_log(writer.log)
        types = {event_id: kind for entry in log for event_id, kind in entry["events"]}
        entries = {row[0] for row in self.rows("select event_id from entry")}
        self.committed |= {event_id: types[event_id] for event_id in committed_events(log, entries)}

    def rows(self, sql: str, **values: object) -> Sequence[Any]:
        """Run one statement and return its rows."""
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(sql), values)
            return result.all() if result.returns_rows else []

    def one(self, sql: str, **values: object) -> Any:
        """Return the one value of one row."""
        ((value,),) = self.rows(sql, **values)
        return value

    def drop_schema(self) -> None:
        """Drop the schema; again, where a relay that runs held a table of it and waited for another."""
        while True:
            try:
                self.rows("drop schema outbox cascade")
            except sa.exc.OperationalError as error:
                if not isinstance(error.orig, psycopg.errors.DeadlockDetected):
                    raise
            else:
                return

    def expire_leases(self) -> None:
        """Let the time pass that dead relays' leases still have; only when nobody alive holds one."""
        self.rows("update outbox.deliveries set due_at = clock_timestamp() where lease is not null")
        self.rows("update outbox.health set probe_at = clock_timestamp() where probe_at is not null")

    def wait_settled(self, timeout_seconds: float = 30) -> None:
        """Wait until nothing is pending and no delivery is left."""
        wait_until(
            self.is_settled,
            timeout_seconds=timeout_seconds,
            message=f"pending rows or deliveries are left after {timeout_seconds} s",
        )

    def is_settled(self) -> bool:
        """Tell whether nothing is pending and no delivery is left."""
        with self.engine.begin() as connection:
            return not connection.execute(_LEFT).scalar_one()

    def wanted(self) -> set[Pair]:
        """Every committed event × matching subscription."""
        return {
            (path, event_id)
            for event_id, kind in self.committed.items()
            for path, types in self.types.items()
            if not types or kind in types
        }

    def dead(self) -> dict[Pair, str]:
        """The dead letters with their reasons; one that could not be resolved is dead for every path."""
        with self.engine.begin() as connection:
            rows = connection.execute(_DEAD).all()
        return {
            (path, event_id): reason
            for event_id, subscription_id, reason in rows
            for known, path in self.paths.items()
            if subscription_id in (None, known)
        }

    def cancelled(self) -> frozenset[Pair]:
        """What a person cancelled."""
        found = self.rows(
            "select outbox.text_id('sub', a.subscription_id), outbox.text_id('evt', e.id) from outbox.attempts a"
            " join outbox.events e on e.seq = a.event_seq where a.verdict = 'cancelled'"
        )
        return frozenset((self.paths[subscription], event_id) for subscription, event_id in found)

    def reconcile(self, **seconds: float) -> Reconciliation:
        """Compute the verdict from the logs and what the tables hold now."""
        return reconcile(
            self.wanted(),
            read_log(self.receiver.log),
            Incidents.of(read_log(self.stage.incidents), **seconds),
            dead=frozenset(self.dead()),
            cancelled=self.cancelled(),
            timeout_seconds=self.timeout_seconds,
        )

    def assert_all_accounted(self) -> Reconciliation:
        """0 lost, 0 unexpected, every signature right, every repeat explained."""
        verdict = self.reconcile()
        assert verdict.clean, f"\n{verdict.table()}\nlost {verdict.lost[:3]} unexplained {verdict.unexplained[:3]}"
        return verdict

    def assert_each_once(self) -> None:
        """As above, and nothing was repeated at all."""
        verdict = self.assert_all_accounted()
        assert not verdict.duplicates, verdict.table()


@contextmanager
def staged(directory: Path, database_url: str, receiver: ReceiverProcess) -> Iterator[Application]:
    """Yield an application on this database; end everything it started."""
    receiver.begin(directory / "receiver.jsonl")
    app = Application(Stage(directory, database_url), receiver)
    try:
        yield app
    finally:
        app.engine.dispose()
        app.stage.close()
