"""Where the demo plays: a database of its own, and the processes that run on it."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from outbox import allow_endpoints, schema, subscriptions
from outbox.signing.verify import new_secret
from relay.config.database_url import sqlalchemy_url_of
from relay.local import embedded
from relay.local.children import Child
from relay.local.demo.figures import Backlog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Stage", "own_directory", "relay_environment"]

_SEED = 1
_BACKLOG = text("""
    select (select count(*) from outbox.pending) pending, count(*) deliveries,
           count(*) filter (where lease is null and attempts > 0) retrying,
           (select count(*) from outbox.dead_letters) dead
    from outbox.deliveries
""")
_LEASES = text("""
    select count(*), coalesce(ceil(extract(epoch from max(due_at) - clock_timestamp())), 0)::integer
    from outbox.deliveries where lease is not null
""")
_LOSE_ONE = text("""
    with lost as (
        delete from outbox.pending where event_seq = (select max(event_seq) from outbox.pending)
        returning event_seq
    )
    select outbox.text_id('evt', id) from outbox.events join lost on seq = event_seq
""")


@contextmanager
def own_directory(*, keep: bool) -> Iterator[Path]:
    """Make a directory for one run, and remove it afterwards unless it is to be kept."""
    directory = Path(tempfile.mkdtemp(prefix="relay-demo-"))
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def relay_environment(database_url: str) -> dict[str, str]:
    """Return the environment of a relay that may call receivers on this machine."""
    return {
        "RELAY_DATABASE_URL": database_url,
        "RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
        "RELAY_ALLOW_HTTP": "true",
    }


class Stage:
    """A migrated database on an embedded server in `directory`. Leaving it stops all it started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._relays = 0
        self.lost: str | None = None
        self._secret = new_secret()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            server = stack.enter_context(embedded.start(self._directory))
            self._database_url = server.url()
            self._engine_url = sqlalchemy_url_of(self._database_url)
            engine = create_engine(self._engine_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            self._connection: Connection = stack.enter_context(engine.connect())
            with create_engine(self._engine_url, poolclass=NullPool).connect() as connection:
                schema.migrate(connection)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_receiver(self, timeout_seconds: int) -> Child:
        """Start the receiver, which knows the subscription's secret and how long the relay will wait."""
        program = ["-m", "relay.local.demo.receiver", str(timeout_seconds), str(_SEED)]
        return self._start("receiver", program, {"WEBHOOK_SECRET": self._secret})

    def subscribe(self, port: int, timeout_seconds: int, schedule_seconds: Sequence[int]) -> subscriptions.Subscription:
        """Subscribe the receiver on this port to the shop's events."""
        allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
        return subscriptions.add(
            self._connection,
            f"http://127.0.0.1:{port}/webhooks",
            ["order.*"],
            secret=self._secret,
            timeout_seconds=timeout_seconds,
            schedule_seconds=schedule_seconds,
        )

    def start_relay(self) -> Child:
        """Start a relay, as an operator would: `relay run`."""
        self._relays += 1
        environment = relay_environment(self._database_url)
        return self._start("relay", ["-m", "relay", "run"], environment, log=f"relay-{self._relays}.log")

    def start_shop(self, orders: int, per_second: float) -> Child:
        """Start the shop, which closes after so many orders."""
        program = f"from relay.local.demo import shop; shop.main({orders}, {per_second})"
        url = self._engine_url.render_as_string(hide_password=False)
        return self._start("shop", ["-c", program], {"DATABASE_URL": url})

    def _start(self, name: str, program: Sequence[str], environment: Mapping[str, str], log: str = "") -> Child:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RELAY_", "PG"))}
        child = Child(name, program, self._directory / (log or f"{name}.log"), {**inherited, **environment})
        return self._stack.enter_context(child)

    def backlog(self) -> Backlog:
        """Return what the database holds now."""
        return Backlog(**self._connection.execute(_BACKLOG).one()._mapping)  # noqa: SLF001 - its public name

    def leases(self) -> tuple[int, int]:
        """Return how many deliveries are leased, and in how many seconds the last of these leases ends."""
        count, seconds = self._connection.execute(_LEASES).one()
        return count, seconds

    def lose_one(self) -> bool:
        """Delete the pending row of one committed event, if there is one, and keep its id as `lost`; tell whether."""
        self.lost = self._connection.execute(_LOSE_ONE).scalar_one_or_none()
        return self.lost is not None
