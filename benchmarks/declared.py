"""What a catalogue of event types costs `record()`: nothing while none is declared, microseconds where one is checked.

Recorded on a session that is never committed, so that nothing but the application's own work is measured. The former
`record()` is the present one without the line that asks the catalogue. Rounds alternate between the ways.
"""

from __future__ import annotations

import inspect
import textwrap
import time
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from benchmarks.bench import Bench, BenchmarkError, Result, median, percentile
from outbox import Catalogue, EventType, Outbox
from outbox.recording import record as recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["run", "ways"]

BAR, MICROSECONDS = 0.97, 15.0
ROUNDS, EVENTS = 60, 1_000
ASKED = "encode(data, most) if write_declared is None else write_declared(type, data, most)"


class Placed(BaseModel):
    id: int
    cents: int
    currency: str
    note: str | None = None


DATA = {"id": 1, "cents": 4200, "currency": "EUR", "note": None}


def run(bench: Bench) -> Iterator[Result]:
    """Measure `record()` as it was, without a type, with others declared, and with one that pydantic checks."""
    by_name = ways()
    rounds: dict[str, list[float]] = {name: [] for name in by_name}
    with Session(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")) as session:
        for number in range(bench.sizes.record_rounds * ROUNDS // 11):
            for name in list(by_name) if number % 2 else reversed(by_name):  # what comes first has no advantage
                rounds[name].append(_microseconds(session, by_name[name]))
    was = rounds["as it was"]
    for name in ("nothing declared", "another type declared"):
        ratios = [before / now for before, now in zip(was, rounds[name], strict=True)]
        spread = f"{percentile(ratios, 25):.2f}-{percentile(ratios, 75):.2f}"
        anchors = f"{spread}; {median(rounds[name]):.1f} of {median(was):.1f} µs"
        yield Result(f"record(), {name}", f"{median(ratios):.2f}", f"≥ {BAR}", median(ratios) >= BAR, anchors)
    for name in ("a dict, checked by pydantic", "a pydantic model, declared"):
        plain = rounds["a pydantic model"] if "model" in name else was
        more = median([now - before for before, now in zip(plain, rounds[name], strict=True)])
        met, anchors = more <= MICROSECONDS, f"{median(rounds[name]):.1f} of {median(plain):.1f} µs"
        yield Result(f"record() of {name}: more", f"{more:.1f} µs", f"≤ {MICROSECONDS:.0f} µs", met, anchors)


def ways() -> dict[str, Callable[[Session], object]]:
    """Return the ways to record an event that are compared, by their names."""
    declared = Catalogue("benchmark")
    placed, model = EventType("order.placed", Placed, catalogue=declared), Placed(**DATA)
    none, others = Outbox(), declared.outbox
    former = _former()
    return {
        "as it was": lambda session: former.record(session, "order.other", DATA),
        "nothing declared": lambda session: none.record(session, "order.other", DATA),
        "another type declared": lambda session: others.record(session, "order.other", DATA),
        "a dict, checked by pydantic": lambda session: others.record(session, "order.placed", DATA),
        "a pydantic model": lambda session: none.record(session, "order.placed", model),
        "a pydantic model, declared": lambda session: placed.record(session, model),
    }


def _former() -> Outbox:
    """Return an Outbox that does not ask the catalogue, made of the present source."""
    source = textwrap.dedent(inspect.getsource(Outbox._row))  # noqa: SLF001 - what is measured
    asking = next((line for line in source.splitlines() if "write_declared, most" in line), None)
    if asking is None or ASKED not in source:
        raise BenchmarkError("catalogue: record() asks the catalogue in other words now; change this benchmark")
    plain = source.replace(f"{asking}\n", "").replace(ASKED, "encode(data, self.max_payload_bytes)")
    names: dict[str, Any] = dict(vars(recording))
    exec(compile(plain, "former record()", "exec", dont_inherit=True), names)
    return type("Former", (Outbox,), {"_row": names["_row"]})()


def _microseconds(session: Session, way: Callable[[Session], object]) -> float:
    began = time.process_time()
    for _ in range(EVENTS):
        way(session)
    took = time.process_time() - began
    session.rollback()
    return took / EVENTS * 1_000_000
