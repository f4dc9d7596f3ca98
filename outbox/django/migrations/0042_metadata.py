"""The schema outbox at version 42."""

from outbox.django.schema import migration_to

Migration = migration_to(__name__)
