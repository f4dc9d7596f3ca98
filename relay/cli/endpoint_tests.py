"""`relay subscriptions test` and `check`: try one endpoint, and print what was found and what mends it."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from outbox.errors import RecordError
from relay.cli.findings import in_sentences, in_words
from relay.cli.options import json_option
from relay.cli.output import escape, fields_of, print_json
from relay.cli.source import Source, with_source
from relay.cli.subscription_options import own_tenant_option, read_json, subscription_argument
from relay.client import calls
from relay.operations.endpoint_tests.documents import CheckedStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.http.inspection.certificate import Certificate
    from relay.operations.endpoint_tests.documents import CheckedEndpoint, SentTest

__all__ = ["check", "print_body", "print_headers", "test"]

_MAX_LINES = 20
_MAX_CHARACTERS = 2000
_MAX_NAMES = 5
_COMMAND = re.compile(r"relay subscriptions [a-z-]+ sub_\S+(?: --\S+ \S+)*")
_NO_BREAK = "\xa0"
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@subscription_argument
@own_tenant_option
@click.option("--type", "type_", default="outbox.test", show_default=True, help="The message's type.")
@click.option("--data", metavar="JSON", help='The message\'s data, - is stdin. [default: {"test":true}]')
@json_option
@with_source
def test(
    source: Source, subscription_id: str, tenant: str | None, type_: str, data: str | None, *, as_json: bool
) -> int:
    """Send one test message and show request, answer and what to do.

    It goes the way of every delivery, signed, with the subscription's timeout, also while the subscription is paused
    or disabled. It is logged as a test attempt and counts as no delivery. Exit code 0 when the answer is 2xx.

    \b
    Examples:
      relay subscriptions test sub_…
      relay subscriptions test sub_… --type order.created --data '{"id": 7}'
    """
    from relay.operations.endpoint_tests.test_and_check import send_test

    if data == "-":
        data = sys.stdin.read()
    source.require_tenant(subscription_id, tenant)
    try:
        found = source.run(
            lambda database: send_test(database, tenant, subscription_id, type=type_, data=data),
            lambda: calls.send_test_message(
                subscription_id, type=type_, **({} if data is None else {"data": read_json(data)})
            ),
        )
    except RecordError as error:
        raise click.UsageError(f"--{error}".replace("RawJSON is not strict JSON", "not JSON")) from None
    if as_json:
        hindrance = found.hindrance and in_words(found.hindrance)
        diagnosis = in_sentences(found.findings)
        print_json(fields_of(found, "findings") | {"hindrance": hindrance, "diagnosis": diagnosis})
    else:
        _print_test(found)
    return 0 if found.ok else 1


@click.command()
@subscription_argument
@own_tenant_option
@json_option
@with_source
def check(source: Source, subscription_id: str, tenant: str | None, *, as_json: bool) -> int:
    """Look at the way to the endpoint and send nothing: secrets, DNS, policy, TCP, TLS.

    Every step is the sender's own; after the handshake the connection is closed. Exit code 0 when none failed.

    \b
    Example:
      relay subscriptions check sub_…
    """
    from relay.operations.endpoint_tests.test_and_check import check_endpoint

    source.require_tenant(subscription_id, tenant)
    found = source.run(
        lambda database: check_endpoint(database, tenant, subscription_id),
        lambda: calls.check_subscription(subscription_id),
    )
    steps, diagnosis = _steps_of(found), in_sentences(found.findings)
    if as_json:
        print_json(fields_of(found, "findings", "hindrance") | {"steps": steps, "diagnosis": diagnosis})
    else:
        click.echo(click.style(escape(found.url), bold=True))
        _print_steps(steps)
        _print_words(diagnosis)
    return 0 if found.ok else 1


def _steps_of(found: CheckedEndpoint) -> list[CheckedStep]:
    """Return the steps; where deliveries wait, the reason is the first of them."""
    if found.hindrance is None:
        return list(found.steps)
    return [CheckedStep(name="state", state="warning", text=in_words(found.hindrance)), *found.steps]


def _print_test(found: SentTest) -> None:
    request, response = found.request, found.response
    if found.hindrance:
        _print_words(f"Deliveries wait: the subscription is {in_words(found.hindrance)}.", before="")
        click.echo()
    if request:
        unsent = "" if found.sent else "  (not sent)"
        click.echo(click.style(escape(f"{request.method} {request.url}"), bold=True) + unsent)
        if found.sent:
            print_headers(request.headers)
            print_body(request.body)
        click.echo()
    where = f", {found.address}" if found.address else ""
    line = (response and response.status_line) or f"{found.outcome}: {found.error}"
    for part in _wrap(escape(f"{line} ({found.milliseconds} ms{where})"), columns()):
        click.echo(click.style(part, bold=True))
    if response:
        print_headers(response.headers)
        print_body(response.excerpt)
    if found.steps:
        click.echo("\nThe way there, looked at just after:")
        _print_steps(found.steps)
    _print_words(in_sentences(found.findings))
    click.echo(f"logged as {found.delivery_id}", err=True)


def print_headers(headers: Sequence[Sequence[str]]) -> None:
    """Print a line for each header, with control characters written out."""
    for name, value in headers:
        click.echo(f"  {escape(name)}: {escape(value)}")


def print_body(body: str) -> None:
    """Print the beginning of a body, with control characters written out."""
    if not body:
        return
    click.echo()
    lines = body[:_MAX_CHARACTERS].replace("\r\n", "\n").rstrip("\n").split("\n")
    for line in lines[:_MAX_LINES]:
        click.echo(f"  {escape(line)}".rstrip())
    if len(body) > _MAX_CHARACTERS or len(lines) > _MAX_LINES:
        click.echo(f"  … ({len(body):,} characters in all; --json has them)")


def _print_steps(steps: Sequence[CheckedStep]) -> None:
    """Print a line for each step, and the certificates, each once."""
    shown: list[Certificate] = []
    for step in steps:
        took = "" if step.milliseconds is None else f" ({step.milliseconds} ms)"
        where = f"{step.addresses[0]}: " if step.name in ("tcp", "tls") and step.addresses else ""
        state = click.style(f"{step.state:<8}", fg=_COLOURS[step.state])
        room = columns() - 18
        first, *more = _wrap(escape(f"{where}{step.text}{took}"), room)
        click.echo(f"  {state}{step.name:<8}{first}")
        for line in more:
            click.echo(f"{'':18}{line}")
        if step.certificate and step.certificate not in shown:
            shown.append(step.certificate)
            _print_certificate(step.certificate)


def _print_certificate(certificate: Certificate) -> None:
    names = certificate.names
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    rows = {
        "subject": certificate.subject,
        "names": ", ".join(names[:_MAX_NAMES]) + more,
        "issuer": certificate.issuer,
        "valid": f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d %H:%M} UTC",
    }
    for name, value in rows.items():
        first, *rest = _wrap(escape(value) or "-", columns() - 28)
        click.echo(f"{'':18}{name:<10}{first}")
        for line in rest:
            click.echo(f"{'':28}{line}")


def _print_words(words: str, before: str = "\n") -> None:
    click.echo(before + "\n".join(_wrap(escape(words), columns())))


def columns() -> int:
    """Return how wide lines may be: the terminal's width up to 100; unlimited where the output goes elsewhere."""
    return min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 1_000_000


def _wrap(text: str, room: int) -> list[str]:
    """Return lines of at most so many characters; a command to copy stays on one, however long."""
    kept = _COMMAND.sub(lambda command: command[0].replace(" ", _NO_BREAK), text)
    lines = textwrap.wrap(kept, max(room, 20), break_long_words=False, break_on_hyphens=False) or [""]
    return [line.replace(_NO_BREAK, " ") for line in lines]
