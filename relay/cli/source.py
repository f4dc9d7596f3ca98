"""Where a command asks: the database, or with --api the HTTP API of a `relay serve` elsewhere."""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from outbox.control.audit import json_of_filters
from outbox.control.times import ago_text
from outbox.ids import DeliveryId, EventId
from relay.cli.options import actor_option, config_option, database_url_option, load_config
from relay.operations.connection import Database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection

    from outbox.control.filters import Filters
    from relay.client import Call, Client

__all__ = ["Source", "ids_of", "query_of", "with_api", "with_source", "with_source_to_change"]

R = TypeVar("R")
T = TypeVar("T")

# A test message may take as long as a subscription's timeout, 300 s at most; a plan reads every event.
_ANSWER_SECONDS = 330


class Source:
    """Answers a question from the database or by HTTP, whichever the command line names.

    `database` is None where the API is asked.
    """

    def __init__(self, database: Database | None, client: Client | None = None) -> None:
        self.database = database
        self._client = client

    @property
    def is_remote(self) -> bool:
        """Whether the API is asked."""
        return self._client is not None

    def ask(self, local: Callable[[Connection], T], remote: Callable[[], Call[T]]) -> T:
        """Return what the operation returns in a transaction of its own, or the API to its call."""
        if self._client is not None:
            return self._client(remote())
        assert self.database is not None
        with self.database.transaction() as connection:
            return local(connection)

    def run(self, local: Callable[[Database], Awaitable[T]], remote: Callable[[], Call[T]]) -> T:
        """The same, of an operation that waits for others and opens its connections itself."""
        if self._client is not None:
            return self._client(remote())
        import anyio  # which few commands need

        assert self.database is not None
        return anyio.run(local, self.database)

    def require_tenant(self, subscription_id: str, tenant: str | None) -> None:
        """Where the API is asked, do what --tenant does in the database: find a subscription of this tenant only.

        A subscription keeps its tenant, so that this is asked before. Raises NotFoundError.
        """
        if self._client is None or tenant is None:
            return
        from outbox.subscriptions.rows import not_found
        from relay.client import calls

        if self._client(calls.get_subscription(subscription_id)).subscription.tenant != tenant:
            raise not_found(subscription_id)

    def refuse_by_api(self, flag: str, why: str) -> None:
        """Refuse an option that the API has not. Raises UsageError."""
        if self.is_remote:
            raise click.UsageError(f"{flag}: {why}; leave out --api")


def ids_of(names: Sequence[str]) -> list[str]:
    """Return ids of deliveries and events as people see them, of UUIDs too. Raises NotFoundError for what is none."""
    return [str((EventId if name.startswith("evt_") else DeliveryId).of(name)) for name in names]


def query_of(wanted: Filters) -> dict[str, Any]:
    """Return filters as the API's query has them."""
    lengths = {"since": wanted.since, "until": wanted.until}
    ago = {name: ago_text(length) for name, length in lengths.items() if isinstance(length, timedelta)}
    return json_of_filters(wanted) | ago


_api_option = click.option(
    "--api", metavar="URL", envvar="RELAY_API",
    help="Ask this relay serve, with the token in RELAY_API_TOKEN or --api-token-file. [env RELAY_API]",
)  # fmt: skip
_token_option = click.option("--api-token-file", metavar="FILE", help="The file with the token for --api.")


def with_source(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --api, --api-token-file, --database-url and --config, and call it with the Source first."""
    return _with_source(command, None)


def with_source_to_change(command: Callable[..., R]) -> Callable[..., R]:
    """The same, and --actor, for whatever changes something. The API notes the name of the token."""

    @actor_option
    @functools.wraps(command)
    def wrapped(*args: Any, actor: str, **kwargs: Any) -> R:
        return _with_source(command, actor)(*args, **kwargs)

    return _source_options(wrapped)


def _with_source(command: Callable[..., R], actor: str | None) -> Callable[..., R]:
    @functools.wraps(command)
    def wrapped(
        *args: Any, database_url: str | None, config_file: str | None, api: str | None, api_token_file: str | None,
        **kwargs: Any,
    ) -> R:  # fmt: skip
        if api is None:
            _refuse_token_alone(api_token_file)
            loaded = load_config({"database_url": database_url}, config_file)
            return command(Source(Database(loaded.config, actor)), *args, **kwargs)
        if database_url is not None:
            raise click.UsageError("--api and --database-url exclude each other")
        if actor is not None and _is_given("actor"):
            raise click.UsageError("--actor: the API notes the name of the token; leave it out")
        with _client(api, api_token_file) as client:
            return command(Source(None, client), *args, **kwargs)

    return wrapped if actor is not None else _source_options(wrapped)


def _source_options(command: Callable[..., R]) -> Callable[..., R]:
    for option in (config_option, database_url_option, _token_option, _api_option):
        command = option(command)
    return command


def with_api(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command that needs no database --api and --api-token-file, and call it with the Client, or None, first."""

    @_api_option
    @_token_option
    @functools.wraps(command)
    def wrapped(*args: Any, api: str | None, api_token_file: str | None, **kwargs: Any) -> R:
        if api is None:
            _refuse_token_alone(api_token_file)
            return command(None, *args, **kwargs)
        with _client(api, api_token_file) as client:
            return command(client, *args, **kwargs)

    return wrapped


def _refuse_token_alone(file: str | None) -> None:
    if file is not None:
        raise click.UsageError("--api-token-file goes with --api")


def _is_given(name: str) -> bool:
    """Tell whether an option stands on the command line; RELAY_ACTOR, which is for every command, does not count."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _client(url: str, token_file: str | None) -> Client:
    try:
        from relay.client import Client
    except ModuleNotFoundError as error:
        raise click.UsageError(f"--api needs {error.name}: pip install 'outbox-relay[client]'") from None
    return Client(url, _token(token_file), timeout_seconds=_ANSWER_SECONDS)


def _token(file: str | None) -> str:
    """Return the token; never from a flag, which everybody on the machine can read."""
    if file is not None:
        try:
            return Path(file).read_text("utf-8-sig").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise click.UsageError(f"--api-token-file: cannot read {file}: {reason}") from None
    token = os.environ.get("RELAY_API_TOKEN", "").strip()
    if not token:
        raise click.UsageError("--api: no token; set RELAY_API_TOKEN, or give --api-token-file (relay tokens create)")
    return token
