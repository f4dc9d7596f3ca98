"""The schema outbox at version 44."""

from outbox.django.schema import migration_to

Migration = migration_to(__name__)
