"""Test messages that are asked for in the database: a running relay sends one and writes the answer beside it.

Whoever asks needs neither a relay's configuration nor its keys, and the message goes the way of every delivery: the
relay's address policy, its egress proxy, the subscription's secrets.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from outbox.control.findings import Finding
from outbox.control.tenancy import own
from outbox.control.times import rfc3339
from outbox.errors import NoAnswerError, NotFoundError, ProbeError
from outbox.ids import DeliveryId, RequestedTestId, SubscriptionId
from outbox.recording.arguments import checked_type
from outbox.recording.payload import encode
from outbox.recording.record import Outbox

__all__ = [
    "DEFAULT_TYPE", "MOST_A_MINUTE", "AnsweredTest", "ReceivedResponse", "RequestedTest", "SentRequest", "ask",
    "json_of_answer", "read", "why_unanswered",
]  # fmt: skip

DEFAULT_TYPE = "outbox.test"
DEFAULT_DATA: dict[str, Any] = {"test": True}
MOST_A_MINUTE = 30
"""How many test messages may go to one subscription in a minute."""
_KEPT_CHARACTERS = 16_384  # of the bodies of request and response, each


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """The request as it went out; of headers that are not known to be harmless the names only."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedResponse:
    """What came back, and the beginning of its body; of cookies the names only."""

    status_line: str | None
    headers: tuple[tuple[str, str], ...]
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredTest:
    """What came of a test message.

    `ok`: the answer was 2xx. `sent`: a byte of the request went out. `outcome` is one word, as in the history, or
    `refused` where it was not even tried; then `error` says why. `hindrance` says why deliveries wait, if they do: a
    test goes out all the same. `findings` say what it means and what mends it. `delivery_id` is its attempt's in the
    history, None where there is none. Credentials are in none of it.
    """

    delivery_id: DeliveryId | None
    at: datetime
    ok: bool
    sent: bool
    outcome: str
    status: int | None
    milliseconds: int
    error: str | None
    address: str | None
    hindrance: Finding | None
    request: SentRequest | None
    response: ReceivedResponse | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedTest:
    """A test message that was asked for. A relay takes it before `expires_at`, or nobody does."""

    id: RequestedTestId
    subscription_id: SubscriptionId
    type: str
    requested_at: datetime
    expires_at: datetime
    taken_at: datetime | None
    answer: AnsweredTest | None


_COLUMNS = "r.id, r.subscription_id, r.type, r.requested_at, r.expires_at, r.taken_at, r.answer"
_SUBSCRIPTION = text(f"""
select s.id, (select count(*) from outbox.test_requests r where r.subscription_id = s.id
              and r.requested_at > clock_timestamp() - interval '1 minute') as recent
from outbox.subscriptions s where s.id = :id and s.removed_at is null and {own("s.tenant")}
""")  # noqa: S608 - constants
_ASK = text(f"""
insert into outbox.test_requests as r (subscription_id, type, payload) values (:id, :type, :payload)
returning {_COLUMNS}
""")  # noqa: S608
_READ = text(f"""
select {_COLUMNS} from outbox.test_requests r left join outbox.subscriptions s on s.id = r.subscription_id
where r.id = :id and {own("s.tenant")}
""")  # noqa: S608


def ask(
    connection: Connection,
    tenant: str | None,
    subscription_id: UUID | str,
    *,
    type: str = DEFAULT_TYPE,  # noqa: A002 - the event's type is called type everywhere
    data: object = None,
) -> RequestedTest:
    """Ask for a test message; a relay sees it once this transaction has committed.

    Args:
        connection: in a transaction.
        tenant: who asks; None is the operator.
        subscription_id: `sub_…` or the UUID; it may be paused or disabled.
        type: of the message, dotted words as for `record()`.
        data: as for `record()`; by default an object that says it is a test.

    Raises:
        NotFoundError: no such subscription of this tenant, or it is removed.
        RecordError: type or data was refused.
        ProbeError: enough test messages were asked for in the last minute.
    """
    uuid, name = SubscriptionId.of(subscription_id, "subscription_id"), checked_type(type)
    payload = encode(DEFAULT_DATA if data is None else data, Outbox().max_payload_bytes)
    row = connection.execute(_SUBSCRIPTION, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"subscription: no {uuid}, or it is removed")
    if row.recent >= MOST_A_MINUTE:
        raise ProbeError(f"test: {row.recent} test messages to {uuid} in the last minute; wait for the next one")
    return _requested(connection.execute(_ASK, {"id": uuid, "type": name, "payload": payload}).one())


