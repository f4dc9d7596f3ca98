"""Test an application that records events, and a receiver of webhooks.

What was recorded: `recorded`, `assert_recorded`, `nothing_recorded`. What is delivered: `drain`, in process and without
waiting, and `WebhookReceiver`. A PostgreSQL to test on: `postgres`, `database`, `install_schema`, `empty`. A receiver
under test: `signed_request`. The pytest plugin `outbox_relay` has fixtures of these; nothing here needs pytest.

Nothing of `outbox` imports this package, and it imports the relay only inside the functions that deliver.
"""

from outbox.testing.databases import database, empty, install_schema, postgres
from outbox.testing.draining import DrainedAttempt, DrainedDelivery, drain
from outbox.testing.receiver import Answer, ReceivedRequest, WebhookReceiver
from outbox.testing.seen import RecordedEvent, assert_recorded, nothing_recorded, recorded
from outbox.testing.signed import SignedRequest, signed_request

__all__ = [
    "Answer",
    "DrainedAttempt",
    "DrainedDelivery",
    "ReceivedRequest",
    "RecordedEvent",
    "SignedRequest",
    "WebhookReceiver",
    "assert_recorded",
    "database",
    "drain",
    "empty",
    "install_schema",
    "nothing_recorded",
    "postgres",
    "recorded",
    "signed_request",
]
