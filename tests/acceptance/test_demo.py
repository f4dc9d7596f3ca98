"""`relay demo` as a newcomer runs it: it proves the promise, notices when it is broken, and cleans up."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Process
from tests.support.waiting import wait_until

RUN_SECONDS = 120
Run = Callable[..., Process]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts `relay` with arguments; what a test leaves running is ended."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(["-m", "relay", *arguments], tmp_path / f"{len(started)}.txt"))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.mark.slow
def test_the_demo_loses_nothing_although_its_relay_is_killed(run: Run) -> None:
    demo = run("demo", "--events", "300")
    assert demo.wait(RUN_SECONDS) == 0, demo.text
    assert "270 committed, 270 received" in demo.text
    assert "30 rolled back, 0 received" in demo.text
    killed = re.search(r"SIGKILL to the relay with (\d+) requests in flight", demo.text)
    assert killed
    assert int(killed[1]) >= 10
    assert "in flight at the kill" in " ".join(demo.text.split())
    assert "Nothing lost, nothing invented, in " in demo.text
    assert max(map(len, demo.text.splitlines())) <= 80


@pytest.mark.slow
def test_an_event_lost_on_purpose_is_named_and_fails_the_demo(run: Run) -> None:
    demo = run("demo", "--events", "300", "--break")
    assert demo.wait(RUN_SECONDS) == 1, demo.text
    lost = re.search(r"--break: made the database forget (evt_\w+)", demo.text)
    assert lost, demo.text
    assert f"{lost[1]} never arrived" in demo.text
    assert "270 committed, 269 received" in demo.text
    assert demo.text.count("FAILED") == 1
    assert "NOT as promised" in demo.text


@pytest.mark.slow
def test_an_interrupted_demo_leaves_no_process_and_no_directory(run: Run) -> None:
    demo = run("demo", "--events", "300")
    wait_until(lambda: "relay runs" in demo.text, timeout_seconds=RUN_SECONDS)
    children = demo.children()
    directory = next(Path(one) for child in children for one in child.cmdline() if one.endswith("/data")).parent
    assert len(children) >= 4
    demo.signal(signal.SIGTERM)
    assert demo.wait(RUN_SECONDS) == 1
    assert demo.text.endswith("relay: stopped before it was done\n")
    wait_until(lambda: not any(psutil.pid_exists(child.pid) for child in children))
    assert not directory.exists()
