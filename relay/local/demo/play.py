"""The demo itself: a shop, a receiver and a relay as child processes, one kill, and a result at the end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.local.children import ChildError, LogReader
from relay.local.demo.figures import Backlog, Observer
from relay.local.demo.result import DemoResult, Kill, judge_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from relay.local.children import Child
    from relay.local.demo.display import Display
    from relay.local.demo.stage import Stage

__all__ = ["Play", "Settings"]

IN_FLIGHT_AT_KILL = 10
"""The relay is killed while at least so many requests wait for their answer."""

_KILL_AFTER = 0.4  # of the orders
_HOLD = 0.4  # of the timeout: what the receiver holds is still answered in time
_POLL_SECONDS = 0.02
_COUNT_SECONDS = 0.2
_SHOW_SECONDS = 0.1
_START_SECONDS = 30
_HOPE_SECONDS = 5
_CATCH_UP_SECONDS = 1.0
_STALL_SECONDS = 15  # beyond the longest delay of the schedule


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run can be told."""

    orders: int
    per_second: float
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    lose_one: bool


class Play:
    """One run on a stage, shown on a display."""

    def __init__(self, settings: Settings, stage: Stage, display: Display) -> None:
        self._observer = Observer(settings.orders)
        self._settings = settings
        self._stage = stage
        self._display = display
        self._backlog = Backlog()
        self._kills: list[Kill] = []
        self._absence = (0.0, 0.0)
        self._counted_at = self._shown_at = 0.0
        self._running: dict[str, Child] = {}
        self._logs: dict[str, LogReader] = {}

    def run(self) -> DemoResult:
        """Run to the end and judge the run by the two logs. Raises ChildError when a process fails."""
        with ExitStack() as files:
            self._start_receiver(files)
            self._start_relay()
            self._start_shop(files)
            self._watch(self._time_to_kill)
            killed_at = time.time()
            self._kill_relay()
            self._start_relay()
            self._absence = (killed_at, time.time() + _CATCH_UP_SECONDS)
            self._watch(self._running["shop"].ended_well)
            self._display.say("the shop has closed; waiting for what is still on its way")
            self._watch_to_the_end()
        if code := self._running["relay"].stop():
            self._display.say(f"the relay left with exit code {code}")
        self._running["receiver"].stop()
        shop_log, receiver_log = (_lines(self._running[name].output) for name in ("shop", "receiver"))
        return judge_run(shop_log, receiver_log, self._kills)

    def latencies(self) -> tuple[list[float], list[float]]:
        """Return milliseconds from commit to first arrival: undisturbed, and while the relay was away or caught up."""
        peace: list[float] = []
        away: list[float] = []
        for latency in self._observer.latencies.values():
            (away if latency.overlaps(*self._absence) else peace).append(latency.milliseconds)
        return peace, away

    def _start_receiver(self, files: ExitStack) -> None:
        settings = self._settings
        receiver = self._running["receiver"] = self._stage.start_receiver(settings.timeout_seconds)
        self._logs["receiver"] = files.enter_context(LogReader(receiver.output))
        self._await("receiver", lambda: self._observer.receiver.port > 0)
        subscription = self._stage.subscribe(
            self._observer.receiver.port, settings.timeout_seconds, settings.schedule_seconds
        )
        delays = ", ".join(map(str, subscription.schedule_seconds)) or "none"
        self._display.say(f"receiver: timeout {subscription.timeout_seconds} s, retries after {delays} s")

    def _start_relay(self) -> None:
        relay = self._running["relay"] = self._stage.start_relay()
        self._await("relay", lambda: relay.said("running"))
        self._display.say(f"relay runs, process {relay.pid}")

    def _start_shop(self, files: ExitStack) -> None:
        shop = self._running["shop"] = self._stage.start_shop(self._settings.orders, self._settings.per_second)
        self._logs["shop"] = files.enter_context(LogReader(shop.output))

    def _time_to_kill(self) -> bool:
        shop = self._observer.shop
        placed = len(shop.committed) + len(shop.rolled_back)
        return placed >= _KILL_AFTER * self._settings.orders or self._running["shop"].ended_well()

    def _kill_relay(self) -> None:
        relay, receiver = self._running.pop("relay"), self._running["receiver"]
        receiver.tell("hold")
        self._watch(self._enough_in_flight, _HOLD * self._settings.timeout_seconds)
        relay.must_run()
        count, killed_at = len(self._observer.receiver.open), time.monotonic()
        relay.kill()
        receiver.tell("release")
        leased, seconds = self._stage.leases()
        self._display.alarm(f"SIGKILL to the relay with {count} requests in flight")
        self._display.say(f"its {leased} leases (timeout and a margin) end in {seconds} s; then these come again")
        if self._settings.lose_one:
            self._lose_one()
        self._kills.append(Kill(killed_at, next_start=time.monotonic()))

    def _enough_in_flight(self) -> bool:
        """Whether enough requests are held that would be answered well, but for the kill."""
        log = self._observer.receiver
        return sum(log.requests[number].plan == "ok" for number in log.open) >= IN_FLIGHT_AT_KILL

    def _lose_one(self) -> None:
        if not self._watch(self._stage.lose_one, _HOPE_SECONDS):
            raise ChildError("--break: no committed event was waiting for a relay; give more --events")
        self._display.alarm(f"--break: made the database forget {self._stage.lost}")

    def _watch_to_the_end(self) -> None:
        """Watch until nothing is left to deliver, or nothing has moved for longer than any retry would take."""
        patience = _STALL_SECONDS + max(self._settings.schedule_seconds, default=0) + self._settings.timeout_seconds
        seen, self._counted_at = -1, 0.0
        while seen < (seen := len(self._observer.receiver.requests)):
            if self._watch(self._delivered, patience):
                return
        self._display.say(f"nothing has come for {patience} s, although something is left: no longer waited for")

    def _delivered(self) -> bool:
        return self._backlog.empty and not self._observer.receiver.open

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        if not self._watch(ready, _START_SECONDS):
            raise ChildError(f"the {name} did not start in {_START_SECONDS} s")

    def _watch(self, reached: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Observe the run until `reached`, or for so many seconds; return whether it was."""
        give_up_at = time.monotonic() + seconds
        while True:
            self._observe()
            if reached():
                return True
            if time.monotonic() > give_up_at:
                return False
            time.sleep(_POLL_SECONDS)

    def _observe(self) -> None:
        self._observer.read(self._logs.get("shop", ()), self._logs.get("receiver", ()))
        for name in ("receiver", "relay"):
            if name in self._running:
                self._running[name].must_run()
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            self._counted_at, self._backlog = now, self._stage.backlog()
        if now - self._shown_at >= _SHOW_SECONDS:
            self._shown_at = now
            self._display.show(self._observer.figures(self._backlog))


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines()
