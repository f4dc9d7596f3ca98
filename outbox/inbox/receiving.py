"""Receive one request: verify it, take its id in the receiver's transaction, and say whether it is a copy.

Whether it is a copy is decided by outbox.inbox_receive() in the database. Every wrong call is refused before anything
is written, by call.py. Whatever was received raises Refused or Busy, which know what to answer; their text is for the
log, and nothing of it may go to the sender.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from sqlalchemy import Connection

from outbox._text import brief, complaint
from outbox.errors import ArgumentError, InboxError, SignatureError
from outbox.ids import InboxId, new_uuid7
from outbox.inbox import rows
from outbox.inbox.binding import Binding, run_in
from outbox.inbox.call import Call, Rules, checked_call
from outbox.inbox.refusals import Bound
from outbox.inbox.request import Request
from outbox.recording.targets import DjangoConnection
from outbox.secret import hides_secrets
from outbox.signing.verify import Secrets, Webhook, verify

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    Target: TypeAlias = Session | scoped_session[Any] | Connection | psycopg.Connection[Any] | DjangoConnection
    AsyncTarget: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection
else:
    Target = AsyncTarget = Any  # the classes above are not loaded here

__all__ = [
    "AsyncTarget", "Busy", "Received", "Refused", "Target", "areceive", "note_failure", "note_refusal", "receive",
    "take",
]  # fmt: skip

log = logging.getLogger("outbox.inbox")

_MAX_ENTITY_BYTES = 256
_MESSAGE_ID = re.compile(r"[ -~]{1,256}")
refusals_kept = Bound()


class Refused(InboxError):  # noqa: N818 - says what happened, as its row does
    """The request is not taken. Answer `status`, with no body: 401 for a signature, 413 for a body, 400 for an id.

    A handler raises it too, for what will never be taken: nothing is committed, and the sender should not retry.
    `reason` is one word: signature, too_large, id, busy, or application.
    """

    def __init__(self, text: str, *, status: int = 400, reason: str = "application") -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class Busy(Refused):
    """Another transaction has had this very message for 5 s and has not ended. Answer 503: the sender comes again."""

    def __init__(self, text: str) -> None:
        super().__init__(text, status=503, reason="busy")


@dataclass(slots=True, eq=False)
class Received:
    """A verified message, taken in the receiver's transaction, or a copy of one that was taken: then do nothing.

    id: the message's. timestamp: the attempt's, None where the scheme has none. record_id: of its row in the inbox;
    copies after the twentieth have none.
    status: what is answered; set it where it is not 200. entity: what the message is about, such as "lead:42", for
    whoever looks at the inbox; set it.
    """

    id: str
    source: str
    duplicate: bool
    timestamp: int | None
    request: Request
    record_id: InboxId
    tenant: str = ""
    status: int = 200
    entity: str | None = None
    _at: datetime | None = field(default=None, repr=False)
    _binding: Binding | None = field(default=None, repr=False)
    _began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def body(self) -> bytes:
        """The raw bytes of the body."""
        return self.request.body

    def json(self) -> Any:
        """Return the body as parsed JSON. Raises BodyError, as `Webhook.json` does."""
        return Webhook(self.id, self.timestamp, self.body).json()

    def answered(self, status: int | None = None) -> None:
        """Note what is answered, once, before the receiver commits; `process` and `processing` do it by themselves."""
        if status is not None:
            self.status = status
        if type(self.status) is not int or not 100 <= self.status <= 999:
            raise ArgumentError(f"status: must be a status such as 200, not {brief(self.status)}")
        if self.entity is not None and (wrong := complaint("entity", self.entity, _MAX_ENTITY_BYTES)):
            raise ArgumentError(wrong)
        assert self._binding is not None
        if self._at is not None:
            rows.answer(self._binding, self.record_id, self._at, self.status, milliseconds(self._began), self.entity)


@hides_secrets
def receive(session: Target, request: Any, secrets: Secrets, *, source: str, **rules: Unpack[Rules]) -> Received:
    """Verify a request and take it in the session's transaction; the caller commits, and `answered()` notes the status.

    Nothing stays of it where the transaction rolls back, so the sender's next attempt is a new one. `duplicate` is True
    where a copy was committed before. While another transaction has the same message, this one waits for its end.

    Args:
        session: a Session, scoped session or Connection of SQLAlchemy, a psycopg Connection, or Django's connection.
        request: a Request, or a framework's that `Request.of` takes.
        secrets: one or several, as for `outbox.verify`.
        source: who sends, one word, such as n8n: ids are the source's own.
        rules: see Rules.

    Raises:
        Refused: the request does not verify, is too large, or has no id. It has a row in the inbox.
        Busy: see there.
        ArgumentError: the call is wrong.
        TransactionError: no transaction could carry it.
    """
    return _receive(checked_call(request, secrets, source, rules).on(session))


async def areceive(
    session: AsyncTarget, request: Any, secrets: Secrets, *, source: str, **rules: Unpack[Rules]
) -> Received:
    """Receive as `receive` does, on an AsyncSession or AsyncConnection.

    `answered` is then `await session.run_sync(lambda _: message.answered(200))`.
    """
    try:
        call = checked_call(request, secrets, source, rules)
    finally:
        del secrets  # an error shows this frame
    received: Received = await run_in(session, lambda plain: _receive(call.on(plain)))
    return received


def _receive(call: Call) -> Received:
    try:
        return take(call)
    except Refused as refused:
        note_refusal(call, refused)
        raise


def take(call: Call) -> Received:
    """Verify what was called for and take it. Raises Refused, which leaves no row yet."""
    webhook = _verified(call)
    return _take_id(call, webhook, _id_of(call, webhook))


def _verified(call: Call) -> Webhook:
    """Return the verified message. Secrets and scheme are checked whatever came."""
    request = call.request
    how = {"tolerance_seconds": call.tolerance_seconds, "now": call.now, "scheme": call.scheme}
    try:
        webhook = verify(call.secrets, request.headers, request.body, **how)  # type: ignore[arg-type]
    except SignatureError as error:
        if not request.too_large:
            raise Refused(str(error), status=401, reason="signature") from None
    if request.too_large:
        raise Refused(f"body: {request.size} bytes or more are too many", status=413, reason="too_large")
    return webhook


def _id_of(call: Call, webhook: Webhook) -> str:
    """Return the message's id: as the source's rule says, as the signature covers it, or the hash of the body."""
    if callable(call.id):
        found: object = call.id(call.request)
    elif call.id is not None:
        found = call.request.header(call.id)
    else:
        found = webhook.id or f"sha256:{hashlib.sha256(webhook.body).hexdigest()}"
    if not isinstance(found, str) or not _MESSAGE_ID.fullmatch(found):
        raise Refused("id: there is none, or it is not 1 to 256 characters of visible ASCII", reason="id")
    return found


def _take_id(call: Call, webhook: Webhook, message_id: str) -> Received:
    """Write the message's id in the receiver's transaction. Raises Busy."""
    row = new_uuid7()
    sent_at = webhook.timestamp if webhook.timestamp is None or 0 <= webhook.timestamp < 253_402_300_800 else None
    columns = call.columns(id=str(row), message_id=message_id, sent_at=sent_at)
    outcome, at = rows.add(call.binding, columns, call.kept)
    if outcome == "busy":
        raise Busy(f"message {message_id}: another transaction has it and does not end")
    return Received(
        id=message_id, source=call.source, duplicate=outcome == "duplicate", timestamp=webhook.timestamp,
        request=call.request, record_id=InboxId.of(row), tenant=call.tenant, _at=at, _binding=call.binding,
        _began=call.began,
    )  # fmt: skip


def note_refusal(call: Call, refused: Refused, received: Received | None = None) -> None:
    """Write the row of a refused request, within the bound; one that its own application refused always has one."""
    unrecorded = refusals_kept.take(call.source) if received is None else 0
    log.info("inbox %s: refused with %d: %s", call.source, refused.status, refused)
    if unrecorded is None:
        return
    more = {"status": refused.status, "reason": refused.reason, "error": str(refused)[:500], "unrecorded": unrecorded}
    _note(call, "refused", more, received)


def note_failure(call: Call, error: Exception, received: Received) -> None:
    """Write the row of a message whose processing raised."""
    first = (str(error).splitlines() or [""])[0][:500]
    _note(call, "failed", {"status": 500, "reason": type(error).__name__[:100], "error": first}, received)


def _note(call: Call, outcome: str, more: dict[str, Any], received: Received | None) -> None:
    """Write a row apart. The answer to the sender does not depend on it, so an error is logged and no more."""
    known = {} if received is None else {"message_id": received.id, "entity": _entity(received)}
    columns = call.columns(milliseconds=milliseconds(call.began), **known, **more)
    columns["error"] = columns["error"].replace("\0", "").encode("utf-8", "replace").decode()
    try:
        rows.note(call.binding, columns, None if received is None else call.kept, outcome)
    except Exception as error:  # noqa: BLE001
        kind = type(error).__name__
        log.warning("inbox %s: the row of a %s request could not be written: %s", call.source, outcome, kind)


def _entity(received: Received) -> str | None:
    wrong = received.entity is not None and complaint("entity", received.entity, _MAX_ENTITY_BYTES)
    return None if wrong else received.entity


def milliseconds(began: float) -> int:
    """Return how long ago that was."""
    return round((time.monotonic() - began) * 1000)
