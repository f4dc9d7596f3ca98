"""The pytest plugin `outbox_relay`: fixtures of outbox.testing, which is imported when a test asks for one.

A module of its own, outside of both packages: pytest imports it in every run where outbox-relay is installed, and
there it may neither cost anything nor fail because a project has a module named `outbox` or `relay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outbox.testing import WebhookReceiver

__all__ = ["outbox_database", "outbox_server", "webhook_receiver"]


@pytest.fixture(scope="session")
def outbox_server() -> Iterator[str]:
    """The URL of a PostgreSQL for this test run (or worker of pytest-xdist): an embedded one, of the extra `demo`.

    Define a fixture of this name for another server, on which databases may be created.
    """
    from outbox.testing import postgres

    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def outbox_database(outbox_server: str) -> Iterator[str]:
    """The URL (postgresql+psycopg://…) of a new database with the outbox schema, for this test run.

    Define a fixture of this name where your tests have a database of their own; `install_schema()` brings the schema.
    """
    from outbox.testing import database

    with database(outbox_server) as url:
        yield url


@pytest.fixture
def webhook_receiver() -> Iterator[WebhookReceiver]:
    """A receiver of webhooks on this machine that verifies, keeps what came, and answers as told."""
    from outbox.testing import WebhookReceiver

    with WebhookReceiver() as receiver:
        yield receiver
