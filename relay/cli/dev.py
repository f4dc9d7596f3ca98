"""`relay dev`: everything an application needs while it is written, on this machine, in one command."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outbox.secret import Secret
from relay.cli.interrupt import interruptible
from relay.cli.listen import as_text, echo, open_port
from relay.cli.options import confirm, warn, yes_option
from relay.config.database_url import redacted
from relay.config.options import Config
from relay.config.sources import load
from relay.local.children import Child
from relay.local.demo.dev import (
    environment,
    for_sqlalchemy,
    make_directory,
    migrate_and_subscribe,
    start_server,
    unsubscribe,
    users_of,
)
from relay.local.receiver.listener import Listener
from relay.operations import sessions
from relay.operations.connection import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dev"]

_POLL_SECONDS = 0.1
_SERVING = re.compile(r"serving on (http://\S+)")
_WEB_PACKAGES = ("fastapi", "uvicorn", "jinja2")


@click.command()
@click.option("--database-url", metavar="URL", help="PostgreSQL. [env RELAY_DATABASE_URL, DATABASE_URL]")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".relay-dev"),
    show_default=True,
    help="For the relay's log and, without a URL, an embedded PostgreSQL.",
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Of the listener.  [default: a free one]")
@click.option(
    "--dashboard-port", type=click.IntRange(0, 65_535), default=0, help="Of the dashboard.  [default: a free one]"
)
@yes_option
def dev(*, database_url: str | None, directory: Path, port: int, dashboard_port: int, yes: bool) -> int:
    """Migrate, run a relay and listen, for development: what your application records is printed here.

    The dashboard runs along; its link signs you in once. It needs the extra web.

    Without a database URL a PostgreSQL of its own is started; its data stay in the directory for the next
    time. A database that is given gets a relay that delivers for real, to its other subscriptions too; it asks
    before that. The listener is subscribed to every event of every tenant until Ctrl-C stops everything.
    """
    loaded = load({"database_url": database_url})
    for warning in loaded.warnings:
        warn(warning)
    make_directory(directory)
    with interruptible(), ExitStack() as stack, suppress(KeyboardInterrupt):
        url = loaded.config.database_url.reveal()
        if url:
            click.echo(f"database  {redacted(url)} ({loaded.origins['database_url']})")
            if users := users_of(url):
                confirm(f"It has {' and '.join(users)}; this relay delivers for real. Go on?", yes=yes)
        else:
            url = stack.enter_context(start_server(directory)).url()
            click.echo(f"database  an embedded PostgreSQL, its data in {directory}/; for your application:")
            click.echo(f"          export DATABASE_URL={for_sqlalchemy(url)}")
        asyncio.run(_serve(url, directory, (port, dashboard_port), stack))
    return 0


async def _serve(url: str, directory: Path, ports: tuple[int, int], stack: ExitStack) -> None:
    secrets: list[str] = []
    listener = Listener(secrets, 200, lambda arrival: echo(as_text(arrival)))
    server = await open_port(listener, ports[0])
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    subscription = migrate_and_subscribe(url, endpoint, directory)
    stack.callback(unsubscribe, url, directory)
    secrets.append(subscription.secret)
    relay = stack.enter_context(Child("relay", ["-m", "relay", "run"], directory / "relay.log", environment(url)))
    await _open_dashboard(url, directory, ports[1], stack)
    click.echo(f"relay     process {relay.pid}, its log in {relay.complaints}")
    click.echo(f"listener  {endpoint} gets every event ({subscription.id}); Ctrl-C stops everything\n")
    while not listener.unread.is_set():
        relay.must_run()
        with suppress(TimeoutError):
            await asyncio.wait_for(listener.unread.wait(), _POLL_SECONDS)


async def _open_dashboard(url: str, directory: Path, port: int, stack: ExitStack) -> None:
    """Serve the dashboard, and print a link that signs in once; both end with us."""
    if missing := [name for name in _WEB_PACKAGES if find_spec(name) is None]:
        click.echo(f"dashboard not here, since {missing[0]} is not installed: pip install 'outbox-relay[web]'")
        return
    token = stack.enter_context(_link(url))
    program = ["-m", "relay", "serve", "--listen", f"127.0.0.1:{port}"]
    child = stack.enter_context(Child("dashboard", program, directory / "dashboard.log", environment(url)))
    while not (found := _SERVING.search(child.complaints.read_text(encoding="utf-8", errors="replace"))):
        child.must_run()
        await asyncio.sleep(_POLL_SECONDS)
    click.echo(f"dashboard {found[1]}/sign-in?once={token} signs you in once")


@contextmanager
def _link(url: str) -> Iterator[str]:
    """Yield a token for the link; afterwards neither it nor the session that began by it is valid."""
    database = Database(Config(database_url=Secret(url)), "relay dev")
    with database.transaction() as connection:
        made = sessions.make_link(connection, None, "sign-in link of relay dev")
    try:
        yield made.text
    finally:
        with database.transaction() as connection:
            sessions.end_link(connection, made.token.id)
