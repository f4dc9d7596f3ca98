"""`relay listen`: a receiver on this machine that verifies webhooks and prints them."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outbox.control.times import rfc3339
from outbox.signing.schemes import SCHEMES, named
from outbox.signing.verify import check_key
from relay.cli.interrupt import interruptible
from relay.cli.options import config_option, load_config, scheme_option
from relay.cli.output import escape
from relay.config.option import ConfigError
from relay.local.receiver.forwarding import Forwarder
from relay.local.receiver.listener import Arrival, Listener
from relay.local.receiver.server import serve

if TYPE_CHECKING:
    from outbox.subscriptions.addresses import Network

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
    heading = f"{mark} {arrival.at:%H:%M:%S}  {kind}  {escape(arrival.id or '(no id)')}"
    facts = f"{arrival.size_bytes:,} bytes, {word}, {_answer(arrival)}"
    return f"{heading}\n{_INDENT}{facts}\n{_indent(arrival.body)}\n"


def _answer(arrival: Arrival) -> str:
    if arrival.failure:
        answered = "not answered" if arrival.status is None else f"answered {arrival.status}"
        return click.style(f"{answered}, {escape(arrival.failure)}", "red")
    return f"{'forwarded, ' if arrival.forwarded else ''}answered {arrival.status}"


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
            "forwarded": arrival.forwarded,
            "failure": arrival.failure or None,
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
@click.option("--status", type=click.IntRange(200, 599), help="Answer with this; try 500.  [default: 200]")
@click.option("--forward", metavar="URL", help="Pass on what verifies to this URL, as given, and answer as it does.")
@click.option(
    "--allow-networks", metavar="CIDR,…", help="What --forward may call besides here. [env RELAY_ALLOW_NETWORKS]"
)
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON object a line.")
@config_option
def listen(
    *, port: int, secrets: tuple[str, ...], secret_file: Path | None, scheme: str, status: int | None,
    forward: str | None, allow_networks: str | None, json_lines: bool, config_file: str | None,
) -> int:  # fmt: skip
    """Receive webhooks on this machine, verify and print them, until Ctrl-C.

    With --forward each one that verifies goes on to your application, with the same body and headers, to the URL
    as it is given, whatever path came; its answer is the answer. 502: it does not answer; 504: not within a
    minute. One that does not verify is answered 401, as without. Only this machine is called, unless
    --allow-networks names others.

    \b
    Examples:
      relay listen --port 4004 --secret whsec_…
      relay listen --port 4004 --secret whsec_… --forward http://127.0.0.1:8000/webhooks
      export RELAY_ALLOW_HTTP=true RELAY_ALLOW_NETWORKS=127.0.0.0/8
      relay subscriptions add http://127.0.0.1:4004/ 'order.*'
      relay run
    """
    if forward is not None and status is not None:
        raise click.UsageError("--forward and --status exclude each other: the application answers")
    if secret_file:
        secrets += _secrets_in(secret_file)
    networks: tuple[Network, ...] = ()
    if forward is not None or scheme not in SCHEMES:
        networks = load_config(
            {"allow_networks": allow_networks}, config_file
        ).config.allow_networks  # the scheme may be declared there, too
    named(scheme)
    known = [check_key(secret, scheme) for secret in secrets]
    forwarder = None if forward is None else Forwarder(forward, networks)
    form = as_json if json_lines else as_text
    with interruptible(), suppress(KeyboardInterrupt):
        listener = Listener(known, status or 200, lambda arrival: echo(form(arrival)), scheme)
        asyncio.run(_listen(port, listener, forwarder))
    return 0


def _secrets_in(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"--secret-file: {file} is not text in UTF-8") from None
    secrets = tuple(line.strip() for line in lines if line.strip())
    if not secrets:
        raise ConfigError(f"--secret-file: {file} is empty")
    return secrets


async def _listen(port: int, listener: Listener, forwarder: Forwarder | None) -> None:
    if forwarder is not None:
        await forwarder.check(port)
        listener.forward = forwarder.forward
    server = await open_port(listener, port)
    checked = "verifying signatures" if listener.secrets else "signatures are not verified: no --secret"
    onwards = "" if forwarder is None else f", forwarding to {forwarder.url}"
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    click.echo(f"listening on {url} ({checked}{onwards})", err=True)
    await listener.unread.wait()


async def open_port(listener: Listener, port: int) -> asyncio.Server:
    """Serve on 127.0.0.1:`port`. Raises ConfigError when the port is taken."""
    try:
        return await serve(listener.handle, port)
    except OSError as error:
        raise ConfigError(f"--port: cannot listen on {port}: {error.strerror}; choose another") from None
