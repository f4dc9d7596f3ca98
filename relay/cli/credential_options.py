"""Options for what a subscription's requests carry besides the signature: headers, authentication, TLS.

Secrets come from files, because a command line can be read by everybody on the machine; no message quotes them.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outbox.subscriptions.authentication import authentication_of, stored_authentication, tls_of
from outbox.subscriptions.fields import SECRETS
from outbox.subscriptions.headers import check_headers
from relay.cli.subscription_options import field_options, read_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

__all__ = ["credential_options", "sent_credentials"]

R = TypeVar("R")

_NAMES = [flag.name for field in SECRETS for flag in field.flags]


def credential_options(*, removable: bool = False) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command these options, and call it with `credentials`: arguments of outbox.subscriptions.

    What is given replaces what there is of its kind as a whole; None in `credentials` removes it.
    """
    names = [*_NAMES, *(f"no_{field.name}" for field in SECRETS if removable)]

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> R:
            chosen = {name: value for name in names if (value := kwargs.pop(name))}
            return command(*args, credentials=_read_credentials(chosen), **kwargs)

        for field in reversed(SECRETS if removable else ()):
            wrapped = click.option(f"--no-{field.name.replace('_', '-')}", is_flag=True, help=field.no_flag)(wrapped)
        return field_options(SECRETS)(wrapped)

    return decorate


def _read_credentials(chosen: dict[str, Any]) -> dict[str, Any]:
    credentials: dict[str, Any] = {}
    if "header" in chosen or "headers_file" in chosen:
        credentials["headers"] = [
            *map(_parse_pair, chosen.get("header", ())),
            *_read_headers(chosen.get("headers_file")),
        ]
    if "authentication_file" in chosen:
        text = read_file("authentication_file", chosen["authentication_file"])
        credentials["authentication"] = authentication_of(_parse_fields("--authentication-file", text))
    if "format_secret_file" in chosen:
        credentials["format_secret"] = read_file("format_secret_file", chosen["format_secret_file"]).strip()
    pem = {name: read_file(name, chosen[name]) for name in ("client_certificate", "client_key", "ca") if name in chosen}
    if pem:
        credentials["tls"] = tls_of(pem)
    for name in (field.name for field in SECRETS if f"no_{field.name}" in chosen):
        if name in credentials:
            raise click.UsageError(f"--no-{name.replace('_', '-')} excludes the options that give {name}")
        credentials[name] = None
    return credentials


def sent_credentials(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of outbox.subscriptions with their credentials as the API's body has them; None stays."""
    forms: dict[str, Callable[[Any], Any]] = {
        "authentication": lambda value: json.loads(stored_authentication(value)),
        "tls": asdict,
        "headers": check_headers,
    }
    given = {name: forms[name](value) for name, value in arguments.items() if name in forms and value is not None}
    return arguments | given


def _parse_pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError("--header: what is given is not NAME=VALUE")
    return name, value


def _read_headers(file: TextIO | None) -> list[tuple[str, Any]]:
    if file is None:
        return []
    text = read_file("headers_file", file)
    if text.lstrip().startswith("{"):
        return _parse_object("--headers-file", text)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines:
        if ":" not in line:
            raise click.UsageError(f"--headers-file: line {number} is not 'Name: value'")
    if not lines:
        raise click.UsageError("--headers-file: the file is empty")
    return [(name, value.strip(" \t\r")) for name, _, value in (line.partition(":") for _, line in lines)]


def _parse_fields(flag: str, text: str) -> dict[str, Any]:
    """Return a JSON object; what comes twice is refused, since another parser would take the other value."""
    pairs = _parse_object(flag, text)
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{flag}: {ascii(twice)[:40]} stands in it twice; remove one")
    return dict(pairs)


def _parse_object(flag: str, text: str) -> list[tuple[str, Any]]:
    """Return the pairs of a JSON object, so that a name that comes twice is seen."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise click.UsageError(f"{flag}: the file holds no JSON that can be read") from None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise click.UsageError(f"{flag}: the file must hold one JSON object")
    return pairs
