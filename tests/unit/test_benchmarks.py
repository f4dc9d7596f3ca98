"""What a benchmark takes from the inside of the code, which may move."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import outbox
from benchmarks import declared
from outbox.recording.session import unwritten_rows


def test_each_way_of_the_catalogues_benchmark_records_one_event() -> None:
    ways = declared.ways()
    assert set(ways) > {"as it was", "another type declared"}
    with Session(create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")) as session:
        for way in ways.values():
            event: Any = way(session)
            assert isinstance(event, outbox.Event)
        assert [row.type.split(".")[0] for row in unwritten_rows(session)] == ["order"] * len(ways)
        session.rollback()
