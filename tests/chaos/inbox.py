"""From PostgreSQL to PostgreSQL: kill -9 of relays and of the receiving application, each event acted upon once."""

from __future__ import annotations

import argparse
import time

from tests.chaos.kills import kill_and_replace
from tests.chaos.scene import SCHEDULE, Scene, scene
from tests.support.receiving_side import ReceivingSide, receiving_side

KILL_EVERY_SECONDS = 2.0
DRAINING_RELAYS = 4  # what a killed relay had under way is claimed alone afterwards, one by one in each relay


def run(options: argparse.Namespace) -> int:
    """Run the hunt; return 0 when each event was acted upon exactly once."""
    with scene(options) as play, receiving_side(play.app.stage.directory, play.server.url()) as side:
        play.app.rows("delete from outbox.secrets")
        play.app.rows("delete from outbox.subscriptions")
        play.app.switch_breakers_off()
        side.subscribe(play.app, timeout_seconds=1, schedule_seconds=SCHEDULE)
        relays = [play.app.stage.running_relay() for _ in range(2)]
        began, writer = time.monotonic(), play.start_writer()
        kills = crashes = 0
        while writer.alive:
            play.seconds_left  # noqa: B018 - raises when the time is over
            if not side.alive:
                side.start(crash_after=max(20, options.events // 30))
                crashes += 1
            time.sleep(KILL_EVERY_SECONDS)
            kill_and_replace(play, relays, kills % 2)
            kills += 1
            if kills % 5 == 0:
                side.end()
        writer.finish()
        for relay in relays:
            relay.kill()
        side.end()
        side.start()
        drains = [play.app.stage.relay("--until-drained") for _ in range(DRAINING_RELAYS)]
        drained = all(drain.wait(play.seconds_left) == 0 for drain in drains)
        play.app.take_over(writer)
        facts = {
            "kills of a relay": kills + 2,
            "kills of the receiver": crashes,
            "seconds": round(time.monotonic() - began),
        }
        return _conclude(play, side, facts, drained=drained)


def _conclude(play: Scene, side: ReceivingSide, facts: dict[str, int], *, drained: bool) -> int:
    broken = side.broken(play.app.committed)
    dead = len(play.app.rows("select from outbox.dead_letters"))
    named = {"seed": play.options.seed, **facts, "events committed": len(play.app.committed), "dead letters": dead}
    for name, value in {**named, **{f"received: {name}": count for name, count in side.outcomes().items()}}.items():
        print(f"{name:48}{value!s:>10}")
    held = not broken and not dead and drained and len(play.app.committed) > 0
    print("verdict: " + ("each event was acted upon exactly once" if held else f"broken: {broken}, drained: {drained}"))
    return 0 if held else 1
