"""The demo's receiver writes a request down before it answers, and refuses what does not verify."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from outbox.signing.verify import new_secret, signed_headers
from relay.local.children import Child
from relay.local.demo.receiver import Receiver
from relay.local.demo.result import ReceiverLog
from tests.support.waiting import wait_until

SECRET = new_secret()
BODY = b"{}"


class Receiving:
    """A receiver process, and what its log says so far."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._client = httpx.Client(verify=False)
        wait_until(lambda: self.log.port)
        self.url = f"http://127.0.0.1:{self.log.port}/"

    @property
    def log(self) -> ReceiverLog:
        log = ReceiverLog()
        for line in self.child.output.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                log.read(line)
        return log

    def close(self) -> None:
        self._client.close()

    def post(self, event_id: str, secret: str = SECRET) -> int:
        headers = signed_headers(secret, event_id, BODY)
        return self._client.post(self.url, content=BODY, headers=headers, timeout=20).status_code


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiving]:
    program = ["-m", "relay.local.demo.receiver", "0.5", "1"]
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET}
    with Child("receiver", program, tmp_path / "receiver.log", environment) as child:
        receiving = Receiving(child)
        yield receiving
        receiving.close()


def test_a_request_is_in_the_log_before_it_is_answered(receiver: Receiving) -> None:
    receiver.child.tell("hold")
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(receiver.post, f"evt_{number}") for number in range(4)]
        wait_until(lambda: len(receiver.log.open) == 4)
        assert not any(answer.done() for answer in answers)
        receiver.child.tell("release")
        assert [answer.result() for answer in answers] == [200] * 4
    assert receiver.log.open == set()
    assert {request.event_id for request in receiver.log.requests.values()} == {f"evt_{n}" for n in range(4)}


def test_a_forged_request_is_refused_and_written_down_as_such(receiver: Receiving) -> None:
    assert receiver.post("evt_1", new_secret()) == 401
    assert receiver.log.requests == {}
    assert len(receiver.log.refused) == 1


def test_it_misbehaves_towards_a_few_events_and_lets_each_through_in_the_end() -> None:
    receiver = Receiver(SECRET, timeout_seconds=2, seed=1)
    plans = [[receiver.plan_for("/", f"evt_{number}") for _ in range(3)] for number in range(3000)]
    assert all(plan[2] == "ok" for plan in plans)
    assert {way for plan in plans for way in plan} == {"ok", "error", "cut", "late"}
    assert 0.04 < sum(plan[0] != "ok" for plan in plans) / len(plans) < 0.08
    again = Receiver(SECRET, timeout_seconds=2, seed=1)
    assert plans == [[again.plan_for("/", f"evt_{number}") for _ in range(3)] for number in range(3000)]


def test_it_ends_with_its_input(receiver: Receiving) -> None:
    process = receiver.child._process  # noqa: SLF001 - the pipe is nobody else's
    process.stdin.close()  # type: ignore[union-attr] # as if its parent had died
    assert process.wait(20) == 0  # by itself, nobody stops it
