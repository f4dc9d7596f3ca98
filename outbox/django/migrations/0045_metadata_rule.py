"""The schema outbox at version 45."""

from outbox.django.schema import migration_to

Migration = migration_to(__name__)
