"""`relay subscriptions preview`: print the request that an event would become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outbox.errors import RecordError
from outbox.subscriptions.declaration import pair
from relay.cli.endpoint_tests import print_body, print_headers
from relay.cli.options import json_option
from relay.cli.output import escape, print_json
from relay.cli.source import Source, with_source
from relay.cli.subscription_options import (
    FILE,
    own_tenant_option,
    read_file,
    read_json,
    subscription_argument,
    text_type,
)
from relay.client import calls

if TYPE_CHECKING:
    from typing import TextIO

    from relay.operations.endpoint_tests.preview import Draft, PreviewedRequest

__all__ = ["preview"]


@click.command()
@subscription_argument
@own_tenant_option
@click.option("--event", "event_id", metavar="EVENT", help="A recorded event, evt_… or the UUID.")
@click.option("--data", type=FILE, help="A draft's data: a file of JSON, - is stdin.")
@click.option("--type", "type_", metavar="TYPE", help="The draft's type. [default: outbox.test]")
@click.option("--key", metavar="KEY", help="The draft's key. [default: none]")
@click.option("--metadata", metavar="NAME=VALUE", type=text_type(pair), multiple=True, help="The draft's; repeatable.")
@click.option(
    "--transformation", metavar="EXPRESSION", help="Try this in place of the subscription's own; '' for none."
)
@json_option
@with_source
def preview(
    source: Source, subscription_id: str, tenant: str | None, event_id: str | None, data: TextIO | None,
    type_: str | None, key: str | None, metadata: tuple[tuple[str, str], ...],
    transformation: str | None, *, as_json: bool,
) -> int:  # fmt: skip
    """Show the request that an event would be sent as, and send nothing.

    The event is a recorded one, or a draft of one from a file. It is signed with an example secret; credentials are
    not shown. Exit code 1 where the transformation fails: the delivery would be a dead letter.

    \b
    Examples:
      relay subscriptions preview sub_… --event evt_…
      relay subscriptions preview sub_… --data order.json --transformation '{order: data.id, total: data.total}'
    """
    from relay.operations.endpoint_tests.preview import preview as make

    if (event_id is None) is (data is None):
        raise click.UsageError("give either --event or --data")
    if event_id is not None and (type_ is not None or key is not None or metadata):
        raise click.UsageError("--type, --key and --metadata are a draft's: give them with --data")
    event = event_id or _draft(data, type_, key, metadata)
    source.require_tenant(subscription_id, tenant)
    try:
        found = source.run(
            lambda database: make(database, tenant, subscription_id, event, transformation=transformation),
            lambda: calls.preview_request(subscription_id, **_sent(event, transformation)),
        )
    except RecordError as error:
        raise click.UsageError(f"--{error}".replace("RawJSON is not strict JSON", "not JSON")) from None
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 0 if found.ok else 1


def _draft(data: TextIO | None, type_: str | None, key: str | None, metadata: tuple[tuple[str, str], ...]) -> Draft:
    from relay.operations.endpoint_tests.preview import DEFAULT_TYPE, Draft

    read = read_file("data", data) if data else ""
    return Draft(data=read, type=type_ or DEFAULT_TYPE, key=key, metadata=dict(metadata) or None)


def _sent(event: str | Draft, transformation: str | None) -> dict[str, Any]:
    """Return what the API's body has. Raises RecordError for data that are no JSON."""
    tried = {} if transformation is None else {"transformation": transformation}
    if isinstance(event, str):
        return {"event_id": event} | tried
    metadata = {} if event.metadata is None else {"metadata": event.metadata}
    return {"type": event.type, "key": event.key, "data": read_json(event.data)} | metadata | tried


def _print(found: PreviewedRequest) -> None:
    if found.error:
        click.echo(f"{escape(found.error)}\nThe delivery would be a dead letter at once.")
        return
    if found.request:
        click.echo(click.style(escape(f"{found.request.method} {found.request.url}"), bold=True) + "  (not sent)")
        print_headers(found.marked_headers)
        print_body(found.request.body)
    click.echo("signed with an example secret", err=True)
