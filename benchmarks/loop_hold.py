"""How long transformations, filters and formats hold a relay's loop: CPU time of its longest turn in this process.

Each case is done as a relay does it and, beside it, in the loop itself. Time of the wall clock would also measure what
else runs here.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from benchmarks.bench import Result
from benchmarks.hostile import DEFAULT_BYTES, HOSTILE, READ_SLOWLY, filled
from outbox.subscriptions.filters import FilteredEvent, FilterSet, parse
from relay.engine.asking import Asking
from relay.engine.room import Room
from relay.engine.transforming import Transforming
from relay.message.evaluator_process.evaluator import LARGE_BYTES, Evaluator
from relay.message.formats import Formatter
from relay.message.transformation.budget import TransformationError
from relay.message.transformation.transformation import Transformation
from relay.model.event import EventParts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from typing import TypeAlias

    from benchmarks.bench import Bench

    Work: TypeAlias = Callable[[Evaluator], Awaitable[Any]]

__all__ = ["loop_holds"]

HELD_MILLISECONDS = 5
TRIES = 3  # the least of so many counts: during the others the collector or a page fault came in between
TOGETHER = 16  # events that are due at once
LONGEST_HERE = LARGE_BYTES - 1
MANY_CONDITIONS: list[dict[str, Any]] = [
    {"payload": {"x": {"$or": [{"a": {"$gt": 50 * low + n}} for n in range(50)]}}} for low in range(2)
]


def loop_holds(bench: Bench) -> Iterator[Result]:
    """Measure transformations, then filters, then formats."""
    gc.freeze()  # as the relay does when it begins
    gc.set_threshold(50_000, 20, 20)
    largest = {f"{name}, 256 KiB": (expression, data) for name, (expression, data) in READ_SLOWLY.items()}
    largest["decimals, 1 MiB"] = ("length(data)", filled(b"1.5", 1 << 20))
    here = {
        f"decimals, 32 KiB, {name}": (HOSTILE[name][0], filled(b"1.5", LONGEST_HERE))
        for name in ("average", "text of text of text")
    }
    cases = {name: (_transformed(*case), _made_here(*case)) for name, case in (largest | here).items()}
    yield _result(bench, "transformations", cases)
    many, one = _filters(MANY_CONDITIONS), _filters([{"payload": {"y": {"$gt": 1}}}])
    asked = {
        "50 conditions, decimals, 256 KiB": (many, filled(b"1.5", DEFAULT_BYTES)),
        "50 conditions, numbers, 32 KiB": (many, filled(b"1", LONGEST_HERE - 6)),
        "50 conditions, numbers, 2 KiB": (many, filled(b"1", 2048)),
        "one condition, decimals, 1 MiB": (one, filled(b"1.5", 1 << 20)),
    }
    cases = {name: (_asked(*case), _said_here(*case)) for name, case in asked.items()}
    yield _result(bench, "filters", cases)
    shapes = {
        "zapier": {}, "slack": {}, "slack, a text of data": {"text": "{data.x}"}, "discord": {},
        "discord, a text of data": {"text": "{data.x}"}, "teams": {},
        "pagerduty, a summary of data": {"summary": "{data.x}"},
    }  # fmt: skip
    sizes = {"256 KiB": DEFAULT_BYTES, "64 KiB": 64 * 1024, "32 KiB": LONGEST_HERE}
    cases = {
        f"{shape}, {what}, {size}": (_formatted(shape, told, data), _formatted_here(shape, told, data))
        for shape, told in shapes.items()
        for size, most in sizes.items()
        for what, data in _parsed_slowly(most).items()
    }
    yield _result(bench, "formats", cases)


def _parsed_slowly(size: int) -> dict[str, bytes]:
    """Return data of that size at most, on which formats do their worst."""
    members = b",".join(b'"%x":1' % n for n in range(size // 10))
    return {
        "decimals": filled(b"1.5", size),
        "objects": b'{"x":%b}' % filled(b'{"a":1}', size - 6),
        "lists": filled(b"[]", size),
        "members": b"{%b}" % members,
        "markup": b'{"x":"%b"}' % (b"&" * (size - 8)),
    }


def _result(bench: Bench, what: str, cases: Mapping[str, tuple[Work, Callable[[], Any]]]) -> Result:
    with asyncio.Runner(loop_factory=_TimedLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, _TimedLoop)
        holds = runner.run(_holds([there for there, _ in cases.values()], loop))
    before = [_least(here) for _, here in cases.values()]
    for name, hold, was in zip(cases, holds, before, strict=True):
        bench.say(f"loop: {what}, {name}: held for {hold:.1f} ms; {was:.1f} ms where all is done in the loop")
    longest = max(holds)
    return Result(
        f"CPU time of one turn of the loop with {what}, the longest",
        f"{longest:.1f} ms",
        f"≤ {HELD_MILLISECONDS} ms",
        longest <= HELD_MILLISECONDS,
        f"{max(before):.0f} ms in the loop itself",
    )


class _TimedLoop(asyncio.SelectorEventLoop):
    """Keeps the CPU seconds of its longest turn since it was asked last."""

    longest = 0.0

    def _run_once(self) -> None:
        began = time.process_time()
        super()._run_once()  # type: ignore[misc]
        self.longest = max(self.longest, time.process_time() - began)

    def take_longest(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


async def _holds(works: list[Work], loop: _TimedLoop) -> list[float]:
    """Return the milliseconds of the longest turn during each."""
    evaluator, found = Evaluator(), []
    try:
        for work in works:
            await work(evaluator)  # starts the process, and tells it the filters
            found.append(min([await _longest_turn(work(evaluator), loop) for _ in range(TRIES)]))
    finally:
        await evaluator.close()
    return found


async def _longest_turn(work: Awaitable[Any], loop: _TimedLoop) -> float:
    gc.collect()
    await asyncio.sleep(0)
    loop.take_longest()
    await work
    await asyncio.sleep(0)
    return loop.take_longest() * 1000


def _least(call: Callable[[], Any]) -> float:
    def once() -> float:
        began = time.process_time()
        call()
        return time.process_time() - began

    gc.disable()
    try:
        return min(once() for _ in range(TRIES)) * 1000
    finally:
        gc.enable()


def _event(data: bytes) -> EventParts:
    return EventParts(b"evt_01jd3v0000e008000000000000", b"a.b", "acme", None, 123_456_789, data)


class Proven:
    """An endpoint that answers."""

    answers = True


class Enveloped(NamedTuple):
    """What a subscription makes of an event."""

    transformation: Transformation | None = None
    formatter: Formatter | None = None


async def _make(transforming: Transforming, envelope: Any, data: bytes) -> EventParts:
    """Make it as an attempt does."""
    event, endpoint = _event(data), cast("Any", Proven())
    return transforming.make_at_once(envelope, event) or await transforming.make(endpoint, envelope, event, math.inf)


def _transformed(expression: str, data: bytes) -> Work:
    transformation = Transformation(expression)

    async def one(transforming: Transforming) -> None:
        with suppress(TransformationError):  # its traceback would keep what was read until all are done
            await _make(transforming, Enveloped(transformation), data)

    async def make(evaluator: Evaluator) -> None:
        transforming = Transforming(Room(256), evaluator)
        await asyncio.gather(*(one(transforming) for _ in range(TOGETHER)))

    return make


def _made_here(expression: str, data: bytes) -> Callable[[], Any]:
    def make() -> None:
        with suppress(TransformationError):
            Transformation(expression).of(_event(data))

    return make


def _formatter(shape: str, told: dict[str, Any]) -> Formatter:
    name = shape.partition(",")[0]
    return Formatter(name, told, "0" * 32 if name == "pagerduty" else "")


def _formatted(shape: str, told: dict[str, Any], data: bytes) -> Work:
    formatter = _formatter(shape, told)

    async def one(transforming: Transforming) -> None:
        formatter.body_of(await _make(transforming, Enveloped(None, formatter), data))

    async def make(evaluator: Evaluator) -> None:
        transforming = Transforming(Room(256), evaluator)
        await asyncio.gather(*(one(transforming) for _ in range(TOGETHER)))

    return make


def _formatted_here(shape: str, told: dict[str, Any], data: bytes) -> Callable[[], Any]:
    formatter = _formatter(shape, told)
    return lambda: formatter.body_of(_event(data))


def _filters(given: list[dict[str, Any]]) -> FilterSet:
    return FilterSet({b"%d" % number: parse(one) for number, one in enumerate(given)})


def _asked(filters: FilterSet, data: bytes) -> Work:
    event = _event(b'{"x":%b}' % data)

    async def ask(evaluator: Evaluator) -> Any:
        return await Asking(evaluator).ask(event, filters)

    return ask


def _said_here(filters: FilterSet, data: bytes) -> Callable[[], Any]:
    payload = b'{"x":%b}' % data

    def ask() -> Any:
        event = FilteredEvent("a.b", payload)
        return [one.answer(event) for _, one in filters.candidates(event)]

    return ask
