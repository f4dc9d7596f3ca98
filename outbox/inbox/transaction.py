"""Process one request as a whole: take the message, let the application act, and commit both, or neither.

    verify ──refused──▶ row "refused" (a transaction apart) ──▶ answer 401, 413, 400
       │
    take the id ──copy──▶ row "duplicate", commit ──▶ answer 200
       │
    the application acts ──raises──▶ rollback, row "failed" (apart) ──▶ the error goes on: 500, the sender retries
       │
    row "accepted", commit ──▶ answer 200

The session's transaction is owned from the first step on: it is committed or rolled back here, and nothing else may.
A commit of the application's is refused: its failure later would lose the rest of a message whose id is taken.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Unpack

from outbox._text import brief
from outbox.errors import ArgumentError, BodyError
from outbox.inbox.binding import require_own, run_in
from outbox.inbox.call import Call, Rules, checked_call
from outbox.inbox.receiving import AsyncTarget, Received, Refused, Target, note_failure, note_refusal, take
from outbox.signing.verify import Secrets

__all__ = ["Answer", "aprocess", "aprocessing", "process", "processing"]

log = logging.getLogger("outbox.inbox")


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer, with an empty body: a refused sender learns nothing from it. `message` is None where refused."""

    status: int
    outcome: Literal["accepted", "duplicate", "refused"]
    message: Received | None = None


def process(
    session: Target, request: Any, secrets: Secrets, handle: Callable[[Received], object], *, source: str,
    **rules: Unpack[Rules],
) -> Answer:  # fmt: skip
    """Take one request, call `handle(message)` unless it is a copy, commit, and return what to answer.

    What `handle` writes on the session, `outbox.record()` included, is committed together with the message's id: from a
    relay on PostgreSQL each event is acted upon once. What it does elsewhere may happen again. It may set
    `message.status` and `message.entity`. Where it raises, everything is rolled back, the inbox keeps a row `failed`,
    and the error goes on: let the framework answer 500, so that the sender comes again. It raises `Refused` for what
    will never be taken.

    Args:
        session: as for `receive`; what was written on it before is committed or rolled back too. On Django's connection
            it opens an atomic() block: inside of another one, that one commits; with autocommit off that is refused.
        request: as for `receive`.
        secrets: as for `receive`.
        handle: the application's function.
        source: as for `receive`.
        rules: see Rules.
    """
    try:
        _require_function(handle)
        call = checked_call(request, secrets, source, rules)
    finally:
        del secrets  # an error shows this frame, of the call or of `handle`
    try:
        with _processing(session, call) as message:
            if not message.duplicate:
                _refuse_unawaited(handle(message))
    except Refused as refused:
        return Answer(refused.status, "refused")
    return _answer_of(message)


async def aprocess(
    session: AsyncTarget, request: Any, secrets: Secrets, handle: Callable[[Received], Awaitable[object]], *,
    source: str, **rules: Unpack[Rules],
) -> Answer:  # fmt: skip
    """Process as `process` does, on an AsyncSession or AsyncConnection, with an asynchronous `handle`."""
    try:
        _require_function(handle)
        call = checked_call(request, secrets, source, rules)
    finally:
        del secrets
    try:
        async with _aprocessing(session, call) as message:
            if not message.duplicate:
                await handle(message)
    except Refused as refused:
        return Answer(refused.status, "refused")
    return _answer_of(message)


def processing(
    session: Target, request: Any, secrets: Secrets, *, source: str, **rules: Unpack[Rules]
) -> AbstractContextManager[Received]:
    """Take one request for a `with` block, and commit at its end; the block must do nothing where `message.duplicate`.

    Raises Refused (Busy) before the block, as `receive` does: answer its `status`. An error of the block rolls back.
    """
    try:
        return _processing(session, checked_call(request, secrets, source, rules))
    finally:
        del secrets


def aprocessing(
    session: AsyncTarget, request: Any, secrets: Secrets, *, source: str, **rules: Unpack[Rules]
) -> AbstractAsyncContextManager[Received]:
    """Take one request as `processing` does, on an AsyncSession or AsyncConnection, for an `async with` block."""
    try:
        return _aprocessing(session, checked_call(request, secrets, source, rules))
    finally:
        del secrets


@contextmanager
def _processing(session: Any, checked: Call) -> Iterator[Received]:
    require_own(session)
    call = checked.on(session)
    message = _begin(call)
    try:
        with call.binding.guarded():
            yield message
        failed_later = _end(call, message)
    except BaseException as error:  # noqa: BLE001 - it goes on
        raise _undo(call, message, error)  # noqa: B904 - it is the error itself, or says what it comes to
    if failed_later is not None:
        raise failed_later


@asynccontextmanager
async def _aprocessing(session: Any, checked: Call) -> AsyncIterator[Received]:
    call = await run_in(session, checked.on)
    message = await run_in(session, lambda _: _begin(call))
    try:
        with call.binding.guarded():
            yield message
        await run_in(session, lambda _: _end(call, message))  # nothing is put off there
    except BaseException as error:  # noqa: BLE001
        failed = error
        raise await run_in(session, lambda _: _undo(call, message, failed))  # noqa: B904


def _begin(call: Call) -> Received:
    """Take the message. A refusal ends the transaction first: its row then needs no second connection."""
    call.binding.begin()
    try:
        return take(call)
    except Refused as refused:
        call.binding.rollback()
        note_refusal(call, refused)
        raise
    except Exception:
        call.binding.rollback()
        raise


def _end(call: Call, message: Received) -> BaseException | None:
    """Commit. Return the error of what came after the commit: the message is taken all the same."""
    if type(message.status) is not int or not 200 <= message.status <= 299:
        raise ArgumentError(
            f"status: {brief(message.status)} for what is committed: it is answered 2xx, or the sender sends it again;"
            " raise outbox.inbox.Refused for what is not taken"
        )
    message.answered()
    return call.binding.commit()


def _undo(call: Call, message: Received, error: BaseException) -> BaseException:
    """Roll back, note why, and return what to raise. A body that is no JSON is the sender's fault: it is refused."""
    try:
        call.binding.rollback()
    except Exception as second:  # noqa: BLE001 - the first error is the one to tell
        log.warning("inbox %s: the rollback failed: %s", call.source, type(second).__name__)
    if isinstance(error, BodyError):
        error = Refused(str(error), status=400, reason="body")
    if isinstance(error, Refused):
        note_refusal(call, error, message)
    elif isinstance(error, Exception):
        note_failure(call, error, message)
    return error


def _answer_of(message: Received) -> Answer:
    return Answer(message.status, "duplicate" if message.duplicate else "accepted", message)


def _refuse_unawaited(result: object) -> None:
    """Raise ArgumentError for a coroutine: nothing of it has run, and the message would be taken for nothing."""
    if isinstance(result, Coroutine):
        result.close()
        raise ArgumentError("handle: is asynchronous; use `await outbox.inbox.aprocess(…)`")


def _require_function(handle: object) -> None:
    if not callable(handle):
        raise ArgumentError(f"handle: pass a function of the message, not {brief(handle)}")
