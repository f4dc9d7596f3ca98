"""Options of `relay subscriptions …`: what a subscription is told, and which one is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from relay.cli.credential_options import read_file

if TYPE_CHECKING:
    from typing import TextIO

__all__ = [
    "arguments_of", "description_option", "final_statuses_option", "key_type_option", "metadata_option",
    "own_tenant_option", "schedule_option", "secret_file_option", "secret_in", "subscription_argument",
    "timeout_option",
]  # fmt: skip


class _Pairs(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, separator, content = value.partition("=")
        if not separator:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, content


class _Numbers(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    def __init__(self, name: str, example: str) -> None:
        self.name = name
        self._example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        words = [] if value.strip() in ("", "none") else value.split(",")
        if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
            self.fail(f"{value!r} is not a list of {self.name} such as {self._example}, or none", param, ctx)
        return [int(word) for word in words]


description_option = click.option("--description", metavar="TEXT", help="For people; at most 2 kB.")
metadata_option = click.option(
    "--metadata", type=_Pairs(), multiple=True, metavar="NAME=VALUE", help="For programs; repeatable."
)
timeout_option = click.option(
    "--timeout-seconds", type=int, metavar="N", help="Of one attempt, 1 to 300. [default: 15]"
)
schedule_option = click.option(
    "--schedule-seconds",
    type=_Numbers("seconds", "5,300,1800"),
    metavar="N,N,…",
    help="Delays after failures, or none. [default: 75 hours]",
)
final_statuses_option = click.option(
    "--final-statuses",
    type=_Numbers("statuses", "400,413,422"),
    metavar="N,N,…",
    help="4xx answers that are not tried again, or none. [default: none]",
)
secret_file_option = click.option(
    "--secret-file",
    type=click.File(encoding="utf-8-sig"),
    help="Own secret (as the scheme wants it) from a file, - is stdin.",
)
key_type_option = click.option(
    "--key-type", type=click.Choice(["hmac", "ed25519"]), help="Of a new secret; ed25519 with scheme standard."
)
subscription_argument = click.argument("subscription_id", metavar="SUBSCRIPTION")
own_tenant_option = click.option("--tenant", metavar="NAME", help="Only if it is this tenant's.")


def arguments_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as arguments of outbox.subscriptions."""
    given = {name: value for name, value in settings.items() if value not in (None, ())}
    if "metadata" in given:
        given["metadata"] = dict(given["metadata"])
    return given


def secret_in(file: TextIO | None) -> str | None:
    """Return the secret that --secret-file holds; None where it was not given."""
    return None if file is None else read_file("secret_file", file).strip()
