"""Options of `relay subscriptions …`: the settings of a subscription, and which subscription is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from outbox.recording.payload import RawJSON, encode
from outbox.recording.record import Outbox
from outbox.subscriptions.checks import EVERY_TENANT, EveryTenant
from outbox.subscriptions.declaration import NOTHING, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    from outbox.subscriptions.declaration import Field, Flag

__all__ = [
    "FILE",
    "arguments_of",
    "field_options",
    "flag_name",
    "key_type_option",
    "own_tenant_option",
    "read_file",
    "read_json",
    "secret_file_option",
    "secret_in",
    "sent_filter",
    "subscription_argument",
    "text_type",
    "whose",
    "words_type",
]

R = TypeVar("R")

FILE = click.File(encoding="utf-8-sig")


class _FromText(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    name = "text"

    def __init__(self, from_text: Callable[[str], object]) -> None:
        self._from_text = from_text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._from_text(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def text_type(from_text: Callable[[str], object]) -> click.ParamType[Any]:
    """Return the type of an option whose text is read by this function; what it refuses is a usage error."""
    return _FromText(from_text)


words_type = text_type(words)
"""Of an option that takes words with commas between them."""


def field_options(fields: Iterable[Field]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command the flags of these fields of a subscription, in this order."""
    options = [_option(field, flag) for field in fields for flag in field.flags]

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _option(field: Field, flag: Flag) -> Callable[[Callable[..., R]], Callable[..., R]]:
    kind = FILE if flag.file else _FromText(flag.from_text)
    shown = f"{flag.help} [default: {field.default_text}]" if field.default_text else flag.help
    return click.option(
        flag_name(flag.name), flag.name, type=kind, multiple=flag.repeatable, metavar=flag.metavar, help=shown
    )


secret_file_option = click.option(
    "--secret-file",
    type=FILE,
    help="Own secret (as the scheme wants it) from a file, - is stdin.",
)
key_type_option = click.option(
    "--key-type", type=click.Choice(["hmac", "ed25519"]), help="Of a new secret; ed25519 with scheme standard."
)
subscription_argument = click.argument("subscription_id", metavar="SUBSCRIPTION")
own_tenant_option = click.option("--tenant", metavar="NAME", help="Only if it is this tenant's.")


def whose(tenant: str | None) -> str | EveryTenant:
    """Return the tenant that --tenant names; without it every tenant: a command line is the operator's."""
    return EVERY_TENANT if tenant is None else tenant


def arguments_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as arguments of outbox.subscriptions; pairs become a mapping."""
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    return {name: _argument(value) for name, value in given.items()}


def _argument(value: Any) -> Any:
    if value is NOTHING:
        return None
    return dict(value) if isinstance(value, tuple) else value


def secret_in(file: TextIO | None) -> str | None:
    """Return the secret that --secret-file holds; None where it was not given."""
    return None if file is None else read_file("secret_file", file).strip()


def read_file(name: str, file: TextIO) -> str:
    """Return the text of the file that the option `name` gave; bytes that are no UTF-8 are a UsageError."""
    try:
        return file.read()
    except UnicodeDecodeError:
        raise click.UsageError(f"{flag_name(name)}: the file is not text in UTF-8") from None


def read_json(text: str) -> RawJSON:
    """Return data as they go to the API: exactly as written. Raises RecordError for what is no JSON, or too much."""
    encode(RawJSON(text), Outbox().max_payload_bytes)
    return RawJSON(text)


def sent_filter(value: dict[str, Any]) -> Any:
    """Return a filter as it goes to the API: its numbers exact."""
    from outbox.subscriptions.filters.values import canonical  # most programs have no filters

    return RawJSON(canonical(value))


def flag_name(name: str) -> str:
    """Return the flag of an option."""
    return "--" + name.replace("_", "-")
