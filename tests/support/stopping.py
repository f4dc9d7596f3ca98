"""A relay that stops at a point of its work, and what must go on meanwhile: every row of the matrix of stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import psutil

from tests.support.application import Application
from tests.support.bulk import show
from tests.support.constants import SHORT_LEASES, SHORT_STOP
from tests.support.crashing import ROUND
from tests.support.processes import RelayProcess
from tests.support.provocations import (
    BACKLOG_SEQ,
    litter,
    prepare,
    start_backfill,
    start_towards,
    subscribe_to_everything,
)
from tests.support.waiting import wait_until

__all__ = ["BOUND_SECONDS", "hold_nobody", "received_twice"]

BOUND_SECONDS = 15  # SHORT_STOP's four, a look at who has stopped, and a busy machine
REACH_SECONDS = 30
WITNESS = "/witness"
_DONE = "select count(*) from outbox.rounds where name = :name and succeeded_at > to_timestamp(:since)"
_NOW = "select extract(epoch from clock_timestamp())::float8"


def hold_nobody(app: Application, step: str, number: int, cut: Callable[[], None] = lambda: None) -> bool:
    """Stop a relay where this step waits for the database for the n-th time; see that nobody else waits for it.

    `cut` is called when it has stopped. Others must deliver, after a failure too, what is recorded then, within
    BOUND_SECONDS; do the round of housekeeping where it stopped in one; and finish what it had begun.

    Returns:
        False where the step does not wait so often.
    """
    app.stage.constants = {**SHORT_STOP, **SHORT_LEASES}
    app.timeout_seconds = 1
    trap = f"stop:{step}:inside:{number}"
    app.subscribe(WITNESS, "late.event", schedule_seconds=(0,) * 9)
    app.receiver.plan(WITNESS, "500", "200")
    finish = _stop_in_round if step.startswith(ROUND) else _stop_in_bulk if "_bulk" in step else _stop_in_step
    ended = finish(app, step, trap)
    if ended is None:
        return False
    cut()
    late = set(app.record(3, "late.event"))
    app.stage.running_relay()
    wait_until(lambda: late <= received_twice(app, WITNESS), timeout_seconds=BOUND_SECONDS, message=f"{trap}: held up")
    ended()
    return True


def received_twice(app: Application, path: str) -> set[str]:
    """The events that were refused and tried again: fanned out, settled and claimed."""
    counts = Counter(entry["id"] for entry in app.receiver.received(path))
    return {event for event, count in counts.items() if count > 1}


def is_stopped(relay: RelayProcess) -> bool:
    """Tell whether its trap has stopped it."""
    return relay.alive and psutil.Process(relay.pid).status() == psutil.STATUS_STOPPED


def _until_caught(relay: RelayProcess) -> None:
    wait_until(lambda: is_stopped(relay) or not relay.alive, timeout_seconds=REACH_SECONDS, message=relay.text)


def _stop_in_step(app: Application, step: str, trap: str) -> Callable[[], None] | None:
    subscribe_to_everything(app)
    prepare(app, step)
    relay = start_towards(app, step, trap, _until_caught)

    def ended() -> None:
        app.wait_settled(60)
        app.assert_all_accounted()

    return ended if is_stopped(relay) else None


def _stop_in_bulk(app: Application, step: str, trap: str) -> Callable[[], None] | None:
    operation, _ = start_backfill(app, step)
    relay = app.stage.relay("--until-drained", trap=trap)
    _until_caught(relay)
    app.rows("delete from outbox.deliveries where event_seq = :seq", seq=BACKLOG_SEQ)
    if not is_stopped(relay):
        return None
    return lambda: wait_until(lambda: show(app, operation).state == "done", timeout_seconds=60)


def _stop_in_round(app: Application, step: str, trap: str) -> Callable[[], None] | None:
    name = step.removeprefix(ROUND)
    litter(app)
    relay = app.stage.relay(trap=trap)
    wait_until(
        lambda: is_stopped(relay) or not relay.alive or app.one(_DONE, name=name, since=0.0),
        timeout_seconds=REACH_SECONDS,
        message=relay.text,
    )
    assert relay.alive, relay.text
    if not is_stopped(relay):
        return None
    since = app.one(_NOW)
    return lambda: wait_until(
        lambda: app.one(_DONE, name=name, since=since), timeout_seconds=BOUND_SECONDS, message=f"{trap}: not done"
    )
