"""A process that stood still while a request was under way: what came meanwhile counts, and nobody else is blamed.

The loop is held by a sleep that is not its own, as SIGSTOP holds it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from relay.http import Endpoint, HttpSender, Outcome
from tests.support.far_end import HANG, FarEnd, answering
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

TIMEOUT_SECONDS = 0.6  # what a busy machine needs until the request is there and the loop is held


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.http.conclusion.STILL_SECONDS", 0.3)


@pytest.fixture
def far_end() -> Iterator[FarEnd]:
    with answering() as far_end:
        yield far_end


def stand_still(seconds: float = TIMEOUT_SECONDS + 0.4) -> None:
    time.sleep(seconds)


def send(sender: HttpSender, url: str) -> asyncio.Task[Outcome]:
    return asyncio.ensure_future(_awaited(sender.send(Endpoint.of(url), b"webhook-id: 1\r\n", b"{}", TIMEOUT_SECONDS)))


async def _awaited(outcome: Awaitable[Outcome]) -> Outcome:
    return await outcome


async def test_a_request_without_an_answer_is_no_timeout_of_the_endpoint(sender: HttpSender, far_end: FarEnd) -> None:
    far_end.will("hook", HANG)
    sent = send(sender, far_end.url("hook"))
    await await_until(lambda: far_end.received["hook"])
    stand_still()
    outcome = await sent
    assert (outcome.kind, outcome.sent) == ("stood_still", True)
    assert "no complete answer in time; but this relay itself stood still" in (outcome.error or "")


async def test_a_name_that_was_not_resolved_meanwhile_is_not_the_resolvers_fault(
    make_sender: Callable[..., HttpSender],
) -> None:
    async def resolve(_: str) -> list[str]:
        asked.set()
        await asyncio.sleep(3600)
        return []

    asked = asyncio.Event()
    sent = send(make_sender(resolve=resolve), "http://hooks.example.com/")
    await asked.wait()
    stand_still()
    outcome = await sent
    assert (outcome.kind, outcome.sent) == ("stood_still", False)


async def test_a_timer_that_is_a_little_late_is_an_ordinary_timeout(sender: HttpSender, far_end: FarEnd) -> None:
    far_end.will("hook", HANG)
    sent = send(sender, far_end.url("hook"))
    await await_until(lambda: far_end.received["hook"])
    stand_still(TIMEOUT_SECONDS)
    assert (await sent).kind == "timeout"


@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_that_waits_to_be_read_wins_over_the_timer(
    sender: HttpSender, far_end: FarEnd, status: int, kept: bool
) -> None:
    def answer() -> int:
        begun.wait()
        return status

    begun = threading.Event()
    url = far_end.url("hook")
    if kept:
        assert (await send(sender, url)).kind == "delivered"
    far_end.will("hook", answer)
    sent = send(sender, url)
    await await_until(lambda: len(far_end.received["hook"]) == 1 + kept)
    begun.set()
    stand_still()
    assert (await sent).status == status


async def test_an_answer_in_drips_has_one_moment_more_and_no_second_one(sender: HttpSender) -> None:
    """Who sends a byte again and again has the head of its answer never whole, and something to be read always."""
    stop = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not stop.wait(0.001):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread: Any = threading.Thread(target=drip, args=(listening,))
        thread.start()
        try:
            outcome = await asyncio.wait_for(send(sender, f"http://127.0.0.1:{listening.getsockname()[1]}/"), 10)
        finally:
            stop.set()
            thread.join()
    assert outcome.kind == "timeout", outcome
