"""Ask for a test message from an application, and wait for its answer, also in asynchronous code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from outbox._text import brief, qualified_kind
from outbox.control import test_messages
from outbox.control.asking import Tenant, connection_of, whose
from outbox.control.test_messages import DEFAULT_TYPE, AnsweredTest, RequestedTest
from outbox.errors import ArgumentError, TransactionError
from outbox.recording.bind import WRITE
from outbox.recording.targets import is_django, session_of, unscoped
from outbox.subscriptions.checks import EVERY_TENANT

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session

    AsyncTarget: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection | AsyncEngine
else:
    AsyncTarget = Any  # the classes above are not loaded here

__all__ = ["await_test", "read_test", "request_test", "wait_for_test"]

_UNCOMMITTED = "test: commit before you wait; until then no relay can see that a test is asked for"
_LONGEST_WAIT = 86_400  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two looks


def request_test(
    connection: Session | Connection,
    subscription_id: str | UUID,
    *,
    tenant: Tenant = "",
    type: str = DEFAULT_TYPE,  # noqa: A002 - the event's type is called type everywhere
    data: object = None,
) -> RequestedTest:
    """Ask a running relay for one test message to this subscription; it goes out once the caller has committed.

    It is a real request, signed, by the relay's address policy and with the subscription's timeout, also while the
    subscription is paused or disabled. No statistic counts it; the history shows it as an attempt `test`. A relay takes
    it within about a second. Then `wait_for_test(session, requested)`, or `await await_test(session, requested)`:

        requested = outbox.request_test(session, subscription_id, tenant="acme")
        session.commit()
        answer = outbox.wait_for_test(session, requested)

    Args:
        connection: a Session or Connection; the caller commits, and before it waits.
        subscription_id: `sub_…`.
        tenant: whose.
        type: of the message.
        data: as for `record()`; default `{"test": true}`.

    Raises:
        NotFoundError: no such subscription of this tenant, or it is removed.
        RecordError: type or data was refused.
        ProbeError: 30 test messages were asked for in the last minute.
    """
    asked = connection_of(connection, to_write=True)
    return test_messages.ask(asked, whose(tenant), subscription_id, type=type, data=data)


def read_test(connection: Session | Connection, test_id: str | UUID, *, tenant: Tenant = "") -> RequestedTest:
    """Return a test message that was asked for within the last day; `answer` is None while there is none.

    Raises NotFoundError when there is none, or its subscription is another tenant's.
    """
    return test_messages.read(connection_of(connection), whose(tenant), test_id)


def wait_for_test(
    connection: Session | Connection | Engine, requested: RequestedTest, *, seconds: float = 30.0
) -> AnsweredTest:
    """Wait until a relay has answered, and return what came of it, success or not.

    Between two looks no transaction and, but for a Connection, no connection is held.

    Args:
        connection: a Session or Connection whose transaction is over, or an Engine.
        requested: of `request_test`.
        seconds: how long; the endpoint's own timeout (15 s by default) is within it.

    Raises:
        NoAnswerError: there is no answer in time; the message says whether a relay runs, and where to look.
        TransactionError: the request is not committed yet, so that nobody can see it.
        ArgumentError: an argument is of another kind, or out of range.
    """
    _check(requested, seconds)
    bind = _bind_of(connection)
    for pause in _pauses(seconds):
        if (answer := _look(bind, requested)) is not None:
            return answer
        time.sleep(pause)
    raise _look_for_the_reason(bind, requested, seconds)


async def await_test(
    target: AsyncTarget | Session | Engine, requested: RequestedTest, *, seconds: float = 30.0
) -> AnsweredTest:
    """Wait as `wait_for_test` does, on an AsyncSession, AsyncConnection or AsyncEngine; others go on meanwhile.

    A plain Session or Engine does too: each look is a moment in a thread, and no thread waits.
    """
    _check(requested, seconds)
    for pause in _pauses(seconds):
        answer: AnsweredTest | None = await _run(target, lambda bind: _look(bind, requested))
        if answer is not None:
            return answer
        await asyncio.sleep(pause)
    raise await _run(target, lambda bind: _look_for_the_reason(bind, requested, seconds))


def _check(requested: object, seconds: object) -> None:
    if not isinstance(requested, RequestedTest):
        raise ArgumentError(f"requested: pass what request_test returned, not {brief(requested)}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_WAIT:
        raise ArgumentError(f"seconds: {brief(seconds)} is not a number of seconds from 0 to {_LONGEST_WAIT}")


async def _run(given: Any, look: Callable[[Engine | Connection], Any]) -> Any:
    """Run a look where SQLAlchemy lets plain code wait for an asynchronous driver."""
    target = unscoped(given)
    if hasattr(target, "run_sync"):
        return await target.run_sync(lambda plain: look(_bind_of(plain)))
    if isinstance(target, Engine) or session_of(target) is not None:
        return await asyncio.to_thread(look, _bind_of(target))
    if not hasattr(target, "sync_engine"):
        kind = qualified_kind(target)
        raise ArgumentError(f"target: pass an AsyncSession, AsyncConnection or AsyncEngine, not a {kind}")
    async with target.connect() as connection:
        return await connection.run_sync(look)


def _pauses(seconds: float) -> Iterator[float]:
    """Yield how long to rest after each look, until so many seconds are over; there is one look at least."""
    ends, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while (left := ends - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    yield 0.0


def _bind_of(target: Any) -> Engine | Connection:
    """Return what looks are made on: a session's engine, so that the session stays as it is."""
    if isinstance(target, Engine | Connection):
        return target
    if is_django(target):
        from outbox.django.bridge import borrow

        if target.in_atomic_block or not target.get_autocommit():
            raise TransactionError(_UNCOMMITTED)
        return borrow(target, to_write=False)
    session = session_of(target)
    if session is None:
        raise ArgumentError(f"connection: pass a Session, Connection or Engine, not a {qualified_kind(target)}")
    _refuse_open(session)
    return session.get_bind(clause=WRITE)


def _refuse_open(target: Session | Connection) -> None:
    if target.in_transaction():
        raise TransactionError(_UNCOMMITTED)


@contextmanager
def _looking(bind: Engine | Connection) -> Iterator[Connection]:
    if isinstance(bind, Engine):
        with bind.connect() as connection:
            yield connection
        return
    _refuse_open(bind)
    try:
        yield bind
    finally:
        bind.rollback()


def _look(bind: Engine | Connection, requested: RequestedTest) -> AnsweredTest | None:
    with _looking(bind) as connection:
        return test_messages.read(connection, whose(EVERY_TENANT), requested.id).answer


def _look_for_the_reason(bind: Engine | Connection, requested: RequestedTest, seconds: float) -> Exception:
    with _looking(bind) as connection:
        return test_messages.why_unanswered(connection, whose(EVERY_TENANT), requested, seconds)
