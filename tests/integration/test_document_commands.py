"""The shell blocks of the documents run line by line, and their requests and samples are what the code takes.

What a line names must be there: a subscription, an event, files. What cannot run here says why in NOT_RUN.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import sqlalchemy
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from outbox.signing.verify import new_secret
from relay.cli import cli
from relay.local.demo import shop
from relay.operations import tokens
from tests.support import readme, seeding
from tests.support.dashboard import served
from tests.support.far_end import FarEnd, answering
from tests.support.own_schemes import only_here
from tests.support.readme import DOCUMENTS, Block
from tests.support.waiting import wait_until

BLOCKS = [block for document in DOCUMENTS for block in readme.blocks(document)]
NOT_RUN = {
    "README.md": "the two commands install this project; .ci/run runs both in an empty environment",
    "docs/testing.md": "these run the tests themselves, for minutes or hours; .ci/run runs the suite and the site",
    "docs/deploy.md": "needs a registry of images, systemd or Kubernetes; .ci/image builds and runs the image",
    "docs/django.md": "needs a Django project; test_django_shop.py runs its manage.py with migrate and relay",
    "docs/receiving.md": "test_receiving.py runs each of its commands",
}
"""Documents whose shell blocks do not run here, and why."""
LEFT_OUT = {
    "pip install": "from PyPI; tests/unit/test_packaging.py builds the wheel",
    "smokescreen": "a program of others; tests/acceptance/test_egress_proxy.py has a proxy",
    "RELAY_EGRESS_PROXY=": "names a proxy on another machine; test_egress_proxy.py runs with one",
    "relay url-check --resolve": "asks a public resolver; tests/unit/test_url_check.py has one of its own",
}
"""Lines that do not run here, by how they begin, and why."""
SHELL = [block for block in BLOCKS if block.language == "sh" and block.document not in NOT_RUN]
ENDS_WITH_1 = ("relay url-check https", "relay subscriptions filter-test")
"""Commands whose exit code says what they found: an address that is forbidden, a filter that does not match."""
ASKS = ("relay inbox replay", "relay capture remove")
"""Commands that ask a person at a terminal."""
N8N_SECRET = new_secret()


@dataclass
class Place:
    """A directory with the files that the pages name, and a database with what they name."""

    directory: Path
    database_url: str
    engine: sqlalchemy.Engine
    far_end: FarEnd
    ids: dict[str, str]

    def run(self, line: str) -> str:
        """Run one line of a block; return what it printed."""
        for prefix, made in self.ids.items():
            line = line.replace(f"{prefix}_…", made)
        line = line.replace("http://127.0.0.1:8000", self.far_end.url("")[:-1]).replace("/…", "/what-it-is")
        line += " --yes" if line.startswith(ASKS) else ""
        words = shlex.split(line, comments=True)
        if words[0] == "psql":
            assert words[1] == "-c"
            with psycopg.connect(self.database_url) as connection:
                connection.execute(words[2].encode())
            return ""
        assert words[0] == "relay", line
        return self._serve(words[1:]) if words[1] == "serve" else self._finish(words[1:], line)

    def _finish(self, words: list[str], line: str) -> str:
        given = None
        if words[-2:-1] == ["<"]:
            given = (self.directory / words[-1]).read_text()
            words = words[:-2]
        ended = CliRunner().invoke(cli, words, env=self._environment(), input=given, standalone_mode=False)
        assert ended.exception is None, ended.exception
        assert (ended.return_value or 0) == (1 if line.startswith(ENDS_WITH_1) else 0), ended.output
        return ended.stdout

    def _environment(self) -> dict[str, str]:
        return {
            "RELAY_DATABASE_URL": self.database_url, "RELAY_ACTOR": "reader", "RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
            "RELAY_ALLOW_HTTP": "true",
        }  # fmt: skip

    def _serve(self, words: list[str]) -> str:
        """Serve until it listens, on a port of its own, and then end it."""
        port = ["--listen", "127.0.0.1:0"]
        log = self.directory / "serve.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PG"))}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "relay", *words, *port], env=kept | self._environment(), stdout=output,
                stderr=output,
            )  # fmt: skip
        try:
            wait_until(
                lambda: "serving on http://" in log.read_text() or process.poll() is not None, timeout_seconds=60
            )
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()
        return log.read_text()


@pytest.fixture
def place(
    tmp_path: Path, database_url: str, engine: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    files = {
        "filter.json": '{"payload": {"total": {"$gte": 100}}}', "order.json": '{"id": 7, "total": 42}',
        "routing-key.txt": "0123456789abcdef0123456789abcdef", "n8n.txt": N8N_SECRET,
        "urls.jsonl": '"https://hooks.example.com/in"\n"https://10.0.0.1/"\n',
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with engine.begin() as connection:
        shop.Base.metadata.create_all(connection)
        connection.execute(text("create schema shop"))
        connection.execute(
            text("create table shop.leads (id bigint primary key, name text, status text, owner text not null)")
        )
        event = seeding.record(connection, '{"id": 7, "total": 142, "customer": {"id": 42}}', type="order.paid",
                               tenant="acme", key="customer-42")  # fmt: skip
        subscription = seeding.subscribe(connection, tenant="acme")
        (delivery,) = seeding.resolve(connection, event, subscription)
        seeding.attempt(connection, delivery, "delivered")
    with answering() as far_end:
        yield Place(
            tmp_path, database_url, engine, far_end, {"sub": subscription, "evt": event, "inb": receive_failing(engine)}
        )


def receive_failing(engine: sqlalchemy.Engine) -> str:
    """Receive a message upon which the application fails; return its id."""
    body = b'{"callback_id": "1"}'
    headers = [*outbox.signed_headers(N8N_SECRET, "evt_1", body).items(), ("content-type", "application/json")]

    def act(_: outbox.inbox.Received) -> None:
        raise ValueError("not today")

    with Session(engine) as session:
        request = outbox.inbox.Request("POST", "/hooks/n8n", tuple(headers), body)
        with suppress(ValueError):
            outbox.inbox.process(session, request, N8N_SECRET, act, source="n8n")
        (row,) = outbox.inbox.messages(session, outcome="failed").items
        return str(row.id)


def lines_of(block: Block) -> list[str]:
    return [line for line in readme.shell_lines(block) if line and not line.startswith(tuple(LEFT_OUT))]


@pytest.mark.parametrize(
    "block", [pytest.param(one, marks=[pytest.mark.slow] if "relay serve" in one.text else []) for one in SHELL],
    ids=str,
)  # fmt: skip
def test_a_shell_block_runs_line_by_line(block: Block, place: Place) -> None:
    for line in lines_of(block):
        place.run(line)


def test_every_reason_is_of_something() -> None:
    assert NOT_RUN.keys() <= {block.document for block in BLOCKS if block.language == "sh"}
    lines = [line for block in SHELL for line in readme.shell_lines(block)]
    assert [begin for begin in LEFT_OUT if not any(line.startswith(begin) for line in lines)] == []
    assert len([line for block in SHELL for line in lines_of(block)]) >= 38


def test_what_some_lines_do_is_seen_in_the_database(place: Place) -> None:
    """They are not only parsed."""

    def run(document: str, begin: str) -> str:
        lines = [line for block in SHELL if block.document == document for line in lines_of(block)]
        return place.run(next(line for line in lines if line.startswith(begin)))

    run("docs/capture.md", "relay capture install shop.leads --created")
    run("docs/inbox.md", "relay inbox replay")
    run("docs/flow/limits.md", "relay tenants limit acme")
    run("docs/flow/transform.md", "relay subscriptions update")
    run("docs/inbox.md", "psql")
    assert run("docs/portal.md", "relay portal link").count("https://hooks.example.com/portal/open?link=ptl_") == 1
    with place.engine.begin() as connection:
        connection.execute(text("insert into shop.leads values (1, 'Ann', 'new', 'globex')"))
        captured = text("select type, tenant, payload from outbox.events where type = 'lead.scraped'")
        ((event, tenant, payload),) = connection.execute(captured).all()
        assert (event, tenant, json.loads(payload)) == ("lead.scraped", "globex", {"id": 1, "name": "Ann"})
        sub = outbox.subscriptions.get(connection, place.ids["sub"], tenant="acme")
        assert sub.transformation == "{order: data.id, total: data.total}"
        days = text("select value from outbox.settings where name = 'inbox_days'")
        assert connection.execute(days).scalar_one() == 30
    (replayed,) = place.far_end.received["hooks/n8n"]
    assert outbox.verify(N8N_SECRET, replayed.headers, replayed.body.encode()).json() == {"callback_id": "1"}


# ---- what stands as text, or JSON, or TOML


def block_of(document: str, language: str, words: str) -> Block:
    (found,) = [
        block for block in BLOCKS
        if (block.document, block.language) == (document, language) and words in block.text
    ]  # fmt: skip
    return found


def test_the_request_of_the_api_s_page_records_an_event_once(database_url: str, engine: sqlalchemy.Engine) -> None:
    head, _, body = block_of("docs/api.md", "text", "Idempotency-Key").text.partition("\n\n")
    first, *headers = head.splitlines()
    method, path = first.split()
    with engine.begin() as connection:
        token = tokens.create(connection, None, name="page", rights=["write"], whose=None).text
    given = dict(line.split(": ") for line in headers) | {"Authorization": f"Bearer {token}"}
    with served(database_url) as address, httpx.Client(base_url=address, verify=False, trust_env=False) as client:
        kind = {"Content-Type": "application/json"}
        answers = [client.request(method, path, content=body.encode(), headers=given | kind) for _ in range(2)]
    assert [answer.is_success for answer in answers] == [True, True], answers[0].text
    with engine.connect() as connection:
        found = connection.execute(text("select type, key, payload from outbox.events")).all()
    assert found == [("order.placed", "order-7", '{"id": 7, "cents": 4200}')]


def test_the_loop_of_the_api_s_page_puts_back_dead_letters(database_url: str, engine: sqlalchemy.Engine) -> None:
    block = block_of("docs/api.md", "text", "relay.pages")
    with engine.begin() as connection:
        subscription = seeding.subscribe(connection, tenant="acme")
        for _ in range(2):
            (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="acme"), subscription)
            seeding.attempt(connection, delivery, "dead")
        token = tokens.create(connection, None, name="page", rights=["read", "operate"], whose=None).text
    with served(database_url) as address:
        code = block.text.replace("https://relay.internal", address)
        exec(compile(code, str(block), "exec", dont_inherit=True), {"token": token})
    with engine.connect() as connection:
        statement = "select (select count(*) from outbox.dead_letters), (select count(*) from outbox.deliveries)"
        assert connection.execute(text(statement)).one() == (0, 2)


def test_the_join_with_one_s_own_table_finds_its_event(engine: sqlalchemy.Engine) -> None:
    shop.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(order := shop.Order(cents=4200))
        session.flush()
        outbox.record(session, "order.placed", {"id": order.id}, key=f"order-{order.id}")
        session.commit()
        found = session.execute(text(block_of("docs/tables.md", "text", "join outbox.events").text)).all()
        assert [row.id for row in found] == [order.id]


def test_the_commands_among_the_samples_run(place: Place) -> None:
    for line in readme.shell_lines(block_of("docs/history.md", "text", "relay deliveries attempts")):
        place.run(line)


def test_each_authentication_of_the_page_is_read(place: Place) -> None:
    block = block_of("docs/subscriptions.md", "text", '"type": "oauth2"')
    samples = re.findall(r"\{[^}]*\}", block.text)
    assert len(samples) == 3
    for sample in samples:
        (place.directory / "authentication.json").write_text(sample.replace("…", "secret"))
        added = place.run(
            "relay subscriptions add https://a.example/ '*' --authentication-file authentication.json --json"
        )
        assert json.loads(sample)["type"] in json.loads(added)["authentication"].lower()


def test_the_body_of_the_page_is_what_is_sent(place: Place) -> None:
    (block,) = [block for block in BLOCKS if block.language == "json"]
    wanted = json.loads(block.text)
    (place.directory / "data.json").write_text(json.dumps(wanted["data"], separators=(",", ":")))
    shown = place.run(f"relay subscriptions preview sub_… --type {wanted['type']} --data data.json --json")
    (body,) = [part["body"] for part in json.loads(shown).values() if isinstance(part, dict) and "body" in part]
    time = re.compile(r'"timestamp":"[^"]*"')
    assert time.sub("", body) == time.sub("", block.text.strip())


def test_the_scheme_of_a_move_is_declared(place: Place) -> None:
    (place.directory / "relay.toml").write_text(block_of("docs/from-convoy.md", "toml", "[schemes.our-convoy]").text)
    with only_here():
        shown = place.run("relay schemes show our-convoy --config relay.toml")
    assert re.search(r"^ *X-Our-Signature: t=\d+,v1=[\w+/]{86}==", shown, re.MULTILINE), shown
