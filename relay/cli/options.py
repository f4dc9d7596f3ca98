"""Options that commands share: those of the configuration, the database, who acts, --json, and the filters."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from outbox.control.filters import FAILED, OUTCOMES
from outbox.control.times import moment_of
from outbox.signing.schemes import ROWS, declare
from outbox.subscriptions.endpoints import allow_endpoints
from relay.cli.output import escape
from relay.config.sources import load
from relay.operations.connection import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from relay.config.option import Option
    from relay.config.sources import Loaded

    _ParamType = click.ParamType[datetime | timedelta]
else:
    _ParamType = click.ParamType  # not generic in every click that we work with

__all__ = [
    "Database",
    "Moment",
    "actor_option",
    "after_option",
    "config_option",
    "confirm",
    "database_url_option",
    "filters",
    "flags_of",
    "json_option",
    "load_config",
    "login_name",
    "scheme_option",
    "warn",
    "warnings_shown",
    "with_database",
    "with_database_to_change",
    "yes_option",
]

P = ParamSpec("P")
R = TypeVar("R")


def load_config(flags: dict[str, Any], config_file: str | None) -> Loaded:
    """Load and return the configuration, take over its schemes and allowed endpoints, and print its warnings."""
    loaded = load(flags, config_file=config_file)
    config = loaded.config
    for declaration in config.schemes:
        declare(declaration)
    allow_endpoints(allow_networks=config.allow_networks, allow_http=config.allow_http, allow_ports=config.allow_ports)
    for warning in loaded.warnings:
        warn(warning)
    return loaded


def warn(line: str) -> None:
    """Show one line of warning on stderr."""
    click.echo(f"warning: {line}", err=True)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show what Python's warnings say inside as lines on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for one in caught:
        warn(str(one.message))


config_option = click.option(
    "--config", "config_file", metavar="FILE", help="TOML file with options. [env RELAY_CONFIG]"
)
database_url_option = click.option(
    "--database-url", metavar="URL", help="PostgreSQL. [env RELAY_DATABASE_URL, DATABASE_URL]"
)


def scheme_option(meaning: str, default: str | None = None) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command `--scheme`, a signature scheme by name; the configuration may declare more than those it lists."""
    shown = f"{meaning} One of {', '.join(map(str, ROWS))}, or declared in the configuration."
    return click.option(
        "--scheme", default=default, metavar="SCHEME", help=shown,
        shell_complete=lambda _context, _option, typed: [row.name for row in ROWS if row.name.startswith(typed)],
    )  # fmt: skip


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; a list is one object a line.")


def login_name() -> str:
    """Return `os:` and the name of the user that this process runs as, or the number of one without a name."""
    number = os.getuid()
    try:
        import pwd

        name = pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"os:{number}"
    return f"os:{name}" if name.isprintable() and name else f"os:{number}"


def _checked_actor(_context: click.Context, _option: click.Parameter, value: str | None) -> str:
    from outbox._actor import check_actor

    return check_actor(login_name() if value is None else value)


actor_option = click.option(
    "--actor", metavar="NAME", envvar="RELAY_ACTOR", callback=_checked_actor,
    help="Who does this, for `relay audit`. [env RELAY_ACTOR; default: the login on this machine]",
)  # fmt: skip


def with_database(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --database-url and --config, and call it with the Database first."""

    @database_url_option
    @config_option
    @functools.wraps(command)
    def wrapped(database_url: str | None, config_file: str | None, *args: Any, **kwargs: Any) -> R:
        loaded = load_config({"database_url": database_url}, config_file)
        return command(Database(loaded.config), *args, **kwargs)

    return wrapped


def with_database_to_change(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command what `with_database` gives, and --actor: for whatever changes something."""

    @actor_option
    @with_database
    @functools.wraps(command)
    def wrapped(database: Database, *args: Any, actor: str, **kwargs: Any) -> R:
        return command(Database(database.config, actor), *args, **kwargs)

    return wrapped


def flags_of(declared: Iterable[Option]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command these options of the configuration as flags, in this order."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        for option in reversed(list(declared)):
            command = _flag(option)(command)
        return command

    return decorate


def _flag(option: Option) -> Callable[[Callable[..., R]], Callable[..., R]]:
    default = option.text_of(option.default)
    meaning = f"{option.meaning} [env {option.env}" + (f"; default {default}]" if default else "]")
    if isinstance(option.default, bool):
        return click.option(f"{option.flag}/--no-{option.flag[2:]}", option.name, default=None, help=meaning)
    return click.option(option.flag, option.name, default=None, metavar=option.kind.metavar, help=meaning)


class Moment(_ParamType):
    """A point in time: RFC 3339 with its offset, a day (UTC), or how long ago: 90s, 15m, 2h, 3d, 1w."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | timedelta:
        """Return an aware datetime, or the timedelta before the database's now."""
        if isinstance(value, datetime | timedelta):
            return value
        try:
            return moment_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FILTERS = {
    "since": click.option("--since", type=Moment(), metavar="TIME", help="Not before: 2h ago, a day, or RFC 3339."),
    "until": click.option("--until", type=Moment(), metavar="TIME", help="Before this time."),
    "type": click.option("--type", "type_", metavar="TYPE", help="Event type; order.* for a prefix."),
    "tenant": click.option("--tenant", metavar="NAME", help="Only this tenant."),
    "key": click.option("--key", metavar="KEY", help="Only events with this key."),
    "subscription": click.option("--subscription", metavar="SUB", help="Only this subscription (sub_…)."),
    "event": click.option("--event", metavar="EVENT", help="Only of this event (evt_…)."),
    "outcome": click.option(
        "--outcome",
        metavar="NAME",
        shell_complete=lambda _context, _option, typed: [
            name for name in (FAILED, *OUTCOMES) if name.startswith(typed)
        ],
        help="Only what came to this: timeout, http_5xx, …; failed is all but delivered.",
    ),
    "status": click.option("--status", metavar="STATUS", help="Only with this status: 503, or 5xx."),
    "text": click.option("--text", metavar="TEXT", help="Only with this text, in payload, error or response."),
    "limit": click.option(
        "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
    ),
}


def filters(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a command these filters, in this order; each has one spelling everywhere."""

    def decorate(command: Callable[P, R]) -> Callable[P, R]:
        for name in reversed(names):
            command = _FILTERS[name](command)
        return command

    return decorate


after_option = click.option("--after", metavar="CURSOR", help="Go on after this page: what the one before named.")


def confirm(question: str, *, yes: bool) -> None:
    """Go on when --yes was given or a person at a terminal agrees; otherwise end the command."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Add --yes to do it.")
    click.confirm(escape(question), abort=True)


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
