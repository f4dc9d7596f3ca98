"""Who gives a command that changes something: --actor, RELAY_ACTOR, or the login on this machine."""

from __future__ import annotations

import os

import click

__all__ = ["actor_option", "login_name"]


def login_name() -> str:
    """Return `os:` and the name of the user that this process runs as, or the number of one without a name."""
    number = os.getuid()
    try:
        import pwd

        name = pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):
        return f"os:{number}"
    return f"os:{name}" if name.isprintable() and name else f"os:{number}"


def _checked(_context: click.Context, _option: click.Parameter, value: str | None) -> str:
    from outbox._actor import check_actor

    return check_actor(login_name() if value is None else value)


actor_option = click.option(
    "--actor", metavar="NAME", envvar="RELAY_ACTOR", callback=_checked,
    help="Who does this, for `relay audit`. [env RELAY_ACTOR; default: the login on this machine]",
)  # fmt: skip
