"""`relay listen`: a receiver on this machine that verifies webhooks and prints them."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from outbox.control.times import rfc3339
from outbox.signing.schemes import SCHEMES, named
from outbox.signing.verify import check_key
from relay.cli.interrupt import interruptible
from relay.cli.options import config_option, load_config, scheme_option
from relay.cli.output import escape
from relay.config.options import ConfigError
from relay.local.receiver.listener import Arrival, Listener
from relay.local.receiver.server import serve

__all__ = ["as_json", "as_text", "echo", "listen", "open_port"]

_MAX_SHOWN = 20_000  # characters of a body
_INDENT = "  "


def as_text(arrival: Arrival) -> str:
    """Return a heading and the body below it, for people."""
    if arrival.problem:
        mark, word = click.style("✗", "red", bold=True), click.style(arrival.problem, "red")
    elif arrival.verified:
        mark, word = click.style("✓", "green", bold=True), "signature verified"
    else:
        mark, word = click.style("•", bold=True), "not verified"
    kind = click.style(escape(arrival.type or "(no type)"), bold=True)
    size = f"{arrival.size_bytes:,} bytes"
    heading = f"{mark} {arrival.at:%H:%M:%S}  {kind}  {escape(arrival.id or '(no id)')}"
    return f"{heading}\n{_INDENT}{size}, {word}, answered {arrival.status}\n{_indent(arrival.body)}\n"


def _indent(body: Any) -> str:
    text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
    lines = [_INDENT + escape(line) for line in text[:_MAX_SHOWN].split("\n")]
    if len(text) > _MAX_SHOWN:
        lines.append(f"{_INDENT}… and {len(text) - _MAX_SHOWN:,} more characters")
    return "\n".join(lines)


def as_json(arrival: Arrival) -> str:
    """Return one JSON object on one line."""
    return json.dumps(
        {
            "id": arrival.id,
            "type": arrival.type,
            "at": rfc3339(arrival.at),
            "size_bytes": arrival.size_bytes,
            "status": arrival.status,
            "verified": arrival.verified,
            "problem": arrival.problem or None,
            "body": arrival.body,
        }
    )


def echo(text: str) -> None:
    """Print with colours where a terminal shows them and NO_COLOR does not forbid it."""
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="On 127.0.0.1.  [default: a free one]")
@click.option("--secret", "secrets", multiple=True, metavar="SECRET", help="Verify with it; several while it rotates.")
@click.option(
    "--secret-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read secrets, one a line."
)
@scheme_option("How to verify. [default: standard]", "standard")
@click.option(
    "--status", type=click.IntRange(200, 599), default=200, show_default=True, help="Answer with this; try 500."
)
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object a line.")
@config_option
def listen(
    *, port: int, secrets: tuple[str, ...], secret_file: Path | None, scheme: str, status: int, json_lines: bool,
    config_file: str | None,
) -> int:  # fmt: skip
    """Receive webhooks on this machine, verify and print them, until Ctrl-C.

    \b
    Example:
      relay listen --port 4004 --secret whsec_…
      export RELAY_ALLOW_HTTP=true RELAY_ALLOW_NETWORKS=127.0.0.0/8
      relay subscriptions add http://127.0.0.1:4004/ 'order.*'
      relay run
    """
    if secret_file:
        try:
            lines = secret_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise ConfigError(f"--secret-file: {secret_file} is not text in UTF-8") from None
        secrets += tuple(line.strip() for line in lines if line.strip())
        if not secrets:
            raise ConfigError(f"--secret-file: {secret_file} is empty")
    if scheme not in SCHEMES:
        load_config({}, config_file)  # it may be declared there
    named(scheme)
    form = as_json if json_lines else as_text
    known = [check_key(secret, scheme) for secret in secrets]
    with interruptible(), suppress(KeyboardInterrupt):
        listener = Listener(known, status, lambda arrival: echo(form(arrival)), scheme)
        asyncio.run(_listen(port, listener))
    return 0


async def _listen(port: int, listener: Listener) -> None:
    server = await open_port(listener, port)
    checked = "verifying signatures" if listener.secrets else "signatures are not verified: no --secret"
    click.echo(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ ({checked})", err=True)
    await listener.unread.wait()


async def open_port(listener: Listener, port: int) -> asyncio.Server:
    """Serve on 127.0.0.1:`port`. Raises ConfigError when the port is taken."""
    try:
        return await serve(listener.handle, port)
    except OSError as error:
        raise ConfigError(f"--port: cannot listen on {port}: {error.strerror}; choose another") from None
