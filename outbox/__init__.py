"""Reliable, signed webhooks for an application on PostgreSQL: what the application imports.

`record()` writes an event in the application's own transaction; the relay delivers it to every subscription that
matches; `capture()` records what sessions change, and `EventType` declares what the data of a type is. `subscribe()`
and `subscriptions` manage subscriptions; `events`, `deliveries`, `dead_letters` and `replays` show what became of
events, and mend it; `statistics` counts it; `request_test()` tries an endpoint, and `portal_url()` lets a customer
manage theirs. A receiver calls `verify()`, or receives into `outbox.inbox`.

Importing this package loads SQLAlchemy and the standard library only. It also registers listeners on every session, so
import it when the application starts, not during a flush.
"""

from outbox import catalogue, dead_letters, deliveries, events, replays, statistics, subscriptions
from outbox._actor import act_as
from outbox._portal import portal_url, revoke_portal_urls
from outbox._test_messages import await_test, read_test, request_test, wait_for_test
from outbox._version import __version__
from outbox.capturing import Capture, Change, capture
from outbox.catalogue.collection import Catalogue
from outbox.catalogue.event_type import EventType
from outbox.control.test_messages import AnsweredTest, RequestedTest
from outbox.errors import (
    ActorError,
    ArgumentError,
    BodyError,
    BusyError,
    ByHandError,
    CaptureError,
    CatalogueError,
    FilterError,
    InboxError,
    NoAnswerError,
    NotFoundError,
    OutboxError,
    PayloadError,
    PayloadInvalid,
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
from outbox.recording.current import current_session, sessions_from, use_session
from outbox.recording.event import Event
from outbox.recording.payload import RawJSON
from outbox.recording.record import Outbox, arecord, emit, record
from outbox.recording.refusals import refused_events
from outbox.recording.silence import silenced
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
    "BusyError",
    "ByHandError",
    "Capture",
    "CaptureError",
    "Catalogue",
    "CatalogueError",
    "Change",
    "Event",
    "EventType",
    "FilterError",
    "InboxError",
    "NoAnswerError",
    "NotFoundError",
    "OAuth2ClientCredentials",
    "Outbox",
    "OutboxError",
    "PayloadError",
    "PayloadInvalid",
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
    "capture",
    "catalogue",
    "current_session",
    "dead_letters",
    "declare_scheme",
    "deliveries",
    "emit",
    "events",
    "events_table",
    "portal_url",
    "read_test",
    "record",
    "refused_events",
    "replays",
    "request_test",
    "revoke_portal_urls",
    "sessions_from",
    "sign",
    "signed_headers",
    "silenced",
    "statistics",
    "subscribe",
    "subscriptions",
    "use_session",
    "verify",
    "wait_for_test",
]
