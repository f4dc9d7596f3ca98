"""What `manage.py check` says of the outbox; of the schema only with `--database default`, which asks the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name
from django.db import connections, router
from django.db.utils import OperationalError
from sqlalchemy.exc import DBAPIError

from outbox.django.bridge import connection
from outbox.django.recording import LABEL
from outbox.errors import OutboxError
from outbox.schema import runner

__all__ = ["check_database", "check_engines", "may_hold_outbox"]


def may_hold_outbox(alias: str) -> bool:
    """Tell whether this database is PostgreSQL, and routers let this application's migrations run there."""
    return bool(connections[alias].vendor == "postgresql" and router.allow_migrate(alias, LABEL))


def check_engines(**_given: Any) -> list[CheckMessage]:
    """Warn of settings in which no database can hold the outbox."""
    if any(may_hold_outbox(alias) for alias in connections):
        return []
    return [
        Warning(
            "no database of settings.DATABASES can hold the outbox",
            hint="It lives in PostgreSQL: set ENGINE to django.db.backends.postgresql, and let DATABASE_ROUTERS allow "
            f"the migrations of {LABEL} there.",
            id=f"{LABEL}.W001",
        )
    ]


def check_database(databases: list[str] | None = None, **_given: Any) -> list[CheckMessage]:
    """Warn of a schema that is missing, older or newer; no error, which would stop the `migrate` that mends it."""
    return [message for alias in databases or () if may_hold_outbox(alias) for message in _findings(alias)]


def _findings(alias: str) -> Iterator[CheckMessage]:
    hint = "Run `manage.py migrate`."
    try:
        with connection(alias) as ours:
            runner.require_current(ours)
    except OutboxError as error:
        message = str(error).replace("`relay migrate`", "`manage.py migrate`")
        yield Warning(f"database {alias!r}: {message}", hint=hint, id=f"{LABEL}.W002")
    except (OperationalError, DBAPIError) as error:
        reason = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        yield Warning(f"database {alias!r}: cannot be asked for its schema: {reason}", id=f"{LABEL}.W003")
