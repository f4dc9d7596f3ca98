"""The session that events are recorded on where none is at hand: that of a block, else of whatever was registered.

A block is kept in a context variable, so threads and tasks have each their own; a task that is begun inside a block
sees it too. But FastAPI runs a dependency that is a plain `def` in a thread with a copy of the context: a block that
is opened there is not seen by the endpoint. And a task may outlive the block that it was begun in; what it would
record then, nobody would commit. Both are refused, since an event on the wrong session is a lost event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from sqlalchemy.orm import sessionmaker

from outbox._text import brief
from outbox.errors import ArgumentError, TransactionError

__all__ = ["current_session", "sessions_from", "use_session"]

_Session = TypeVar("_Session")


class _Block:
    """A session in use, until its block ends."""

    __slots__ = ("is_open", "session")

    def __init__(self, session: object) -> None:
        self.session = session
        self.is_open = True


_block: ContextVar[_Block | None] = ContextVar("outbox_session", default=None)
_source: list[Callable[[], Any]] = []


@contextmanager
def use_session(session: _Session) -> Iterator[_Session]:
    """Make `session` the one that `emit()` records on, inside this block; `current_session()` returns it.

    Blocks nest: the innermost holds. Threads do not see it, unless they run in a copy of the context, as
    `asyncio.to_thread()` does; tasks that are begun inside do. It neither commits nor closes the session.

    Args:
        session: whatever `record()` takes.
    """
    outer, block = _block.get(), _Block(session)
    _block.set(block)
    try:
        yield session
    finally:
        block.is_open = False
        if _block.get() is block:  # not so where a generator is closed by another thread, with another context
            _block.set(outer)


def sessions_from(source: Any) -> None:
    """Say once, when the application starts, where `emit()` finds the session outside of `use_session()` blocks.

    Args:
        source: a scoped session (Flask-SQLAlchemy's `db.session`), or a callable that returns the session in use, or
            None where there is none. None takes back what was said.

    Raises:
        ArgumentError: it is neither.
    """
    if source is None:
        _source.clear()
    elif isinstance(source, type | sessionmaker) or type(source).__name__ == "async_sessionmaker":
        raise ArgumentError(
            "source: makes a new session at each call, which nobody would commit; give a scoped session"
        )
    elif callable(registry := getattr(source, "registry", None)):
        _source[:] = [registry]  # of a scoped session; called itself, it would make one
    elif callable(source):
        _source[:] = [source]
    else:
        raise ArgumentError(f"source: must be a scoped session or a callable that returns one, not {brief(source)}")


def current_session() -> Any:
    """Return the session of the innermost `use_session()` block, else what `sessions_from()` was given finds.

    Raises:
        TransactionError: there is none, or its block has ended.
    """
    block = _block.get()
    if block is None:
        return _registered()
    if not block.is_open:
        raise TransactionError(
            "the use_session() block that this task was begun in has ended, and its session with it: "
            "open one of its own in the task"
        )
    return block.session


def _registered() -> Any:
    session, reason = None, None
    if _source:
        try:
            session = _source[0]()
        except (LookupError, RuntimeError) as error:  # a context variable that is not set; Flask, outside of a context
            reason = error
    if session is None:
        raise TransactionError(
            "no session is in use here: call record(session, …), or open a block `with outbox.use_session(session):`. "
            "In FastAPI open it in an `async def` dependency; what a `def` dependency opens, the endpoint does not see"
        ) from reason
    return session
