"""What capture costs: microseconds of CPU of the client that a row takes beyond the same rows without it.

A transaction makes a thousand rows of five columns, the next changes them all, a third deletes them. Rounds alternate
between plain, with `record()` for each row, and captured. CPU of the client's process, since that is what capture
takes: the event's row in the database is what `record()` takes.

A figure is made from the cheapest round of each way: whoever else has the core makes a round dearer, up to twice, and
nothing makes one cheaper. The figure by medians stands beside it.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import outbox
from benchmarks.bench import Bench, Result, median
from benchmarks.server import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

__all__ = ["run"]

ROWS = 1_000
BAR_MICROSECONDS = 30
WAYS = ("plain", "record", "capture")
STEPS = ("created", "updated", "deleted")


class Base(DeclarativeBase): ...


class Lead(Base):
    __tablename__ = "captured_leads"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    status: Mapped[str]
    owner: Mapped[str]
    cents: Mapped[int]


def run(bench: Bench) -> Iterator[Result]:
    """Measure each step of each way in turn."""
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with bench.server.outbox() as url:
        made = engine(url)
        Base.metadata.create_all(made)
        for _ in range(bench.sizes.record_rounds):
            for way, measured in rounds.items():
                measured.append(took := _round(made, way))
                bench.say(f"capture: {way} {', '.join(f'{step} {took[step]:.0f} µs' for step in STEPS)} a row")
        made.dispose()
    for step in STEPS:
        yield _result(step, {way: [took[step] for took in measured] for way, measured in rounds.items()})


def _result(step: str, took: dict[str, list[float]]) -> Result:
    least, middle = ({way: pick(values) for way, values in took.items()} for pick in (min, median))
    beyond = least["capture"] - least["plain"]
    return Result(
        f"capture of a row {step}, CPU beyond none",
        f"{beyond:.0f} µs",
        f"≤ {BAR_MICROSECONDS} µs",
        beyond <= BAR_MICROSECONDS,
        f"beyond record(): {least['capture'] - least['record']:.0f} µs; by medians"
        f" {middle['capture'] - middle['plain']:.0f}; a plain row takes {least['plain']:.0f}, by medians"
        f" {middle['plain']:.0f}",
    )


def _round(made: Engine, way: str) -> dict[str, float]:
    """Return the CPU that each step takes a row, in microseconds."""
    with made.begin() as connection:
        connection.execute(text("truncate captured_leads, outbox.events, outbox.pending"))
    types = {step: f"lead.{step}" for step in STEPS}
    capture = outbox.capture(Lead, **types) if way == "capture" else None
    try:
        with Session(made, expire_on_commit=False) as session:
            leads = [Lead(id=n, name=f"n{n}", status="new", owner="acme", cents=n) for n in range(ROWS)]
            changes: dict[str, Callable[[], object]] = {
                "created": lambda: session.add_all(leads),
                "updated": lambda: [setattr(lead, "status", "won") for lead in leads],
                "deleted": lambda: [session.delete(lead) for lead in leads],
            }
            return {step: _cpu(session, change, leads if way == "record" else [], step)
                    for step, change in changes.items()}  # fmt: skip
    finally:
        if capture is not None:
            capture.remove()


def _cpu(session: Session, change: Callable[[], object], told: list[Lead], step: str) -> float:
    gc.collect()
    began = time.process_time()
    change()
    session.flush()
    for lead in told:
        data = {"id": lead.id, "name": lead.name, "status": lead.status, "owner": lead.owner, "cents": lead.cents}
        outbox.record(session, f"lead.{step}", data, key=str(lead.id))
    session.commit()
    return (time.process_time() - began) / ROWS * 1e6
