"""The Django of the tests: the settings of examples/django_shop, and databases that a test chooses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
import sqlalchemy
from django.conf import settings
from sqlalchemy.engine import make_url

from examples.django_shop import settings as shop_settings
from tests.support import databases

__all__ = ["begin", "forget_connections", "on_database", "scalars", "site_database"]


def begin() -> None:
    """Configure Django, once a process."""
    if not settings.configured:
        settings.configure(**{name: value for name, value in vars(shop_settings).items() if name.isupper()})
        django.setup()


@contextmanager
def site_database(server_url: str) -> Iterator[str]:
    """Yield the URL of a database that `manage.py migrate` has made, with the shop's tables, for several tests."""
    from django.core.management import call_command

    with databases.database(server_url) as url, on_database(url):
        call_command("migrate", verbosity=0)
        yield url


@contextmanager
def on_database(url: str, alias: str = "default", **more: Any) -> Iterator[Any]:
    """Let Django's connection of this name lead to this database; yield it."""
    from django.db import connections

    before = connections.settings.get(alias)
    parts = make_url(url)
    connections.settings[alias] = {
        **connections.settings["default"],
        "NAME": parts.database,
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.host or parts.query.get("host", ""),
        "PORT": parts.port or "",
        **more,
    }
    try:
        yield _fresh(alias)
    finally:
        _fresh(alias)
        del connections[alias]
        del connections.settings[alias]
        if before is not None:
            connections.settings[alias] = before


def _fresh(alias: str) -> Any:
    from django.db import connections

    connections[alias].close()
    del connections[alias]
    return connections[alias]


def forget_connections() -> None:
    """Close this thread's connections: the thread may go on and serve a test with another database."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        connection.close()
        del connections[connection.alias]


def scalars(url: str, statement: str) -> list[Any]:
    """Return the first column of what another session sees."""
    with databases.engine_on(url) as engine, engine.connect() as connection:
        return [*connection.execute(sqlalchemy.text(statement)).scalars()]
