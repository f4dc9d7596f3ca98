"""The process for what is large ends with the relay, however that ends, and harms nothing else by what it is asked."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

import outbox
from relay.message.evaluator_process.frames import read_frame, write_frame
from tests.support.application import Application
from tests.support.waiting import wait_until

REQUEST = b"anything"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _record_large(app: Application) -> None:
    with app.engine.begin() as connection:
        outbox.record(connection, "order.placed", {"items": [1.5] * 20_000})


def _process_that(answers: str, deadline_seconds: float) -> subprocess.Popen[bytes]:
    """Start the process with another function, `lambda request: …`, in place of what answers."""
    program = (
        "import time\nfrom relay.message.evaluator_process import __main__ as process\n"
        f"process.DEADLINE_SECONDS = {deadline_seconds}\nprocess.answer = {answers}\nprocess.main()"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_large_transformation_arrives_and_its_process_ends_when_the_relay_is_killed(app: Application) -> None:
    app.subscribe(transformation="{n: length(data.items)}")
    relay = app.stage.running_relay()
    _record_large(app)
    (received,) = app.receiver.wait_for(1)
    assert received["path"] == "/hook"
    (process,) = relay.children()
    process.send_signal(signal.SIGTERM)  # as a service manager sends it to all at once: the relay drains, and needs it
    process.send_signal(signal.SIGINT)
    _record_large(app)
    app.receiver.wait_for(2)
    assert [child.pid for child in relay.children()] == [process.pid]
    relay.kill()
    wait_until(lambda: not _is_alive(process))


def test_it_ends_with_a_relay_that_stops(app: Application) -> None:
    app.subscribe(transformation="{n: length(data.items)}")
    relay = app.stage.running_relay()
    _record_large(app)
    app.receiver.wait_for(1)
    (process,) = relay.children()
    assert relay.stop() == 0
    wait_until(lambda: not _is_alive(process))


def test_one_that_is_stuck_ends_by_itself_where_nobody_is_left_to_kill_it() -> None:
    process = _process_that("lambda _: time.sleep(1e6)", 0.1)
    assert process.stdin is not None
    write_frame(process.stdin, REQUEST)
    assert process.wait(30) == -signal.SIGALRM
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="not every system limits the address space")
def test_it_gets_no_more_memory_than_it_may_have() -> None:
    process = _process_that("lambda _: b'%d' % len(bytearray(600 << 20))", 60)
    assert process.stdin is not None
    assert process.stdout is not None
    write_frame(process.stdin, REQUEST)
    assert read_frame(process.stdout) is None
    assert process.wait(30) == 1
    process.communicate()
