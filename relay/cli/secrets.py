"""`relay secrets …`: the keys that secrets are sealed to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relay.cli.options import Database, json_option, warn, with_database_to_change
from relay.cli.output import print_json

if TYPE_CHECKING:
    from relay.operations.secrets import Rekeyed

__all__ = ["secrets"]


@click.group()
def secrets() -> None:
    """The keys that secrets are sealed to.

    The database holds public keys and what is sealed to them; relays hold the private keys, as RELAY_SECRET_KEY or in
    the file that RELAY_SECRET_KEY_FILE names. To begin, and to exchange a key:

    \b
      1. relay secrets keygen --out relay.key
      2. give it to every relay, the new key first and the old one after it; restart them
      3. relay secrets rekey, with the same keys; as outbox_operator
      4. drop the old key
    """


@secrets.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there, for you alone (0600).",
)
def keygen(out: Path | None) -> None:
    """Make a private key and print it, this once. Touches no database.

    With --out it goes into a new file, and only its public half is printed.

    \b
    Example:
      relay secrets keygen --out /etc/relay.key
    """
    from relay.secrets.keyring import new_private_key

    private, public = new_private_key()
    if out is None:
        click.echo(private.reveal())
        click.echo(f"Keep it now: it is not shown again. Its id is {public.id}.", err=True)
        return
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(
            f"--out: {out} exists; a key may be all that opens your secrets, name another file"
        ) from None
    except OSError as error:
        raise click.UsageError(f"--out: cannot write {out}: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(private.reveal() + "\n")
    click.echo(f"key {public.id}, public half {public.text}")


@secrets.command()
@json_option
@with_database_to_change
def rekey(database: Database, *, as_json: bool) -> int:
    """Seal every secret to the newest key of RELAY_SECRET_KEY, those in clear too.

    The key becomes the one that new secrets are sealed to, so give it to every relay first. Safe to repeat, and to end
    at any point. Exit code 1 when a secret could not be opened or was in use.

    \b
    Example:
      RELAY_SECRET_KEY_FILE=/etc/relay.key relay secrets rekey
    """
    from relay.operations import secrets as operations
    from relay.secrets.keyring import Keyring

    with database.connect() as connection:
        done = operations.rekey(connection, None, Keyring(database.config.secret_key), database.actor)
    if as_json:
        print_json(done)
    else:
        _print(done)
    return 0 if done.complete else 1


def _print(done: Rekeyed) -> None:
    click.echo(
        f"key {done.key_id}: {done.sealed:,} sealed that lay in clear, {done.resealed:,} sealed again, "
        f"{done.already:,} were already"
    )
    if done.busy:
        warn(f"{done.busy:,} were in use; repeat it")
    for row in done.unopened:
        warn(row.reason)
    if done.complete:
        click.echo(
            "Nothing is sealed to an older key; repeat this when transactions open now have ended, then drop those.",
            err=True,
        )
