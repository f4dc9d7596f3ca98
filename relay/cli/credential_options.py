"""Options for what a subscription's requests carry besides the signature: headers, authentication, TLS.

Secrets come from files, because a command line can be read by everybody on the machine; no message quotes them.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outbox.subscriptions.authentication import authentication_of, tls_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

__all__ = ["credential_options", "read_file"]

R = TypeVar("R")

_FILE = click.File(encoding="utf-8-sig")
_GIVEN = {
    "header": click.option("--header", multiple=True, metavar="NAME=VALUE", help="Send it along; repeatable."),
    "headers_file": click.option("--headers-file", type=_FILE, help="Headers: a JSON object, or 'Name: value' lines."),
    "authentication_file": click.option(
        "--authentication-file", type=_FILE, help="JSON whose type is basic, bearer or oauth2; - is stdin."
    ),
    "client_certificate": click.option(
        "--client-certificate", type=_FILE, help="PEM to show to the receiver, with --client-key."
    ),
    "client_key": click.option("--client-key", type=_FILE, help="PEM of its private key, without a passphrase."),
    "ca": click.option("--ca", type=_FILE, help="PEM of the authority to trust instead of the public ones."),
}
_REMOVED = {
    "no_headers": click.option("--no-headers", is_flag=True, help="Send no own headers any more."),
    "no_authentication": click.option("--no-authentication", is_flag=True, help="Authenticate no more."),
    "no_tls": click.option("--no-tls", is_flag=True, help="No client certificate, no own authority."),
}


def credential_options(*, removable: bool = False) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command these options, and call it with `credentials`: arguments of outbox.subscriptions.

    What is given replaces what there is of its kind as a whole; None in `credentials` removes it.
    """
    options = _GIVEN | (_REMOVED if removable else {})

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> R:
            chosen = {name: value for name in options if (value := kwargs.pop(name))}
            return command(*args, credentials=_credentials(chosen), **kwargs)

        for option in reversed(options.values()):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def _credentials(chosen: dict[str, Any]) -> dict[str, Any]:
    credentials: dict[str, Any] = {}
    if "header" in chosen or "headers_file" in chosen:
        credentials["headers"] = [*map(_pair, chosen.get("header", ())), *_headers(chosen.get("headers_file"))]
    if "authentication_file" in chosen:
        text = read_file("authentication_file", chosen["authentication_file"])
        credentials["authentication"] = authentication_of(dict(_loaded("--authentication-file", text)))
    pem = {name: read_file(name, chosen[name]) for name in ("client_certificate", "client_key", "ca") if name in chosen}
    if pem:
        credentials["tls"] = tls_of(pem)
    for name in ("headers", "authentication", "tls"):
        if f"no_{name}" in chosen and name in credentials:
            raise click.UsageError(f"--no-{name} excludes the options that give {name}")
        if f"no_{name}" in chosen:
            credentials[name] = None
    return credentials


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError("--header: what is given is not NAME=VALUE")
    return name, value


def _headers(file: TextIO | None) -> list[tuple[str, Any]]:
    if file is None:
        return []
    text = read_file("headers_file", file)
    if text.lstrip().startswith("{"):
        return _loaded("--headers-file", text)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines:
        if ":" not in line:
            raise click.UsageError(f"--headers-file: line {number} is not 'Name: value'")
    if not lines:
        raise click.UsageError("--headers-file: the file is empty")
    return [(name, value.strip(" \t\r")) for name, _, value in (line.partition(":") for _, line in lines)]


def _loaded(flag: str, text: str) -> list[tuple[str, Any]]:
    """Return the pairs of a JSON object, so that a name that comes twice is seen."""
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        raise click.UsageError(f"{flag}: the file holds no JSON that can be read") from None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise click.UsageError(f"{flag}: the file must hold one JSON object")
    return pairs


def read_file(name: str, file: TextIO) -> str:
    """Return the text of the file that the option `name` gave; bytes that are no UTF-8 are a UsageError."""
    try:
        return file.read()
    except UnicodeDecodeError:
        raise click.UsageError(f"--{name.replace('_', '-')}: the file is not text in UTF-8") from None
