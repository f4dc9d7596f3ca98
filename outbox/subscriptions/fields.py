"""A subscription's fields, each declared once: what it may be told (`Settings`, `Changes`), and what is read of it.

A key of the TypedDicts is a field, and its `Field` says all the rest: the column or secret, the check, the default, the
flags, the documentation. A new field is one key here, one line in `Subscription`, and a migration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict

from sqlalchemy import Integer, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from outbox._patterns import check_patterns
from outbox.secret import NeverPickled
from outbox.signing.verify import public_key
from outbox.subscriptions import checks, value_checks
from outbox.subscriptions.credential_fields import CredentialSettings
from outbox.subscriptions.declaration import REQUIRED, Field, Flag, fields_in, none_or, number, numbers, pair, words
from outbox.subscriptions.filters.values import in_json
from outbox.subscriptions.flow_fields import FlowSettings

__all__ = [
    "COLUMNS",
    "DEFAULT_SCHEDULE_SECONDS",
    "FIELDS",
    "SECRETS",
    "Changes",
    "NewSubscription",
    "Settings",
    "Subscription",
    "check_fields",
]

DEFAULT_SCHEDULE_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)


class _Target(TypedDict, total=False):
    """Where to send which events: what every subscription has."""

    url: Annotated[
        str,
        Field(
            column=Text(),
            check=checks.check_url,
            default=REQUIRED,
            constraint="url ~ '^https?://' and octet_length(url) <= 8000",
            flags=(Flag(metavar="URL", help="Where to send; also what is under way."),),
            meaning="Where to send, https://…; http:// only where the relay allows it.",
        ),
    ]
    types: Annotated[
        Sequence[str],
        Field(
            column=ARRAY(Text),
            check=check_patterns,
            default=REQUIRED,
            constraint="cardinality(types) between 1 and 200",
            flags=(Flag(metavar="TYPE,TYPE…", from_text=words, help="All types it gets from now on."),),
            meaning="Which events: 1 to 200 patterns, each an exact type, a prefix and `.*`, or `*`.",
        ),
    ]


class _Basics(TypedDict, total=False):
    """What has nothing to do with how events flow."""

    name: Annotated[
        str | None,
        Field(
            column=Text(),
            check=checks.check_name,
            constraint=f"name ~ '^{checks.NAME}$'",
            flags=(Flag(metavar="NAME", from_text=none_or(str), help="A stable name of its own, or none."),),
            meaning="A name that stays, unique among what its tenant has: 1 to 64 letters, digits, `.`, `_` and `-`."
            " Commands take it in place of the id, and a file of subscriptions knows it by that.",
        ),
    ]
    description: Annotated[
        str | None,
        Field(
            column=Text(),
            check=value_checks.text(2048),
            default="",
            flags=(Flag(metavar="TEXT", help="For people; at most 2 kB."),),
            meaning="Free text for people, at most 2 kB.",
        ),
    ]
    metadata: Annotated[
        Mapping[str, str] | None,
        Field(
            column=JSONB(),
            check=checks.check_metadata,
            default={},
            constraint="jsonb_typeof(metadata) = 'object'",
            flags=(Flag(metavar="NAME=VALUE", from_text=pair, repeatable=True, help="For programs; repeatable."),),
            meaning="Text to text for programs, at most 8 kB as JSON.",
        ),
    ]
    timeout_seconds: Annotated[
        int | None,
        Field(
            column=Integer(),
            check=value_checks.whole_number(1, 300, of="seconds"),
            default=15,
            constraint="timeout_seconds between 1 and 300",
            flags=(Flag(metavar="N", from_text=number, help="Of one attempt, 1 to 300."),),
            meaning="How long one attempt may take, 1 to 300.",
        ),
    ]
    schedule_seconds: Annotated[
        Sequence[int] | None,
        Field(
            column=ARRAY(Integer),
            check=checks.check_delays,
            default=DEFAULT_SCHEDULE_SECONDS,
            default_words="75 hours",
            constraint="cardinality(schedule_seconds) <= 20"
            " and 0 <= all (schedule_seconds) and 604800 >= all (schedule_seconds)"
            " and array_position(schedule_seconds, null) is null",
            flags=(
                Flag(
                    metavar="N,N,…",
                    from_text=numbers("seconds", "5,300,1800"),
                    help="Delays after failures, or none.",
                ),
            ),
            meaning="0 to 20 delays, one after each failure; an empty list is one attempt.",
        ),
    ]
    final_statuses: Annotated[
        Sequence[int] | None,
        Field(
            column=ARRAY(SmallInteger),
            check=checks.check_final_statuses,
            default=(),
            default_words="none",
            constraint="cardinality(final_statuses) <= 100"
            " and 400 <= all (final_statuses) and 499 >= all (final_statuses)"
            " and array_position(final_statuses, null) is null and not final_statuses && '{408,410,425,429}'",
            flags=(
                Flag(
                    metavar="N,N,…",
                    from_text=numbers("statuses", "400,413,422"),
                    help="4xx answers that are not tried again, or none.",
                ),
            ),
            meaning="Answers after which a delivery is a dead letter at once, such as 400, 413, 422: of 400 to 499,"
            " without 408, 410, 425 and 429. Name none that the receiver may give while it is deployed.",
        ),
    ]


class Settings(_Basics, FlowSettings, CredentialSettings, total=False):
    """What `add` and `update` may be told of a subscription; None is the default."""


class Changes(_Target, Settings, total=False):
    """What `update` may be told of a subscription; None puts a field of `Settings` back to its default."""


FIELDS = fields_in(_Target) + fields_in(Settings)
COLUMNS = tuple(one for one in FIELDS if not one.is_secret)
SECRETS = tuple(one for one in FIELDS if one.is_secret)


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """A subscription as it was read. `id` is text (`sub_…`), times are aware; it never holds secrets.

    Of `headers` it has the names; `authentication`, `tls` and `format_secret` tell in words what there is, '' without.
    `public_keys` are those of Ed25519 signatures (`whpk_…`), newest first; () of other keys.
    Of a `url` that is a credential itself, such as a Slack webhook's, the secret part is `***`.
    `managed_by` is the manager that a file of subscriptions names, of those which such a file made.
    `held_until` is when the endpoint's last Retry-After ends; it may be over. Paused with `drops_while_paused`, it
    matches no event; not paused, that means nothing.
    """

    id: str
    tenant: str
    url: str
    types: tuple[str, ...]
    name: str | None
    managed_by: str | None
    description: str
    metadata: Mapping[str, str]
    timeout_seconds: int
    schedule_seconds: tuple[int, ...]
    scheme: str
    public_keys: tuple[str, ...]
    headers: tuple[str, ...]
    authentication: str
    tls: str
    format: str
    format_settings: Mapping[str, Any]
    format_secret: str
    final_statuses: tuple[int, ...]
    transformation: str | None
    filter: Mapping[str, Any] | None
    rate_limit: str | None
    rate_burst: int | None
    max_in_flight: int | None
    ordered: bool
    order_policy: str
    batch_events: int | None
    batch_milliseconds: int
    recovery_seconds: int
    paused_at: datetime | None
    drops_while_paused: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    held_until: datetime | None
    removed_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def state(self) -> Literal["active", "paused", "disabled", "removed"]:
        """Return what it does now; what is disabled may be paused too."""
        if self.removed_at or self.disabled_at:
            return "removed" if self.removed_at else "disabled"
        return "paused" if self.paused_at else "active"

    def to_dict(self) -> dict[str, Any]:
        """Return id, state and every field as JSON has them: lists for tuples, times as RFC 3339 text in UTC.

        Of a NewSubscription that is with its secret: it is meant for whoever receives the webhooks, this once.
        """
        values = {one.name: _json_value(getattr(self, one.name)) for one in fields(self)}
        return {"id": self.id, "state": self.state, **values}


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, Mapping):
        return in_json(dict(value))
    return [*value] if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class NewSubscription(NeverPickled, Subscription):
    """A subscription together with its signing secret, which is handed out this once; repr hides it.

    Where an answer of your API is declared as this type, the secret is in it; declared as Subscription, it is not.
    """

    secret: str = field(repr=False)

    @property
    def public_key(self) -> str:
        """The `whpk_…` that belongs to an Ed25519 secret; '' for every other."""
        return public_key(self.secret, self.scheme) if self.secret else ""


def check_fields(**given: object) -> dict[str, Any]:
    """Return what to store of each field; raises SubscriptionError that names the first field refused."""
    return {one.name: one.check_value(given[one.name]) for one in FIELDS if one.name in given}
