"""Two relays, twenty rolling restarts by SIGTERM under load: no repeats, and no attempt charged without a request."""

from __future__ import annotations

import argparse
import random
import time

from tests.chaos.scene import conclude, scene
from tests.support.processes import RelayProcess

RESTARTS = 20


def run(options: argparse.Namespace) -> int:
    """Run the hunt; return 0 when the promise held."""
    dice = random.Random(options.seed)
    with scene(options) as play:
        app = play.app
        relays: list[RelayProcess] = [app.stage.running_relay() for _ in range(2)]
        writer = play.start_writer()
        codes = []
        for restart in range(RESTARTS):
            time.sleep(dice.uniform(0.2, 1.5))
            codes.append(relays[restart % 2].stop(play.seconds_left))
            relays[restart % 2] = app.stage.running_relay()
        under_load = writer.alive
        writer.finish(play.seconds_left)
        app.wait_settled(play.seconds_left)
        codes += [relay.stop(play.seconds_left) for relay in relays]
        attempts, charged = app.rows("select count(*), max(number) from outbox.attempts")[0]
        requests = len(app.receiver.received())
        facts = {"restarts": RESTARTS, "requests": requests, "attempts": attempts, "highest attempt number": charged}
        broken = {
            "a relay did not leave with 0": any(codes),
            "attempts and requests differ": attempts != requests,
            "an attempt was charged without a request": charged != 1,
            "something came twice": requests != len({entry["id"] for entry in app.receiver.received()}),
            "the load ended before the restarts: give more events": not under_load,
        }
        return conclude(play, [writer], facts, broken)
