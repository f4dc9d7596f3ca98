"""Answer test messages that somebody asked for in the database: take one, send it, write down what came of it.

Each is taken once, whichever relay is first. One that nobody took in time is left: whoever asked is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from anyio import to_thread
from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.control.test_messages import AnsweredTest, json_of_answer
from outbox.errors import OutboxError
from relay.operations.endpoint_tests.test_and_check import prepare, send_prepared

if TYPE_CHECKING:
    from uuid import UUID

    from relay.operations.connection import Database
    from relay.operations.endpoint_tests.documents import SentTest
    from relay.operations.endpoint_tests.test_and_check import Network

__all__ = ["answer_one"]

_TAKE = text("""
update outbox.test_requests set taken_at = clock_timestamp() where id = (
    select id from outbox.test_requests where taken_at is null and expires_at > clock_timestamp()
    order by requested_at limit 1 for update skip locked)
returning id, subscription_id, type, payload
""")
_ANSWER = text("update outbox.test_requests set answered_at = clock_timestamp(), answer = :answer where id = :id")


@dataclass(frozen=True)
class _Taken:
    id: UUID
    subscription_id: UUID
    type: str
    payload: str


async def answer_one(database: Database, tenant: str | None, out: Network) -> bool:
    """Take a test message that waits, send it and write the answer; return whether there was one.

    Args:
        database: with the relay's configuration.
        tenant: None; it is a relay's work.
        out: the way out, which stays open.

    Raises:
        RightsError: the role may not take or answer it.
    """
    operator_only(tenant, "test")
    taken = await to_thread.run_sync(_take, database)
    if taken is None:
        return False
    try:
        target, event = await to_thread.run_sync(
            prepare, database, None, taken.subscription_id, taken.type, taken.payload
        )
        answer = _answered(await send_prepared(database, target, event, out))
    except OutboxError as error:
        answer = _refused(str(error))
    await to_thread.run_sync(_write, database, taken.id, json_of_answer(answer))
    return True


def _take(database: Database) -> _Taken | None:
    with database.transaction() as connection:
        row = connection.execute(_TAKE).one_or_none()
        return None if row is None else _Taken(*row)


def _write(database: Database, test_id: UUID, answer: str) -> None:
    with database.transaction() as connection:
        connection.execute(_ANSWER, {"id": test_id, "answer": answer})


def _answered(sent: SentTest) -> AnsweredTest:
    return AnsweredTest(
        delivery_id=sent.delivery_id,
        at=sent.at,
        ok=sent.ok,
        sent=sent.sent,
        outcome=str(sent.outcome),
        status=sent.status,
        milliseconds=sent.milliseconds,
        error=sent.error,
        address=sent.address,
        hindrance=sent.hindrance,
        request=sent.request,
        response=sent.response,
        findings=sent.findings,
    )


def _refused(error: str) -> AnsweredTest:
    """Return the answer of what could not even be tried, such as to a subscription that was removed meanwhile."""
    return AnsweredTest(
        delivery_id=None, at=datetime.now(UTC), ok=False, sent=False, outcome="refused", status=None, milliseconds=0,
        error=error, address=None, hindrance=None, request=None, response=None, findings=(),
    )  # fmt: skip
