"""Reliable, signed webhooks for an application on PostgreSQL: what the application imports.

`record()` writes an event in the application's own transaction; the relay delivers it to every subscription that
matches. `subscribe()` and `subscriptions` manage subscriptions; `events`, `deliveries`, `dead_letters` and `replays`
show what became of events, and mend it; `statistics` counts it; `request_test()` tries an endpoint, and
`portal_url()` lets a customer manage theirs. A receiver calls `verify()`.

Importing this package loads SQLAlchemy and the standard library only. It also registers listeners on every session, so
import it when the application starts, not during a flush.
"""

from outbox import dead_letters, deliveries, events, replays, statistics, subscriptions
from outbox._actor import act_as
from outbox._portal import portal_url, revoke_portal_urls
from outbox._test_messages import await_test, read_test, request_test, wait_for_test
from outbox._version import __version__
from outbox.control.test_messages import AnsweredTest, RequestedTest
from outbox.errors import (
    ActorError,
    ArgumentError,
    BodyError,
    ByHandError,
    FilterError,
    NoAnswerError,
    NotFoundError,
    OutboxError,
    PayloadError,
    PayloadTooLarge,
    ProbeError,
    RecordError,
    ReplayError,
    SchemaError,
    SignatureError,
    SubscriptionError,
    TargetError,
    TransactionError,
)
from outbox.recording.bind import events_table
from outbox.recording.payload import RawJSON
from outbox.recording.record import Event, Outbox, arecord, record
from outbox.secret import Secret
from outbox.signing.schemes import SchemeDeclaration
from outbox.signing.schemes import declare as declare_scheme
from outbox.signing.verify import Webhook, sign, signed_headers, verify
from outbox.subscriptions import add as subscribe
from outbox.subscriptions.authentication import TLS, BasicAuth, BearerToken, OAuth2ClientCredentials
from outbox.subscriptions.checks import EVERY_TENANT
from outbox.subscriptions.endpoints import allow_endpoints

__all__ = [
    "EVERY_TENANT",
    "TLS",
    "ActorError",
    "AnsweredTest",
    "ArgumentError",
    "BasicAuth",
    "BearerToken",
    "BodyError",
    "ByHandError",
    "Event",
    "FilterError",
    "NoAnswerError",
    "NotFoundError",
    "OAuth2ClientCredentials",
    "Outbox",
    "OutboxError",
    "PayloadError",
    "PayloadTooLarge",
    "ProbeError",
    "RawJSON",
    "RecordError",
    "ReplayError",
    "RequestedTest",
    "SchemaError",
    "SchemeDeclaration",
    "Secret",
    "SignatureError",
    "SubscriptionError",
    "TargetError",
    "TransactionError",
    "Webhook",
    "__version__",
    "act_as",
    "allow_endpoints",
    "arecord",
    "await_test",
    "dead_letters",
    "declare_scheme",
    "deliveries",
    "events",
    "events_table",
    "portal_url",
    "read_test",
    "record",
    "replays",
    "request_test",
    "revoke_portal_urls",
    "sign",
    "signed_headers",
    "statistics",
    "subscribe",
    "subscriptions",
    "verify",
    "wait_for_test",
]
