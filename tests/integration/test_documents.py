"""The Python, SQL and console blocks of the documents run as they stand, but those of TESTED_ELSEWHERE.

test_document_commands.py runs the shell blocks.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
from outbox.signing.verify import new_secret
from relay.local.demo import shop
from relay.operations import tokens
from tests.support import readme
from tests.support.dashboard import served
from tests.support.readme import DOCUMENTS, README, Block
from tests.support.waiting import wait_until

RELAY = Path(sysconfig.get_path("scripts")) / "relay"
TESTED_ELSEWHERE = {
    "django.md": "test_django_document.py",
    "integrations.md": "test_integrations.py",
    "postgresql-pruning-crash.md": "test_pruning_crash.py",
    "receiving.md": "test_receiving.py",
    "start.md": "tests/acceptance/test_start.py",
    "testing-your-application.md": "test_pytest_plugin.py",
    "views.md": "test_views.py",
}
BLOCKS = [block for document in DOCUMENTS for block in readme.blocks(document) if document.name not in TESTED_ELSEWHERE]
OF_FLOW = [block for block in BLOCKS if block.document.startswith("docs/flow/")]
OF_THE_CLIENT = [block for block in BLOCKS if block.language == "python" and "from relay.client" in block.text]
QUERIES = [span for document in DOCUMENTS for span in readme.spans(document) if span.startswith("select ")]
NOT_RUN_HERE = {"pip install outbox-relay"}  # tests/unit/test_packaging.py builds the wheel


def of_language(language: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == language], ids=str)


@pytest.fixture
def shop_engine(engine: sqlalchemy.Engine) -> sqlalchemy.Engine:
    """An engine on a database that has the tables of the shop and of the outbox."""
    shop.Base.metadata.create_all(engine)
    return engine


def example(engine: sqlalchemy.Engine) -> None:
    """Run README's first block; nothing is defined for it but what an application has."""
    names = {"engine": engine, "Session": Session, "Order": shop.Order, "outbox": outbox}
    run(readme.blocks(README)[0], names)


def run(block: Block, names: dict[str, Any]) -> None:
    """Execute a block as a module of its own: this one's `from __future__` is not its own."""
    exec(compile(block.text, str(block), "exec", dont_inherit=True), names)


def the_event(engine: sqlalchemy.Engine) -> Any:
    """The one event there is: id, type, key, payload."""
    with engine.connect() as connection:
        columns = "outbox.text_id('evt', id) as id, type, key, payload"
        return connection.execute(text(f"select {columns} from outbox.events")).one()


def test_the_event_of_readme_carries_the_id_that_the_database_gave_the_order(shop_engine: sqlalchemy.Engine) -> None:
    with shop_engine.begin() as connection:
        connection.execute(text("select setval('orders_id_seq', 40)"))
    example(shop_engine)
    with shop_engine.connect() as connection:
        assert connection.execute(text("select id, cents from orders")).all() == [(41, 4200)]
        assert connection.execute(text("select count(*) from outbox.pending")).scalar_one() == 1
    assert the_event(shop_engine).type == "order.placed"
    assert json.loads(the_event(shop_engine).payload) == {"id": 41, "cents": 4200}


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "python" and one not in OF_FLOW], ids=str)
def test_python_runs(block: Block, shop_engine: sqlalchemy.Engine) -> None:
    example(shop_engine)
    secret, event = new_secret(), the_event(shop_engine)
    body = f'{{"type":"{event.type}","timestamp":"2026-11-21T10:00:00.123456Z","data":{event.payload}}}'.encode()
    received = {"request_headers": outbox.signed_headers(secret, event.id, body), "request_body": body}
    names = {"engine": shop_engine, "Session": Session, "Order": shop.Order, "outbox": outbox, "secret": secret}
    names |= {"__name__": "__main__"}
    run(block, names := names | received)
    if promised := re.search(r"^event = .*# ({.*})$", block.text, re.MULTILINE):
        sent = names["event"]
        assert sent.pop("timestamp").endswith("Z")
        assert {"timestamp": "…Z"} | sent == ast.literal_eval(promised[1])


