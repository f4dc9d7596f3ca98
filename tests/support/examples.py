"""The examples as tests drive them: over HTTP, with real processes, and the queries that their operators ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import Connection, text

from examples.running import Example
from tests.support import databases
from tests.support.waiting import wait_until

__all__ = ["Caller", "query_named", "running"]

ROOT = Path(__file__).parents[2] / "examples"


class Caller:
    """Somebody who calls an example's application, and whose hooks its receiver has.

    Nothing here is TLS: `verify=False` spares each call 20 ms of reading the machine's certificates.
    """

    def __init__(self, example: Example, token: str = "") -> None:
        self.example = example
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=example.url, headers=headers, timeout=60, trust_env=False, verify=False)

    def close(self) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        """Return what is answered; fail where that is an error, or another status than the given one."""
        answer = self._client.request(method, path, json=body)
        assert answer.status_code == status or (status is None and answer.is_success), answer.text
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Return the status and the text of a refusal, on a connection that ends: uvicorn does so after an error."""
        answer = self._client.request(method, path, json=body, headers={"Connection": "close"})
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.text

    def hook(self, name: str) -> str:
        """Return the URL of one of the receiver's hooks."""
        return f"{self.example.receiver}/hooks/{name}"

    def set_up(self, name: str, secret: str | None, *answers: int) -> None:
        """Save a hook's secret with the receiver, and the statuses to answer with before 200."""
        given = {"secret": secret, "answers": list(answers)}
        httpx.put(self.hook(name), json=given, trust_env=False, verify=False).raise_for_status()

    def received(self, name: str) -> list[dict[str, Any]]:
        """Return what a hook received so far."""
        found: list[dict[str, Any]] = (
            httpx.get(self.hook(name), trust_env=False, verify=False).raise_for_status().json()
        )
        return found

    def await_resolved(self) -> None:
        """Wait until the relay has resolved every event: what is subscribed or resumed before that gets them too."""
        with psycopg.connect(self.example.database_url, autocommit=True) as connection:
            wait_until(
                lambda: connection.execute("select not exists (select from outbox.pending)").fetchone() == (True,),
                message="some events are not resolved",
            )

    def await_received(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the first requests that a hook received, once there are so many."""
        wait_until(lambda: len(self.received(name)) >= count, message=f"fewer than {count} came", timeout_seconds=40)
        return self.received(name)[:count]


@contextmanager
def running(name: str, server_url: str, directory: Path, **settings: str) -> Iterator[Example]:
    """Run an example on a database of its own, with these variables in place of its own."""
    with databases.database(server_url) as url, Example(name, url, directory, settings) as example:
        yield example


def query_named(connection: Connection, example: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of a query of the example's queries.sql."""
    parts = re.split(r"^-- name: (.*)\n", (ROOT / example / "queries.sql").read_text("utf-8"), flags=re.MULTILINE)
    statements = dict(zip(parts[1::2], parts[2::2], strict=True))
    return [dict(row) for row in connection.execute(text(statements[name])).mappings()]
