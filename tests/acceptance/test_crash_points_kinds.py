"""kill -9 on the way of what is sent in another shape: transformed, in another format, in batches, recorded once.

tests/acceptance/test_crash_points.py has every step; here are those on the way of an event, for each of these kinds,
with nothing else beside it. The suite runs one step of each kind, `pytest -m slow` the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import outbox
from tests.support.application import Application
from tests.support.processes import read_log
from tests.support.provocations import crash, record_some

PATH = "/good"  # the provocations plan this one
LARGE = "x" * 40_000  # made in a process of its own

_ALONE = ("Store.settle", "HttpSender.send", "Store.claim", "TakenBatch.resolve")
_TOGETHER = ("Store.settle", "HttpSender.send", "Store.claim_batches", "Store.find_ready")


def record_large(app: Application) -> None:
    with app.engine.begin() as connection:
        events = [outbox.record(connection, "order.placed", {"number": n, "note": LARGE}) for n in range(3)]
    app.committed |= {event.id: "order.placed" for event in events}


def record_once(app: Application) -> None:
    """Whoever does not know whether the former transaction was committed records with the same keys again."""
    for number in range(6):
        app.record(1, idempotency_key=f"order-{number}")


def every_number(app: Application) -> set[bytes]:
    return {json.dumps({"n": n}, separators=(",", ":")).encode() for n in range(6)}


def every_third_number(app: Application) -> set[bytes]:
    return {json.dumps({"n": n}, separators=(",", ":")).encode() for n in range(3)}


def every_id(app: Application) -> set[bytes]:
    return {f'{{"id":"{event_id}","type":"{kind}"}}'.encode() for event_id, kind in app.committed.items()}


@dataclass(frozen=True)
class Kind:
    """What is subscribed, how each event (or batch) is answered in turn, and what has to have come."""

    options: dict[str, Any]
    steps: Sequence[str] = _ALONE
    plan: tuple[str, ...] = ("500", "200")
    record: Callable[[Application], object] = record_some
    bodies: Callable[[Application], set[bytes]] | None = None  # None: they tell their time, so nobody knows them
    events: int | None = None  # None: as many as were recorded
    kills: tuple[str, ...] = ("before", "after")


_BATCHED = {"batch_events": 4, "batch_milliseconds": 0}
KINDS = {
    "transformed": Kind({"transformation": "{n: data.number}", "format": "raw"}, bodies=every_number),
    "transformed apart": Kind(
        {"transformation": "{n: data.number}", "format": "raw"}, record=record_large, bodies=every_third_number
    ),
    "thin": Kind({"format": "thin"}, bodies=every_id),
    "CloudEvents in batches": Kind({"format": "cloudevents", **_BATCHED}, _TOGETHER),
    "recorded once": Kind({}, record=record_once, events=6),
    "a batch that is refused": Kind(_BATCHED, _TOGETHER, ("400", "200"), kills=("before", "after", "after", "after")),
}


def rows() -> Iterator[object]:
    for name, kind in KINDS.items():
        for step in kind.steps:
            yield pytest.param(name, step, marks=() if step == kind.steps[0] else pytest.mark.slow)


@pytest.mark.parametrize(("name", "step"), list(rows()))
def test_a_kill_on_the_way_of_any_kind_loses_nothing(app: Application, name: str, step: str) -> None:
    kind = KINDS[name]
    app.subscribe(PATH, schedule_seconds=[0] * 5, **kind.options)
    app.receiver.plan(PATH, *kind.plan)
    app.switch_breakers_off()
    for when in kind.kills:
        crash(app, f"{step}:{when}:1", kind.record)
    app.stage.drain()
    app.wait_settled(1)
    app.assert_all_accounted()
    assert not app.dead()
    assert app.one("select count(*) from outbox.events") == (kind.events or len(app.committed))
    if kind.bodies is not None:
        hashes = {hashlib.sha256(body).hexdigest() for body in kind.bodies(app)}
        assert {one["body"] for one in app.receiver.received(PATH)} == hashes
    if "batch_events" in kind.options:
        sizes = sizes_by_event(app)
        assert max(map(max, sizes.values())) == 4
        assert any(len(came_in) > 1 for came_in in sizes.values()) is (kind.plan[0] == "400"), "only a 400 halves"


def sizes_by_event(app: Application) -> dict[str, set[int]]:
    """Of each event: how large the batches were that it came in."""
    found: dict[str, set[int]] = {}
    for entry in read_log(app.receiver.log):
        if entry["what"] == "members":
            for event_id, _ in entry["events"]:
                found.setdefault(event_id, set()).add(len(entry["events"]))
    return found