def read(connection: Connection, tenant: str | None, test_id: UUID | str) -> RequestedTest:
    """Return a test message that was asked for, with its answer where there is one; they are kept for a day.

    Raises NotFoundError when there is none, or its subscription is another tenant's.
    """
    uuid = RequestedTestId.of(test_id, "test_id")
    row = connection.execute(_READ, {"id": uuid, "asking": tenant}).one_or_none()
    if row is None:
        raise NotFoundError(f"test: no {uuid}; never asked for, or more than a day ago")
    return _requested(row)


_RELAYS = text("select count(*) from outbox.relays where seen_at > clock_timestamp() - interval '15 seconds'")
_WHO_RUNS = "`relay status` and the table outbox.relays show who runs"


def why_unanswered(
    connection: Connection, tenant: str | None, requested: RequestedTest, seconds: float
) -> NoAnswerError:
    """Return the error for a test message that has no answer after so long: what is known, and where to look."""
    known = read(connection, tenant, requested.id)
    waited = f"no answer to {known.id} within {seconds:g} s"
    if known.taken_at is not None:
        taken = f"a relay took it at {rfc3339(known.taken_at)}"
        return NoAnswerError(f"test: {waited}; {taken} and may still be waiting for the endpoint: read it again later")
    running: int = connection.execute(_RELAYS).scalar_one()
    if not running:
        return NoAnswerError(f"test: {waited}: no relay runs on this database; start `relay run`. {_WHO_RUNS}")
    return NoAnswerError(f"test: {waited}: none of the {running} relay processes took it. {_WHO_RUNS}")


def _requested(row: Any) -> RequestedTest:
    return RequestedTest(
        id=RequestedTestId.of(row.id),
        subscription_id=SubscriptionId.of(row.subscription_id),
        type=row.type,
        requested_at=row.requested_at,
        expires_at=row.expires_at,
        taken_at=row.taken_at,
        answer=None if row.answer is None else _answer_of(json.loads(row.answer)),
    )


def json_of_answer(answer: AnsweredTest) -> str:
    """Return an answer as the JSON text that `read` understands; long bodies are cut."""
    plain = asdict(answer)
    for part, body in (("request", "body"), ("response", "excerpt")):
        if plain[part] is not None:
            plain[part][body] = plain[part][body][:_KEPT_CHARACTERS]
    for finding in filter(None, (plain["hindrance"], *plain["findings"])):
        del finding["action"]  # there is none, and who reads it may run an older version
    return json.dumps(plain, default=lambda value: value.isoformat() if isinstance(value, datetime) else str(value))


def _answer_of(plain: dict[str, Any]) -> AnsweredTest:
    request, response = plain["request"], plain["response"]
    return AnsweredTest(
        **plain
        | {
            "delivery_id": plain["delivery_id"] and DeliveryId.of(plain["delivery_id"]),
            "at": datetime.fromisoformat(plain["at"]),
            "hindrance": plain["hindrance"] and _finding_of(plain["hindrance"]),
            "request": request and SentRequest(**request | {"headers": _pairs(request["headers"])}),
            "response": response and ReceivedResponse(**response | {"headers": _pairs(response["headers"])}),
            "findings": tuple(map(_finding_of, plain["findings"])),
        }
    )


def _pairs(listed: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in listed)


def _finding_of(plain: dict[str, Any]) -> Finding:
    return Finding(**plain | {"subject": SubscriptionId.of(plain["subject"])})
