"""The application that INSTALLED_APPS names by "outbox.django"."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate

from outbox.django.checks import check_database, check_engines
from outbox.django.recording import LABEL

__all__ = ["OutboxConfig"]


class OutboxConfig(AppConfig):
    """Its label is outbox_relay: an application of yours may well be named outbox."""

    name = "outbox.django"
    label = LABEL
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and what makes the schema where migrations are switched off."""
        from outbox.django.schema import migrate_without_migrations

        checks.register(check_engines, checks.Tags.models)
        checks.register(check_database, checks.Tags.database)
        post_migrate.connect(migrate_without_migrations, sender=self, dispatch_uid=LABEL)
