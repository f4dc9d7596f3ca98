"""The outbox's tables as models to read: Django makes, changes and migrates none of them.

They are for lists and pages. What changes something is done by the functions of `outbox`. A subscription has its URL as
it may be shown, and no secret.
"""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models

from outbox.errors import ArgumentError
from outbox.ids import text_id

__all__ = ["Attempt", "DeadLetter", "Delivery", "Event", "Subscription"]

_READ_ONLY = (
    "models: those of outbox.django are for reading; record(), subscribe() and the other functions of outbox write"
)


class _Rows(models.QuerySet):
    """Rows that are only read."""

    def _refuse(self, *_args: Any, **_given: Any) -> NoReturn:
        raise ArgumentError(_READ_ONLY)

    create = get_or_create = update_or_create = bulk_create = bulk_update = update = delete = _refuse


class _Row(models.Model):
    """One that is only read."""

    objects = _Rows.as_manager()

    class Meta:
        abstract = True

    def save(self, *_args: Any, **_given: Any) -> NoReturn:
        """Refuse."""
        raise ArgumentError(_READ_ONLY)

    def delete(self, *_args: Any, **_given: Any) -> NoReturn:
        """Refuse."""
        raise ArgumentError(_READ_ONLY)


class _FiniteTime(models.DateTimeField):
    """A time that may be infinity, for which Python has none: it is None."""

    def select_format(self, _compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return f"nullif({sql}, 'infinity')", params


class _Joined(models.TextField):
    """An array of text, as one text."""

    def select_format(self, _compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return f"array_to_string({sql}, ', ')", params


class Event(_Row):
    """An event that was recorded."""

    seq = models.BigIntegerField(primary_key=True)
    uuid = models.UUIDField(db_column="id")
    tenant = models.TextField()
    type = models.TextField()
    key = models.TextField(null=True)
    payload = models.TextField()
    priority = models.SmallIntegerField()
    metadata = models.JSONField(null=True)
    recorded_at = models.DateTimeField()
    available_at = models.DateTimeField(null=True)

    class Meta:  # noqa: D106
        managed = False
        db_table = '"outbox"."events"'
        default_permissions = ("view",)
        ordering = ("-seq",)

    @property
    def text_id(self) -> str:
        """`evt_…`, the webhook-id."""
        return text_id("evt", self.uuid)

    def __str__(self) -> str:
        return self.text_id


class Subscription(_Row):
    """Who gets which events where."""

    id = models.UUIDField(primary_key=True)
    name = models.TextField(null=True)
    tenant = models.TextField()
    shown_url = models.TextField("URL", help_text="What of it may be a credential is redacted.")
    types = _Joined()
    description = models.TextField()
    scheme = models.TextField()
    format = models.TextField()
    timeout_seconds = models.IntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    paused_at = models.DateTimeField(null=True)
    disabled_at = models.DateTimeField(null=True)
    disabled_reason = models.TextField(null=True)
    held_until = models.DateTimeField(null=True)
    removed_at = models.DateTimeField(null=True)

    class Meta:  # noqa: D106
        managed = False
        db_table = '"outbox"."subscriptions"'
        default_permissions = ("view",)
        permissions = (("pause_subscription", "Can pause and resume subscriptions"),)
        ordering = ("-id",)

    @property
    def text_id(self) -> str:
        """`sub_…`."""
        return text_id("sub", self.id)

    def __str__(self) -> str:
        return self.text_id


class Delivery(_Row):
    """One event for one subscription, outstanding; when it is done it is not here any more."""

    id = models.UUIDField(primary_key=True)
    event = models.ForeignKey(Event, models.DO_NOTHING, db_column="event_seq", db_constraint=False, related_name="+")
    subscription = models.ForeignKey(Subscription, models.DO_NOTHING, db_constraint=False, related_name="+")
    due_at = _FiniteTime(null=True, help_text="None: it waits for the delivery before it in its lane.")
    attempts = models.SmallIntegerField()
    lease = models.BigIntegerField(null=True)

    class Meta:  # noqa: D106
        managed = False
        db_table = '"outbox"."deliveries"'
        default_permissions = ("view",)
        permissions = (("retry_delivery", "Can retry deliveries now"),)
        ordering = ("-id",)
        verbose_name_plural = "deliveries"

    @property
    def text_id(self) -> str:
        """`dlv_…`."""
        return text_id("dlv", self.id)

    def __str__(self) -> str:
        return self.text_id


class DeadLetter(_Row):
    """A delivery that was given up, with the reason and its payload."""

    id = models.UUIDField(primary_key=True, db_column="delivery_id")
    event_seq = models.BigIntegerField()
    event_uuid = models.UUIDField(db_column="event_id")
    subscription = models.ForeignKey(Subscription, models.DO_NOTHING, db_constraint=False, null=True, related_name="+")
    tenant = models.TextField()
    type = models.TextField()
    key = models.TextField(null=True)
    payload = models.TextField(null=True)
    attempts = models.SmallIntegerField()
    reason = models.TextField()
    error = models.TextField(null=True)
    recorded_at = models.DateTimeField()
    died_at = models.DateTimeField()

    class Meta:  # noqa: D106
        managed = False
        db_table = '"outbox"."dead_letters"'
        default_permissions = ("view",)
        permissions = (("replay_deadletter", "Can replay dead letters"),)
        ordering = ("-died_at", "-id")
        verbose_name = "dead letter"

    @property
    def text_id(self) -> str:
        """`dlv_…`, of the delivery that it was."""
        return text_id("dlv", self.id)

    @property
    def event_text_id(self) -> str:
        """`evt_…`."""
        return text_id("evt", self.event_uuid)

    def __str__(self) -> str:
        return self.text_id


class Attempt(_Row):
    """One POST and what came of it."""

    pk = models.CompositePrimaryKey("delivery", "number")
    delivery = models.UUIDField(db_column="delivery_id")
    number = models.SmallIntegerField()
    event_seq = models.BigIntegerField(null=True)
    subscription = models.ForeignKey(Subscription, models.DO_NOTHING, db_constraint=False, related_name="+")
    at = models.DateTimeField()
    outcome = models.TextField()
    verdict = models.TextField()
    status = models.SmallIntegerField(null=True)
    milliseconds = models.IntegerField()
    error = models.TextField(null=True)

    class Meta:  # noqa: D106
        managed = False
        db_table = '"outbox"."attempts"'
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{text_id('dlv', self.delivery)} attempt {self.number}"
