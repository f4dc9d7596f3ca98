"""Outbox in Django: record in `transaction.atomic()`, migrate by `manage.py migrate`, look at it in the admin.

`outbox.record(django.db.connection, …)` needs nothing of this. With "outbox.django" in INSTALLED_APPS, `manage.py
migrate` keeps the schema `outbox`, `manage.py check` looks at it, the admin shows it, and `manage.py relay …` runs a
relay on the database of the settings. Importing this package loads Django.
"""

from outbox.django.bridge import connection
from outbox.django.recording import record

__all__ = ["connection", "record"]
