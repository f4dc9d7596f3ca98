"""Bodies for which data are parsed: of large data the evaluator makes them, the same, and without any secret."""

from __future__ import annotations

import json
import os
import signal
from typing import Any
from uuid import UUID

import pytest

from benchmarks.hostile import filled
from relay.message.evaluator_process.answering import answer
from relay.message.evaluator_process.evaluator import LARGE_BYTES
from relay.message.evaluator_process.requests import content_of, format_request
from relay.message.formats import Formatter
from relay.model.event import EventParts
from tests.integration.engine.test_evaluator import start, stopped
from tests.integration.engine.world import FarEnd, World, stepping
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.case("B14")]

LARGE = f"""{{"job":{{"name":"?&<nightly>","n":1.50}},"x":{filled(b"1.50", LARGE_BYTES).decode()}}}"""
KEY = "0123456789abcdef-0123456789abcde"
PARSING: list[tuple[str, dict[str, Any], str]] = [
    ("zapier", {}, ""),
    ("slack", {}, ""),
    ("slack", {"text": "{data.job.name} {data.x}"}, ""),
    ("discord", {"text": "{data} {data.job}", "username": "us"}, ""),
    ("teams", {"text": "{data.job}"}, ""),
    ("pagerduty", {"summary": "{data.job.name} failed", "severity": "info"}, KEY),
    ("pagerduty", {"summary": "{data.job.name} failed"}, 'with "quotes" and é'),
]
UNPARSED: list[tuple[str, dict[str, Any], str]] = [
    *((name, {}, "") for name in ("raw", "thin", "n8n", "cloudevents", "notely", "leads")),
    ("slack", {"text": "{type} {key}"}, ""),
    ("pagerduty", {}, KEY),
    ("pagerduty", {"summary": "{type}"}, KEY),
]


def event(payload: str) -> EventParts:
    return EventParts(b"evt_01jd3v0000e008000000000000", b"job.failed", "acme", "k-1", 123_456_789, payload.encode())


def formatted(world: World, name: str, path: str = "/changed") -> bytes:
    one = world.subscribe("a.b", path=path)
    world.rows("update outbox.subscriptions set format = %s where id = %s", name, UUID(bytes=one))
    return one


@pytest.mark.parametrize(("name", "settings", "secret"), PARSING)
def test_the_process_makes_the_same_body_and_is_told_no_secret(name: str, settings: Any, secret: str) -> None:
    formatter, told = Formatter(name, settings, secret), event(LARGE)
    assert formatter.parses_up_to >= len(told.payload)
    request = format_request(formatter, told)
    if secret:
        assert secret.encode() not in request
    _, content = content_of(answer(request))
    formatter.keep(told, content)
    assert formatter.body_of(told) == Formatter(name, settings, secret).body_of(event(LARGE))


@pytest.mark.parametrize(("name", "settings", "secret"), UNPARSED)
def test_what_is_put_in_as_it_is_needs_no_process(name: str, settings: Any, secret: str) -> None:
    assert Formatter(name, settings, secret).parses_up_to == 0


async def test_small_ones_need_no_process_and_large_ones_come_out_the_same(world: World, far_end: FarEnd) -> None:
    formatted(world, "zapier")
    async with stepping(world.url, far_end) as relay:
        world.record(payload='{"a":{"b":1.50}}')
        await relay.look()
        await relay.settled()
        assert relay.engine.evaluator.pid is None
        pid = await start(relay.engine.evaluator)
        world.record(payload=LARGE)
        await relay.look()
        await relay.settled()
        assert relay.engine.evaluator.pid == pid
    small, large = (json.loads(body, parse_float=str) for _, _, body in far_end.requests)
    assert small["data__a__b"] == "1.50"
    assert (large["data__job__n"], large["data__job__name"]) == ("1.50", "?&<nightly>")
    assert large["data__x"] == ["1.50"] * len(large["data__x"])
    assert world.count("attempts", "verdict = 'delivered'") == 2


async def test_others_are_sent_while_a_large_body_is_made(world: World, far_end: FarEnd) -> None:
    formatted(world, "zapier")
    async with stepping(world.url, far_end) as relay, stopped(relay) as pid:
        world.subscribe("other", path="/other")
        world.record(payload=LARGE)
        world.record("other")
        await relay.look()
        await await_until(lambda: "/other" in far_end.paths())
        assert "/changed" not in far_end.paths()
        os.kill(pid, signal.SIGCONT)
        await relay.settled()
    assert far_end.paths() == ["/other", "/changed"]


@pytest.mark.parametrize("size", [10, LARGE_BYTES])
async def test_an_event_that_has_no_body_is_a_dead_letter_that_says_why(
    world: World, far_end: FarEnd, size: int
) -> None:
    formatted(world, "zapier")
    world.record(payload='{"a__b":1,"a":{"b":2},"x":"%s"}' % ("x" * size))
    async with stepping(world.url, far_end) as relay:
        if size == LARGE_BYTES:
            await start(relay.engine.evaluator)
        await relay.look()
        await relay.settled()
    assert far_end.requests == []
    ((reason, error),) = world.rows(
        "select reason, a.error from outbox.dead_letters join outbox.attempts a using (delivery_id)"
    )
    assert reason == "unformatted"
    assert error.startswith("data: two members are one when flattened")


async def test_a_transformation_that_makes_it_small_is_made_there_and_its_body_here(
    world: World, far_end: FarEnd
) -> None:
    one = formatted(world, "zapier")
    world.rows("update outbox.subscriptions set transformation = '{n: data.job.n}' where id = %s", UUID(bytes=one))
    world.record(payload=LARGE)
    async with stepping(world.url, far_end) as relay:
        await start(relay.engine.evaluator)
        await relay.look()
        await relay.settled()
    ((_, _, body),) = far_end.requests
    assert body.endswith(b'"data__n":1.50}')
