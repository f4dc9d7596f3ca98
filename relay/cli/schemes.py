"""`relay schemes …`: how requests are signed, by the schemes that come along and by those of the configuration."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from relay.cli.options import config_option, flags_of, json_option, load_config
from relay.cli.output import print_fields, print_json, print_json_lines, print_table
from relay.cli.source import with_api
from relay.client import calls
from relay.config.options import options
from relay.operations.schemes import scheme_document, scheme_documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.client import Client

__all__ = ["schemes"]

_KEYS = {
    "text": "text, used as it stands",
    "whsec": "whsec_ and base64, which holds the key",
    "whsec-as-text": "text, used as it stands; new ones begin with whsec_",
}
_PROTECTED = {"id": "the id", "timestamp": "the time", "type": "the type", "body": "the body"}


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --config and --schemes, whose schemes it then knows, or --api; call it with the Client first."""

    @with_api
    @functools.wraps(command)
    def wrapped(client: Client | None, *, config_file: str | None, schemes: str | None, **given: Any) -> Any:
        if client is None:
            load_config({"schemes": schemes}, config_file)
        elif schemes is not None:
            raise click.UsageError("--schemes: by --api those of relay serve's configuration are told; leave it out")
        return command(client, **given)

    declared = flags_of(option for option in options() if option.name == "schemes")
    return config_option(declared(wrapped))


@click.group()
def schemes() -> None:
    """How requests are signed. A subscription names a scheme: relay subscriptions add --scheme.

    A table [schemes.NAME] in the relay's configuration declares one more; docs/signatures.md has its keys. Every
    process that adds subscriptions or delivers needs it.
    """


@schemes.command("list")
@json_option
@_configured
def list_(client: Client | None, *, as_json: bool) -> None:
    """List the schemes: what each signs, and where the signature stands.

    \b
    Example:
      relay schemes list --config relay.toml
    """
    found = scheme_documents() if client is None else client(calls.get_schemes())
    if as_json:
        print_json_lines(found)
        return
    rows = [
        (one["name"], one["signed"], f"{one['signature_header']}: {one['value']}", f"{one['hash']} {one['encoding']}",
         one["key"], one["origin"])
        for one in found
    ]  # fmt: skip
    print_table(["NAME", "SIGNED", "HEADER", "HASH", "KEY", "ORIGIN"], rows, flexible=["HEADER", "SIGNED"])


@schemes.command()
@click.argument("name")
@json_option
@_configured
def show(client: Client | None, *, name: str, as_json: bool) -> None:
    """Show what a scheme signs, what that protects, and what a request looks like.

    The example is signed with a secret that everybody knows; it is there to compare a receiver's own result with.

    \b
    Examples:
      relay schemes show stripe
      relay schemes show acme --config relay.toml --json
    """
    document = scheme_document(name) if client is None else client(calls.get_scheme(name))
    if as_json:
        print_json(document)
        return
    example = document.pop("example")
    print_fields(_told(document))
    click.echo(f"\nA request, signed with {example['secret']!r}")
    for header, value in example["headers"].items():
        click.echo(f"  {header}: {value}")
    click.echo(f"\n  {example['body']}")


def _told(document: dict[str, Any]) -> dict[str, Any]:
    """Return the lines for people."""
    protects = [_PROTECTED[part] for part, covered in document["protects"].items() if covered]
    unprotected = [_PROTECTED[part] for part, covered in document["protects"].items() if not covered]
    return {
        "name": document["name"],
        "origin": document["origin"],
        "signed": document["signed"],
        "header": f"{document['signature_header']}: {document['value']}",
        "signature": f"HMAC-{document['hash'].upper()} in {document['encoding']}",
        "signatures": "one for each live secret" if document["several"] else "one, of the newest secret",
        "secret": _KEYS[document["key"]],
        "protects": ", ".join(protects),
        "does_not_protect": ", ".join(unprotected),
        "replays": _replays(document),
        "headers": ", ".join(document["headers"]),
        "note": document["note"],
    }


def _replays(document: dict[str, Any]) -> str:
    if document["protects"]["timestamp"]:
        return f"a receiver refuses what is older than {document['tolerance_seconds']} s"
    return "whoever records a request can send it again at any time"
