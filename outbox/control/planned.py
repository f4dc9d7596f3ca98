"""Plans that hold whatever the statistics say: for the statements of one list, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text

__all__ = ["along_indexes"]

# A walk stops early, which pays only where its index has the order already. The planner knows neither how much of the
# history a subscription has, nor, on tables that grew since they were analysed, how large they are.
_WANTED = {
    "enable_sort": "off",
    "enable_bitmapscan": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
}
_READ = text("select " + ", ".join(f"current_setting('{name}') as {name}" for name in _WANTED))
_WRITE = text("select " + ", ".join(f"set_config('{name}', :{name}, true)" for name in _WANTED))


@contextmanager
def along_indexes(connection: Connection) -> Iterator[None]:
    """Let statements inside follow indexes; what the caller had set is put back. In autocommit it has no effect."""
    before = dict(connection.execute(_READ).mappings().one())
    connection.execute(_WRITE, _WANTED)
    yield
    connection.execute(_WRITE, before)
