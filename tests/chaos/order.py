"""Order under fire: three writers that serialise on their keys, two relays, a kill -9 every second, then a check.

Of each key, what the receiver acknowledged for the first time has to be in the order of the commits, one at a time.
"""

from __future__ import annotations

import argparse
import time

from tests.chaos.kills import KILL_EVERY_SECONDS, kill_and_replace
from tests.chaos.scene import Scene, conclude, scene
from tests.support.order import Order
from tests.support.processes import WriterProcess, read_log

KEYS = 2_000
WRITERS = 3


def run(options: argparse.Namespace) -> int:
    """Run the hunt; return 0 when the promise held."""
    with scene(options, ordered=True) as play:
        began, kills = time.monotonic(), 0
        relays = [play.app.stage.running_relay() for _ in range(2)]
        writers = play.start_keyed_writers(WRITERS, KEYS)
        while any(writer.alive for writer in writers):
            play.seconds_left  # noqa: B018 - raises when the time is over
            relays[kills % 2].wait_running()
            time.sleep(KILL_EVERY_SECONDS)
            kill_and_replace(play, relays, kills % 2)
            kills += 1
        for writer in writers:
            writer.finish()
        for relay in relays:
            relay.kill()
        busy = time.monotonic() - began
        under_fire = sum(entry["what"] == "answered" for entry in read_log(play.app.receiver.log))
        code = play.app.stage.relay("--until-drained").wait(play.seconds_left)
        order = _order(play, writers)
        facts = {
            "kills of a relay": kills + 2,
            "keys": len(order.acknowledged),
            "most events of a key": max(order.acknowledged.values(), default=0),
            "acknowledged again": order.repeats,
            "acknowledged under fire": under_fire,
            "seconds under fire": round(busy),
            "seconds to drain what was left": round(time.monotonic() - began - busy),
        }
        print("\n".join(order.broken[:20]))
        broken = {
            "the last relay did not drain": code != 0,
            "most were sent after the fire: give fewer a second": under_fire < options.events / 2,
            "no kill met a request": not order.repeats,
            f"the order was broken {len(order.broken)} times": bool(order.broken),
            f"{order.missing} events were not acknowledged in their turn": bool(order.missing),
        }
        return conclude(play, writers, facts, broken)


def _order(play: Scene, writers: list[WriterProcess]) -> Order:
    for writer in writers:
        play.app.take_over(writer)
    written = [entry for writer in writers for entry in read_log(writer.log)]
    return Order.of(written, play.app.committed, read_log(play.app.receiver.log), "/hook")
