"""`manage.py relay …`: the relay's command line on a database of settings.DATABASES."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any
from urllib.parse import quote, urlencode

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

__all__ = ["Command", "database_url"]

_URL_PARTS = ("user", "password", "dbname")


class Command(BaseCommand):
    """Runs `relay` with RELAY_DATABASE_URL set: no password stands on a command line, which others may read."""

    help = "Run a command of relay, such as `relay run` or `relay status`, on the database of the settings."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take our own option; what is left is relay's."""
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="a key of settings.DATABASES")
        parser.add_argument("words", nargs=argparse.REMAINDER, metavar="…", help="relay's command and its options")

    def run_from_argv(self, argv: list[str]) -> None:
        """Become the relay, so that signals and the exit code are its own."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for option in ("--settings", "--pythonpath", "--database"):
            parser.add_argument(option)
        given, words = parser.parse_known_args(argv[2:])
        try:
            environment = _environment(given.database or DEFAULT_DB_ALIAS)
        except CommandError as error:
            self.stderr.write(str(error))
            sys.exit(2)
        connections.close_all()
        os.execve(sys.executable, _program(words), environment)  # noqa: S606 - no shell is wanted

    def handle(self, *_args: Any, database: str, words: list[str], **_options: Any) -> None:
        """Run it and wait, for whoever uses call_command()."""
        done = subprocess.run(_program(words), env=_environment(database), check=False)  # noqa: S603 - ours
        if done.returncode:
            raise CommandError(f"relay {' '.join(words[:1])} failed", returncode=done.returncode)


def _program(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "relay", *words]


def _environment(alias: str) -> dict[str, str]:
    if alias not in connections:
        raise CommandError(f"--database: {alias!r} is not in settings.DATABASES, which has {', '.join(connections)}")
    others = {name: value for name, value in os.environ.items() if name != "RELAY_DATABASE_URL_FILE"}
    return others | {"RELAY_DATABASE_URL": database_url(connections[alias])}


def database_url(connection: Any) -> str:
    """Return what libpq shall know of a connection of Django's as a URL, password included: show it to nobody.

    Raises CommandError for another database than PostgreSQL.
    """
    if connection.vendor != "postgresql":
        raise CommandError(f"relay needs PostgreSQL, but {connection.alias!r} is {connection.vendor}")
    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()} - {"client_encoding"}
    given = {name: str(value) for name, value in connection.get_connection_params().items() if name in known}
    user, password, name = (quote(given.pop(part, ""), safe="") for part in _URL_PARTS)
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    return f"postgresql://{login}/{name}" + (f"?{urlencode(given, quote_via=quote)}" if given else "")
