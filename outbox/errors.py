"""Every error that outbox raises on purpose. Each message names the field and the fix, and holds no secret.

OutboxError
├── RecordError              record() refused the event; no SQL was sent, the caller's transaction stays usable
│   ├── PayloadError         the data has no exact JSON form (the message names the path)
│   │   ├── PayloadTooLarge
│   │   └── PayloadInvalid   the data is not what the catalogue declares for its type
│   ├── TransactionError     there is no transaction that could carry the event
│   └── TargetError          the first argument is no session or connection that this takes (also an ArgumentError)
├── CaptureError             capture() refused an argument, or a statement that it does not see
├── SubscriptionError        a subscription's field was refused
├── ActorError               act_as() refused a name, or no transaction would carry it
├── NotFoundError            no such row, for this tenant
├── BusyError                another transaction has what this one needs, for too long; ask again
├── FilterError              a filter or a cursor of a list was refused
├── ByHandError              a delivery is not in a state in which this can be done to it
├── ReplayError              a replay was refused; nothing was changed
├── ProbeError               a test message was refused before anything was sent
│   └── NoAnswerError        no relay answered a test message in time; the message says where to look
├── CatalogueError           a push was refused: it would break receivers; nothing was written
├── SchemaError              the outbox schema is missing, older, newer, or was changed by hand
├── ArgumentError            a call is wrong, whatever was received (also a ValueError and a TypeError)
├── SignatureError           a webhook does not verify
├── InboxError               a received request is not taken; it knows the status to answer
└── BodyError                a verified body is no JSON that can be read (also a ValueError)
"""

__all__ = [
    "ActorError",
    "ArgumentError",
    "BodyError",
    "BusyError",
    "ByHandError",
    "CaptureError",
    "CatalogueError",
    "FilterError",
    "InboxError",
    "NoAnswerError",
    "NotFoundError",
    "OutboxError",
    "PayloadError",
    "PayloadInvalid",
    "PayloadTooLarge",
    "ProbeError",
    "RecordError",
    "ReplayError",
    "SchemaError",
    "SignatureError",
    "SubscriptionError",
    "TargetError",
    "TransactionError",
]


class OutboxError(Exception):
    """Base of every expected error of this library."""


class RecordError(OutboxError):
    """`record()` refused an event before any SQL; the caller's transaction stays usable."""


class PayloadError(RecordError):
    """The event's data cannot be stored as JSON; the message names the path inside it."""


class PayloadTooLarge(PayloadError):  # noqa: N818 - reads as what happened; it is the name users meet
    """The encoded data is larger than `max_payload_bytes`."""


class PayloadInvalid(PayloadError):  # noqa: N818 - reads as what happened
    """The data is not what the catalogue declares for its event type; the message names each place, and no value."""


class TransactionError(RecordError):
    """No transaction could carry the event: autocommit, read-only, ended, or failed."""


class ArgumentError(OutboxError, ValueError, TypeError):
    """An argument of the call is wrong: a mistake in the program or its settings, and in nothing that was received."""


class TargetError(RecordError, ArgumentError):
    """The first argument is no session or connection that this function takes; the message says what to pass."""


class CaptureError(OutboxError):
    """`capture()` refused an argument, or a statement that changes captured rows unseen; the statement did not run."""


class SubscriptionError(OutboxError):
    """A field of a subscription was refused; nothing was written."""


class ActorError(OutboxError):
    """An actor's name was refused, or no transaction would carry it."""


class NotFoundError(OutboxError):
    """No such subscription, event, delivery or dead letter for this tenant."""


class BusyError(OutboxError):
    """Another transaction has what this one needs, for too long; nothing was written. Ask again in a moment."""


class FilterError(OutboxError):
    """A filter or a cursor was refused; the message names it."""


class ByHandError(OutboxError):
    """A delivery is not in a state in which this can be done to it; nothing was changed. The message says what can."""


class ReplayError(OutboxError):
    """A replay was refused; nothing was changed. The message says why."""


class ProbeError(OutboxError):
    """A test message was refused before anything was sent."""


class NoAnswerError(ProbeError):
    """A test message that was asked for has no answer in time; the message says what is known and where to look."""


class CatalogueError(OutboxError):
    """A catalogue was not pushed, since it would break receivers; nothing was written. The message says what would."""


class SchemaError(OutboxError):
    """The database's outbox schema is missing, older or newer than this code, or was changed by hand."""


class SignatureError(OutboxError):
    """A webhook does not verify. Answer 401 and drop it."""


class BodyError(OutboxError, ValueError):
    """The body of a verified webhook is no JSON that can be read here. Answer 400 and drop it."""


class InboxError(OutboxError):
    """A received request is not taken. `status` is what to answer; the text is for the log, not for the sender."""

    status: int = 500
