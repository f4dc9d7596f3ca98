"""A new subscription is filled with the past by two relays, kill -9 every two seconds: each delivery is made once."""

from __future__ import annotations

import argparse
import time

from relay.operations.bulk import operations
from relay.operations.bulk.request import BulkRequest
from tests.chaos.kills import kill_and_replace
from tests.chaos.scene import Scene, scene

KILL_EVERY_SECONDS = 2.0  # a relay needs one to start
_RECORD = "insert into outbox.events (type, payload) select 'order.placed', '{}' from generate_series(1, :n)"
_MADE = """
select count(*), count(distinct event_seq) from (
    select event_seq, delivery_id from outbox.attempts where subscription_id = outbox.uuid_of(:subscription)
    union select event_seq, id from outbox.deliveries where subscription_id = outbox.uuid_of(:subscription)) made
"""


def run(options: argparse.Namespace) -> int:
    """Run the hunt; return 0 when each event has exactly one delivery."""
    with scene(options) as play:
        play.app.rows(_RECORD, n=options.events)
        play.app.rows("truncate outbox.pending")
        (subscription,) = play.app.paths
        operation, began, kills = _start(play, subscription), time.monotonic(), 0
        relays = [play.app.stage.running_relay() for _ in range(2)]
        while _show(play, operation).state == "running":
            play.seconds_left  # noqa: B018 - raises when the time is over
            time.sleep(KILL_EVERY_SECONDS)
            kill_and_replace(play, relays, kills % 2)
            kills += 1
        seconds = time.monotonic() - began
        for relay in relays:
            relay.kill()
        ended = _show(play, operation)
        ((made, events),) = play.app.rows(_MADE, subscription=subscription)
        facts = {"seed": options.seed, "kills of a relay": kills + 2, "seconds": round(seconds), "put back": ended.done,
                 "deliveries": made, "events with one": events}  # fmt: skip
        for name, value in facts.items():
            print(f"{name:48}{value!s:>10}")
        held = ended.state == "done" and ended.done == made == events == options.events
        print(
            "verdict: " + ("each was put back exactly once" if held else f"broken: {ended.state}, {ended.last_error}")
        )
        return 0 if held else 1


def _start(play: Scene, subscription: str) -> str:
    with play.app.engine.begin() as connection:
        rate = round(play.options.per_second * 10)
        made = operations.add_bulk(connection, None, BulkRequest(kind="backfill", subscription=subscription), rate=rate)
        return str(operations.start_bulk(connection, None, made.id).id)


def _show(play: Scene, operation: str) -> operations.BulkOperation:
    with play.app.engine.begin() as connection:
        return operations.show_bulk(connection, None, operation)
