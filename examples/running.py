"""Run an example with real processes: its application, a customer's receiver beside it, and a relay.

    python -m examples notely

starts a PostgreSQL of its own in a temporary directory and runs until Ctrl-C. Every example has a module `app`, whose
`app` is the application, and `receiver`, whose `app` is what the customer wrote.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from outbox import schema
from relay.local.children import Child
from relay.local.embedded import free_port

__all__ = ["Example"]

_START_SECONDS = 60
_ROOT = Path(__file__).parents[1]


class Example:
    """The processes of one example on one database, until the block ends.

    Args:
        name: the folder in examples.
        database_url: postgresql://…; the schema `outbox` is made in it.
        directory: for the logs.
        settings: variables of the processes, in place of the example's own.
    """

    def __init__(
        self, name: str, database_url: str, directory: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.database_url = database_url
        self._directory = directory
        self._replaced = settings or {}
        self._stack = ExitStack()
        self._ports = {"app": free_port(), "receiver": free_port()}
        self._relays = 0

    @property
    def url(self) -> str:
        """Where the application answers."""
        return f"http://127.0.0.1:{self._ports['app']}"

    @property
    def receiver(self) -> str:
        """Where the customer's receiver answers."""
        return f"http://127.0.0.1:{self._ports['receiver']}"

    @property
    def configuration(self) -> Path:
        """The relay's file of options, where the example has one."""
        return _ROOT / "examples" / self.name / "relay.toml"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            self._migrate()
            for part in ("receiver", "app"):
                self._serve(part)
            self.relay = self.start_relay()
            for url in (self.receiver, self.url):
                _await_answer(f"{url}/openapi.json")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_relay(self, *options: str) -> Child:
        """Start a relay that may send to this machine."""
        self._relays += 1
        configured = ["--config", str(self.configuration)] if self.configuration.exists() else []
        return self.start(f"relay-{self._relays}", ["relay", "run", *configured, *options])

    def start(self, name: str, program: Sequence[str], **more: str) -> Child:
        """Start a module of Python with the example's variables and more; it ends with the example."""
        child = Child(name, ["-m", *program], self._directory / name, self._environment() | more)
        return self._stack.enter_context(child)

    def kill_relay(self) -> None:
        """Kill the relay as a crash would, and start another one."""
        self.relay.kill()
        self.relay = self.start_relay()

    def said(self, part: str, words: str) -> bool:
        """Tell whether a part has written these words so far."""
        return any(words in file.read_text("utf-8", "replace") for file in self._directory.glob(f"{part}*"))

    def _migrate(self) -> None:
        with create_engine(self._driver_url(), poolclass=NullPool).connect() as connection:
            schema.migrate(connection)

    def _serve(self, part: str) -> None:
        program = ["uvicorn", f"examples.{self.name}.{part}:app", "--port", str(self._ports[part])]
        self.start(part, [*program, "--log-level", "warning"])

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RELAY_", "PG"))}
        here = {"RELAY_ALLOW_NETWORKS": "127.0.0.0/8", "RELAY_ALLOW_HTTP": "true"}
        database = {"DATABASE_URL": self._driver_url(), "RELAY_DATABASE_URL": self.database_url}
        parts = {"PYTHONPATH": str(_ROOT), "RECEIVER_URL": self.receiver, "APPLICATION_URL": self.url}
        return {**kept, **self._settings(), **here, **database, **parts, **self._replaced}

    def _settings(self) -> dict[str, str]:
        """Return the variables of the example's file settings.env, where it has one."""
        file = _ROOT / "examples" / self.name / "settings.env"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
        return {name: value.format(receiver=self.receiver) for name, _, value in pairs}

    def _driver_url(self) -> str:
        url = make_url(self.database_url).set(drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)


def _await_answer(url: str) -> None:
    """Wait until somebody answers. Raises TimeoutError."""
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing answers at {url}")
