"""The fields that say whether, in which order, how fast and in what shape events go out; declared as in fields.py."""

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from sqlalchemy import Boolean, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB

from outbox.formats import FORMATS
from outbox.secret import Secret
from outbox.subscriptions import checks, value_checks
from outbox.subscriptions.declaration import Field, Flag, json_object, none_or, number, pair, yes_or_no
from outbox.subscriptions.json_text import JSON_TEXT
from outbox.subscriptions.rates import check_rate

__all__ = ["FlowSettings"]


class FlowSettings(TypedDict, total=False):
    """How events flow to a subscription (docs/flow.md)."""

    filter: Annotated[
        Mapping[str, Any] | None,
        Field(
            column=JSON_TEXT,
            check=checks.check_filter,
            constraint="octet_length(filter) <= 16384 and json_typeof(filter::json) = 'object'",
            flags=(Flag(metavar="JSON", from_text=json_object, help="Which of these events: JSON, @FILE, or none."),),
            meaning="Which events of these types, by what is in them: conditions on type, key and payload, such as"
            ' `{"payload": {"total": {"$gte": 100}}}`; at most 200 nodes, 16 deep. None is every event.',
        ),
    ]
    format: Annotated[
        str | None,
        Field(
            column=Text(),
            check=checks.check_format,
            default="standard",
            constraint="format ~ '^[a-z0-9][a-z0-9-]{0,31}$'",
            flags=(Flag(metavar="FORMAT", help="Shape of the body: relay subscriptions formats lists them."),),
            meaning=f"The shape of the body: {', '.join(FORMATS)}.",
        ),
    ]
    format_settings: Annotated[
        Mapping[str, Any] | None,
        Field(
            column=JSONB(),
            check=checks.check_format_settings,
            default={},
            constraint="jsonb_typeof(format_settings) = 'object'",
            flags=(Flag(metavar="NAME=VALUE", from_text=pair, repeatable=True, help="For the format; repeatable."),),
            meaning="What the format can be told, by name; `relay subscriptions formats` lists it.",
        ),
    ]
    format_secret: Annotated[
        str | Secret | None,
        Field(
            check=checks.format_secret_to_store,
            flags=(Flag(name="format_secret_file", file=True, help="PagerDuty's routing key, from a file."),),
            no_flag="Forget the format's secret.",
            meaning="The secret that a format puts into the body, PagerDuty's routing key, kept as a secret.",
        ),
    ]
    transformation: Annotated[
        str | None,
        Field(
            column=Text(),
            check=checks.check_transformation,
            constraint="octet_length(transformation) between 1 and 4096",
            flags=(
                Flag(metavar="EXPRESSION", help="JMESPath over the event that makes the data to send; '' for none."),
            ),
            meaning="An expression in JMESPath over id, type, timestamp, tenant, key and data of an event; its result"
            " is sent in place of the data. At most 4,096 bytes; None sends the data as it was recorded.",
        ),
    ]
    rate_limit: Annotated[
        str | None,
        Field(
            column=Text(),
            check=check_rate,
            constraint="rate_limit ~ '^[1-9][0-9]{0,4}/(s|min|h)$'",
            flags=(Flag(metavar="N/s|N/min|N/h", from_text=none_or(str), help="Requests at most, or none."),),
            meaning="How many requests a second, a minute or an hour it gets at most, over all relays: `20/s`, `90/min`"
            " or `500/h`. Without it, as many as it takes.",
        ),
    ]
    rate_burst: Annotated[
        int | None,
        Field(
            column=Integer(),
            check=value_checks.whole_number(1, 10_000),
            constraint="rate_burst between 1 and 10000",
            flags=(Flag(metavar="N", from_text=none_or(number), help="At once after a pause, or none."),),
            meaning="With a rate_limit, how many requests may go out at once after a pause, 1 to 10000. Without it,"
            " what the limit allows in a tenth of a second, and at least one.",
        ),
    ]
    max_in_flight: Annotated[
        int | None,
        Field(
            column=Integer(),
            check=value_checks.whole_number(1, 1000),
            constraint="max_in_flight between 1 and 1000",
            flags=(Flag(metavar="N", from_text=none_or(number), help="Requests under way at most, or none."),),
            meaning="How many requests it has under way at most, over all relays, 1 to 1000. Without it, what each"
            " relay process finds out, up to its own limit.",
        ),
    ]
    ordered: Annotated[
        bool | None,
        Field(
            column=Boolean(),
            check=value_checks.check_bool,
            default=False,
            default_words="false",
            flags=(Flag(metavar="true|false", from_text=yes_or_no, help="Send the events of each key one by one."),),
            meaning="Whether events of one key go one at a time, in the order in which they were recorded; those"
            " without a key have none. Only writers that serialise on the key get that order: see docs/flow/order.md.",
        ),
    ]
    order_policy: Annotated[
        str | None,
        Field(
            column=Text(),
            check=value_checks.one_of("block", "skip"),
            default="block",
            constraint="order_policy in ('block', 'skip')",
            flags=(Flag(metavar="block|skip", help="When the schedule ends in an ordered lane."),),
            meaning="What an ordered delivery does when its schedule ends: `block` tries it again with the last delay"
            " for ever, and what follows of its key waits; `skip` makes it a dead letter, and the next one goes.",
        ),
    ]
    batch_events: Annotated[
        int | None,
        Field(
            column=Integer(),
            check=value_checks.whole_number(2, 1000),
            constraint="batch_events between 2 and 1000",
            flags=(Flag(metavar="N", from_text=none_or(number), help="Events in one request at most, or none."),),
            meaning="How many events go in one signed request at most, 2 to 1000, as a JSON array that is acknowledged"
            " as a whole. Without it, each goes alone. Not with `ordered`, and only in formats that have batches.",
        ),
    ]
    batch_milliseconds: Annotated[
        int | None,
        Field(
            column=Integer(),
            check=value_checks.whole_number(0, 60_000, of="milliseconds"),
            default=1000,
            default_words="1000",
            constraint="batch_milliseconds between 0 and 60000",
            flags=(Flag(metavar="N", from_text=number, help="How long a batch waits for more events."),),
            meaning="With `batch_events`, how long the first event of a batch waits for others, 0 to 60000"
            " milliseconds. A batch that is full goes at once.",
        ),
    ]
    recovery_seconds: Annotated[
        int | None,
        Field(
            column=Integer(),
            check=checks.check_recovery,
            default=0,
            constraint="recovery_seconds = 0 or recovery_seconds between 60 and 604800",
            flags=(Flag(metavar="N", from_text=number, help="Disabled for only failing: try so often; 0 is never."),),
            default_words="0",
            meaning="Once it was disabled because it had only failed for days: try one delivery every so many seconds,"
            " 60 to 604800, and enable it again by a success. 0 is never: a person resumes it.",
        ),
    ]
