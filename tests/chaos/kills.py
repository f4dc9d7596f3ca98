"""Two relays, a kill -9 every second, three crashes of PostgreSQL: nothing lost or unexpected, repeats explained."""

from __future__ import annotations

import argparse
import os
import signal
import time

from tests.chaos.scene import Scene, conclude, scene
from tests.support.incidents import note
from tests.support.processes import RelayProcess

KILL_EVERY_SECONDS = 1.0
DATABASE_FAULTS = 3


def run(options: argparse.Namespace) -> int:
    """Run the hunt; return 0 when the promise held."""
    with scene(options) as play:
        began = time.monotonic()
        relays = [play.app.stage.running_relay() for _ in range(2)]
        writer = play.start_writer()
        kills = faults = 0
        while writer.alive:
            play.seconds_left  # noqa: B018 - raises when the time is over
            time.sleep(KILL_EVERY_SECONDS)
            kill_and_replace(play, relays, kills % 2)
            kills += 1
            if faults < DATABASE_FAULTS and writer.committed() >= options.events * (faults + 1) / (DATABASE_FAULTS + 1):
                _crash_database(play, faults)
                faults += 1
        writer.finish()
        for relay in relays:
            relay.kill()
        busy = time.monotonic() - began
        drain = play.app.stage.relay("--until-drained")
        code = drain.wait(play.seconds_left)
        facts = {
            "kills of a relay": kills + 2,
            "crashes of PostgreSQL": faults,
            "seconds under fire": round(busy),
            "seconds to drain what was left": round(time.monotonic() - began - busy),
        }
        return conclude(
            play, [writer], facts, {"the last relay did not drain": code != 0, "too few faults": faults < 3}
        )


def kill_and_replace(play: Scene, relays: list[RelayProcess], number: int) -> None:
    """Kill this relay with SIGKILL and start another."""
    relays[number].kill()
    play.app.stage.started.remove(relays[number])
    relays[number] = play.app.stage.relay()


def _crash_database(play: Scene, number: int) -> None:
    """SIGKILL of the postmaster, or an immediate stop, in turn; then recovery."""
    note(play.app.stage.incidents, "database away")
    if number % 2:
        os.kill(play.server.pid, signal.SIGQUIT)
    play.server.kill()
    play.server.start()
    note(play.app.stage.incidents, "database back")