@pytest.mark.parametrize(
    "block", [one for one in OF_FLOW if one.language == "python" and one not in OF_THE_CLIENT], ids=str
)
def test_python_of_the_pages_about_flow_runs(block: Block, engine: sqlalchemy.Engine) -> None:
    """These show one call each: a session and a subscription are there already."""
    with Session(engine) as session, session.begin():
        url, made = "https://customer.example/hooks", "sub_…"
        subscription_id = outbox.subscribe(session, url, ["order.*"]).id
        names = {"session": session, "connection": session.connection(), "subscription_id": subscription_id, "url": url}
        run(replace(block, text=block.text.replace(made, subscription_id)), {**names, "outbox": outbox})


@pytest.mark.parametrize("block", OF_THE_CLIENT, ids=str)
def test_python_of_the_client_runs(block: Block, engine: sqlalchemy.Engine, database_url: str) -> None:
    """A relay serve answers, and there are a token and a subscription."""
    with engine.begin() as connection:
        subscription_id = outbox.subscribe(connection, "https://customer.example/hooks", ["order.*"]).id
        token = tokens.create(connection, None, name="of the page", rights=["read", "operate"], whose=None).text
    with served(database_url) as address:
        code = replace(block, text=block.text.replace("https://relay.internal", address))
        run(code, {"token": token, "subscription_id": subscription_id})
    with engine.connect() as connection:
        assert connection.execute(text("select kind, rate, state from outbox.bulk_operations")).all() == [
            ("recover", 200, "running")
        ]


@of_language("sql")
def test_sql_runs(block: Block, engine: sqlalchemy.Engine, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(block.text.encode())
    event_type, data, key = re.findall(r"'([^']*)'", block.text)
    event = the_event(engine)
    expected = None if "idempotency_key =>" in block.text else key
    assert (event.type, event.key, json.loads(event.payload)) == (event_type, expected, json.loads(data))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_in_the_prose_runs(query: str, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute(query.encode()).description


@pytest.mark.slow
@of_language("console")
def test_console_runs_line_by_line(block: Block, empty_database_url: str, tmp_path: Path) -> None:
    for file in (one for one in BLOCKS if one.document == block.document and one.language == "toml"):
        if named := re.match(r"# (\w+\.toml)\n", file.text):
            (tmp_path / named[1]).write_text(file.text)
    console = Console(empty_database_url, tmp_path)
    for line in block.text.splitlines():
        assert line.startswith("$ "), "what a command prints is not part of a block"
        if line[2:] not in NOT_RUN_HERE:
            console.run(line[2:])
    assert console.began


class Console:
    """A small shell: `export` keeps a variable, `relay run` runs until it delivers, other commands must end well."""

    def __init__(self, database_url: str, directory: Path) -> None:
        self.environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.began: list[str] = []
        self._database_url = database_url
        self._directory = directory

    def run(self, line: str) -> None:
        """Run one line; the database it names is the test's."""
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = self._database_url if name == "DATABASE_URL" else value
            return
        assert words[0] == "relay", line
        self.began.append(line)
        act: Callable[[list[str]], None] = self._deliver if words[1] == "run" else self._finish
        act(words[1:])

    def _finish(self, words: list[str]) -> None:
        done = subprocess.run(
            [RELAY, *words], env=self.environment, cwd=self._directory, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        if words[:2] == ["subscriptions", "add"]:
            assert re.search(r"\bwhsec_[\w+/]+=*", done.stdout)

    def _deliver(self, words: list[str]) -> None:
        log = self._directory / "run.log"
        processes = int(words[words.index("--processes") + 1]) if "--processes" in words else 1
        with log.open("wb") as output:
            relay = subprocess.Popen([RELAY, *words], env=self.environment, stdout=output, stderr=output)
        try:
            wait_until(
                lambda: relay.poll() is not None or log.read_text().count(" running, process ") == processes,
                timeout_seconds=60,
            )
        finally:
            relay.send_signal(signal.SIGTERM)
        assert relay.wait(40) == 0, log.read_text()
