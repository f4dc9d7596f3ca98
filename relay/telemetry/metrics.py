"""Metrics in Prometheus' text format, by prometheus-client (extra `metrics`).

One process counts in memory. The processes of `relay run --processes N` count in files of their own, mapped into
memory, in a directory that the parent makes and removes; the parent adds them up for each scrape. What a process
counted stays when it dies, so that no total goes backwards. No label has a value that users choose: how many there are
is bounded by the code.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from outbox._version import __version__
from relay.model.outcome import OutcomeKind
from relay.model.verdict import VerdictKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from relay.model.settlement import Settlement
    from relay.telemetry.gauges import Reading

__all__ = ["CONTENT_TYPE", "DIRECTORY", "Metrics", "is_installed", "make_registry", "render"]

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus-client reads when it is imported: where a process of several counts."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_POSTGRES_EPOCH = 946_684_800  # 2000-01-01 in Unix seconds
_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300)
_DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43_200, 86_400, 259_200)


def is_installed() -> bool:
    """Tell whether prometheus-client is there."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        return False
    return True


class Metrics:
    """What one process counts; a Meter of its engines."""

    def __init__(self, registry: Any) -> None:
        """Make every time series at once, so that a first failure is a rise from 0."""
        from prometheus_client import Counter, Histogram, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each of ours, which nobody asks for

        attempts = Counter("outbox_relay_attempts", "Attempts that were settled.", ["outcome"], registry=registry)
        requests = Histogram(
            "outbox_relay_attempt_duration_seconds",
            "How long attempts took, from their beginning to the end of the answer.",
            ["result"],
            buckets=_REQUESTS,
            registry=registry,
        )
        self._attempts = {kind: attempts.labels(outcome=kind.value) for kind in OutcomeKind}
        self._requests = {done: requests.labels(result="delivered" if done else "failed") for done in (True, False)}
        self._delays = Histogram(
            "outbox_relay_delivery_delay_seconds",
            "From the recording of an event to its delivery, with all that it waited for.",
            buckets=_DELAYS,
            registry=registry,
        )
        self._dead = Counter(
            "outbox_relay_dead_letters_made", "Deliveries that were given up after an attempt.", registry=registry
        )
        self._events = Counter("outbox_relay_events_resolved", "Events that were fanned out.", registry=registry)
        self._made = Counter("outbox_relay_deliveries_made", "Deliveries that fan-out made.", registry=registry)

    def settled(self, batch: Sequence[Settlement], buried: int, now: float) -> None:
        """Count attempts by outcome, and time them."""
        for settlement in batch:
            done = settlement.verdict.kind == VerdictKind.DELIVERED
            self._attempts[settlement.outcome].inc()
            if settlement.outcome != OutcomeKind.STOOD_STILL:  # its time is that of this process, not of a request
                self._requests[done].observe(settlement.milliseconds / 1000)
            if done and (event := settlement.delivery.event) is not None:
                self._delays.observe(max(0.0, now - _POSTGRES_EPOCH - event.recorded_at / 1_000_000))
        self._dead.inc(buried)

    def resolved(self, events: int, deliveries: int) -> None:
        """Count events, and the deliveries made of them."""
        self._events.inc(events)
        self._made.inc(deliveries)


class _Collector:
    """Makes what is not counted but stands so: at each scrape, from the last reading of the database."""

    def __init__(self, read: Callable[[], Reading], restarts: Callable[[], int]) -> None:
        self._read = read
        self._restarts = restarts

    def collect(self) -> Iterator[Any]:
        """Yield every family; those of the database only while it can be read."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        build = GaugeMetricFamily("outbox_relay_build_info", "Always 1; its label is the version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield CounterMetricFamily(
            "outbox_relay_process_restarts", "Processes that were started again.", value=self._restarts()
        )
        reading = self._read()
        found = reading.gauges
        yield _gauge("database_up", "Whether the database could be read.", 0 if found is None else 1)
        if found is None:
            return
        yield _gauge("due_deliveries", "Deliveries that may be sent now; counting stops at 10000.", found.due)
        yield _gauge("oldest_due_age_seconds", "For how long the oldest of them is due.", found.oldest_due_seconds)
        yield _gauge("pending_events", "Events that are not fanned out yet; counting stops at 10000.", found.pending)
        yield _gauge(
            "oldest_pending_age_seconds", "How long ago the oldest of them was recorded.", found.oldest_pending_seconds
        )
        yield _gauge("dead_letters", "Dead letters there are; counting stops at 10000.", found.dead_letters)
        yield _gauge("leased_deliveries", "Deliveries that relays held at their last sign of life.", found.leased)
        yield _gauge("processes", "Relay processes, of all hosts, that gave a sign of life.", found.relays)
        yield _gauge("sending_paused", "Whether all sending is paused.", int(found.sending_paused))
        states = GaugeMetricFamily("outbox_relay_subscriptions", "Subscriptions by state.", labels=["state"])
        for state, count in found.subscriptions.items():
            states.add_metric([state], count)
        yield states


def _gauge(name: str, meaning: str, value: float) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"outbox_relay_{name}", meaning, value=value)


def make_registry(read: Callable[[], Reading], restarts: Callable[[], int], directory: str | None = None) -> Any:
    """Return the registry that is scraped; with a `directory`, what the processes that count there have counted."""
    from prometheus_client import CollectorRegistry, multiprocess

    registry = CollectorRegistry()
    if directory is not None:
        multiprocess.MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    registry.register(_Collector(read, restarts))
    return registry


def own_registry() -> Any:
    """Return the registry that a process counts in; None where the variable of DIRECTORY makes it count in files."""
    from prometheus_client import CollectorRegistry

    return None if os.environ.get(DIRECTORY) else CollectorRegistry()


def render(*registries: Any) -> bytes:
    """Return the text of these registries."""
    from prometheus_client import generate_latest

    return b"".join(generate_latest(registry) for registry in registries)
