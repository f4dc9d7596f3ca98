"""What a type checker says of `EventType[…]`: one run of mypy for every snippet."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

__all__ = ["HEAD", "LINES"]

HEAD = """\
import dataclasses
from typing import Any
import psycopg
from pydantic import BaseModel
from sqlalchemy.orm import Session
import outbox
from outbox import Catalogue, Event, EventType

class Placed(BaseModel):
    cents: int

@dataclasses.dataclass
class Paid:
    cents: int

placed = EventType("order.placed", Placed, description="x", example={"cents": 1}, version=2, deprecated="no")
paid = EventType("order.paid", Paid, example=Paid(1), catalogue=Catalogue("a", closed=True, validate="warn"))
shipped = EventType("order.shipped", {"type": "object"}, validate="off")
anything = EventType("order.noted")

def record(session: Session, raw: psycopg.AsyncConnection[Any]) -> None:
"""
# A line of the function, and what mypy must say of it; None: nothing.
LINES: list[tuple[str, str | None]] = [
    ("event: Event = placed.record(session, Placed(cents=1), key='a', tenant='b', priority=1)", None),
    ("paid.record(session, Paid(1), idempotency_key='a', trace={'traceparent': 'x'}, available_at=None)", None),
    ("shipped.record(session, {'a': 1})", None),
    ("anything.record(session, [1, 2])", None),
    ("typed: EventType[Placed] = placed", None),
    ("change = outbox.catalogue.push(session, allow_breaking=True); change.breaking[0].type", None),
    ("placed.record(session, Paid(1))", 'incompatible type "Paid"; expected "Placed"'),
    ("placed.record(session, {'cents': 1})", 'expected "Placed"'),
    ("paid.record(session, Placed(cents=1))", 'expected "Paid"'),
    ("wrong: EventType[Paid] = placed", 'expression has type "EventType[Placed]"'),
    ("placed.record(session, Placed(cents=1), keys='a')", 'Unexpected keyword argument "keys"'),
    ("placed.record(session, Placed(cents=1), priority='a')", '"priority"'),
    ("placed.record(raw, Placed(cents=1))", 'incompatible type "AsyncConnection'),
    ("EventType('a', Placed, validate='loud')", "No overload variant"),
]


def test_the_type_of_the_data_is_checked_from_the_declaration_to_the_call(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(HEAD + "".join(f"    {line}\n" for line, _ in LINES))
    # The options and the cache of the project's own check: what that has read is not read again.
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    # In a process of its own: mypy raises the limit of recursion of the one that it runs in.
    command = [sys.executable, "-m", "mypy", *options, "--no-error-summary", str(snippet)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    out = done.stdout
    assert done.stderr == ""
    first = HEAD.count("\n") + 1
    said: dict[int, list[str]] = {}
    for line in out.splitlines():
        if found := re.match(r".*snippet\.py:(\d+): (?:error|note): (.*)", line):
            said.setdefault(int(found[1]) - first, []).append(found[2])
    expected = {number for number, (_, words) in enumerate(LINES) if words is not None}
    assert set(said) == expected, out
    for number in expected:
        assert LINES[number][1] in said[number][0], (LINES[number], said[number])
