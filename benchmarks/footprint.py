"""SQL statements and WAL bytes per delivered event, while one relay drains a burst.

Statements are counted in the server's own log, all of them: BEGIN, settings, COMMIT, polls and housekeeping too. That
needs the log, so they are counted on the embedded server only. WAL is everything the server wrote between COMMIT of
the events and the last settlement; what recording the events wrote is told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench import Bench, Result, wait_until
from benchmarks.children import receiver, relay
from benchmarks.events import record_many, settled, subscribe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

BAR = 0.05
WAL = "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
LOGGED = ("LOG:  statement:", "LOG:  execute ")


def run(bench: Bench) -> Iterator[Result]:
    """Drain one burst and count."""
    events = bench.sizes.deliveries
    with receiver() as counting, bench.server.outbox() as url:
        subscribe(url, [counting.url])
        with bench.connection(url) as connection:
            name = connection.info.dbname
            connection.execute(f"alter database {name} set log_statement = 'all'")
            connection.execute(f"alter database {name} set log_parameter_max_length = 0")
            with relay(bench, url) as running:
                read_from = bench.server.log.stat().st_size if bench.server.log else 0
                before = connection.execute(WAL).fetchone()[0]
                with connection.transaction():
                    record_many(connection, events)
                    recorded = connection.execute(WAL).fetchone()[0]
                wait_until(lambda: settled(connection)[0] == events, 120, "every settlement")
                running.stop()
                delivered = connection.execute(WAL).fetchone()[0]
        if bench.server.log:
            yield _statements(bench.server.log.read_bytes()[read_from:], name, events)
        per_event = (delivered - recorded) / events
        anchors = f"and {(recorded - before) / events:,.0f} bytes to record it"
        yield Result("WAL bytes per delivered event", f"{per_event:,.0f}", anchors=anchors)


def _statements(log: bytes, database: str, events: int) -> Result:
    """Count the statements in the log that are the relay's."""
    count = sum(
        line.startswith(f"{database}|")
        and not line.startswith(f"{database}|outbox-benchmarks|")
        and any(words in line for words in LOGGED)
        for line in log.decode(errors="replace").splitlines()
    )
    figure = count / events
    return Result(
        "SQL statements per delivered event",
        f"{figure:.3f}",
        f"≤ {BAR}",
        figure <= BAR,
        f"{count:,} for {events:,} events",
    )
