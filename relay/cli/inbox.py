"""`relay inbox …`: what the application of this database received from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from outbox.control import inbox as operations
from outbox.control.filters import Filters
from relay.cli.options import (
    Database,
    after_option,
    confirm,
    filters,
    json_option,
    scheme_option,
    with_database,
    with_database_to_change,
    yes_option,
)
from relay.cli.output import escape, fields_of, print_fields, print_json, print_json_lines, print_more, print_table
from relay.config.option import ConfigError

__all__ = ["inbox"]


@click.group()
def inbox() -> None:
    """Show what the application received by outbox.inbox: accepted, copies, refused and failed requests.

    Each is kept for inbox_days (outbox.settings), 14 by default; so are the ids by which a copy is known.
    """


@inbox.command("list")
@filters("since", "until", "tenant", "limit")
@click.option("--source", metavar="NAME", help="Only what this source sent.")
@click.option("--outcome", type=click.Choice(operations.OUTCOMES), help="Only with this outcome.")
@click.option("--entity", metavar="NAME", help="Only about this, as the application named it: lead:42.")
@click.option("--message", metavar="ID", help="Only with this message id.")
@after_option
@json_option
@with_database
def list_(
    database: Database, source: str | None, outcome: str | None, entity: str | None, message: str | None,
    after: str | None, *, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """List received requests, newest first.

    \b
    Examples:
      relay inbox list --outcome failed --since 1d
      relay inbox list --entity lead:42 --json
    """
    with database.transaction() as connection:
        found = operations.list_received(
            connection, None, Filters(**given), source=source, outcome=outcome, entity=entity, message=message,
            after=after,
        )  # fmt: skip
    if as_json:
        print_json_lines(found)
    else:
        rows = [
            (item.id, item.at, item.source, item.outcome, item.status, item.message_id, item.entity, _why(item))
            for item in found
        ]
        columns = ["RECEIVED", "AT UTC", "SOURCE", "OUTCOME", "STATUS", "MESSAGE", "ENTITY", "WHY"]
        print_table(columns, rows, flexible=["SOURCE", "MESSAGE", "ENTITY", "WHY"])
    print_more(found)


def _why(item: operations.ReceivedRequest) -> str | None:
    if item.reason is None:
        return None
    more = f" (and {item.unrecorded} without a row)" if item.unrecorded else ""
    return f"{item.reason}: {item.error}{more}"


@inbox.command()
@click.argument("received_id", metavar="RECEIVED")
@json_option
@with_database
def show(database: Database, received_id: str, *, as_json: bool) -> None:
    """Show one received request (inb_…) with the headers and the body that were kept."""
    with database.transaction() as connection:
        found = operations.show_received(connection, None, received_id)
    if as_json:
        print_json(found)
        return
    print_fields(fields_of(found, "headers", "body"))
    if found.headers:
        click.echo("\nHeaders (no secret and no signature is kept)")
        for name, value in found.headers:
            click.echo(f"  {escape(name)}: {escape(value)}")
    cut = "" if found.whole else f" ({found.size} bytes; the rest was not kept)"
    click.echo(f"\nBody{cut}\n{'none kept' if found.body is None else escape(found.body)}")


@inbox.command()
@click.argument("received_id", metavar="RECEIVED")
@click.option("--to", "url", metavar="URL", help="Where the application receives it: POST it there, now.")
@click.option(
    "--secret-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="The secret that the application verifies with; with --to.",
)  # fmt: skip
@scheme_option("How to sign it; default as it was signed when it came.")
@yes_option
@json_option
@with_database_to_change
def replay(
    database: Database, received_id: str, url: str | None, secret_file: Path | None, scheme: str | None, *, yes: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Let the application process a received message (inb_…) again.

    Its id is forgotten, so that the next copy is no duplicate. With --to the relay sends that copy itself: the
    kept body and id, signed anew with the secret in FILE, since no signature is kept. Without --to the sender has
    to send it. What the application did the first time it does again.

    --to needs the whole body (the application's keep_bytes), goes out under this relay's address policy
    (RELAY_ALLOW_NETWORKS for loopback), and exits with 1 unless the answer is 2xx.

    \b
    Examples:
      relay inbox replay inb_…
      relay inbox replay inb_… --to http://127.0.0.1:8000/hooks/n8n --secret-file n8n.txt
    """
    if (url is None) != (secret_file is None):
        raise click.UsageError("--to and --secret-file go together: what is sent is signed anew")
    confirm(f"Forget that {received_id} was taken, so that the application acts upon it again?", yes=yes)
    if url is None or secret_file is None:
        return _forget(database, received_id, as_json=as_json)
    import anyio

    from relay.operations.resend import resend

    secret = _secret_in(secret_file)
    sent = anyio.run(lambda: resend(database, None, received_id, url, secret, scheme=scheme))
    if as_json:
        print_json(sent)
    else:
        said = f"answered {sent.status}" if sent.status is not None else f"{sent.outcome}: {sent.error}"
        click.echo(escape(f"{sent.message_id}: {said} ({sent.milliseconds} ms)"))
    return 0 if sent.ok else 1


def _forget(database: Database, received_id: str, *, as_json: bool) -> int:
    with database.transaction() as connection:
        known = operations.forget_received(connection, None, received_id)
    if as_json:
        print_json({"id": received_id, "known_before": known})
    else:
        before = "is forgotten" if known else "was not known"
        click.echo(f"{received_id}: its id {before}; the sender's next copy is processed")
    return 0


def _secret_in(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8-sig").split()
    except ValueError:
        raise ConfigError(f"--secret-file: {file} is not text in UTF-8") from None
    if len(lines) != 1:
        raise ConfigError(f"--secret-file: {file} must hold one secret")
    return lines[0]
