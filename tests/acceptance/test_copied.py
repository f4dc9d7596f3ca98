"""Production's dump is restored in another cluster, as staging, and a relay started on it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy.engine import make_url

from relay.cli import cli
from relay.local import embedded
from relay.local.embedded import EmbeddedServer
from tests.support import databases
from tests.support.application import Application, staged
from tests.support.dumps import dump, restore
from tests.support.processes import ReceiverProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F22")


@pytest.fixture
def other_cluster() -> Iterator[EmbeddedServer]:
    directory = Path(tempfile.mkdtemp(prefix="outbox-staging-"))
    try:
        with embedded.start(directory, settings={"fsync": "off"}) as server:
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def staging(
    app: Application, other_cluster: EmbeddedServer, tmp_path: Path, receiver_process: ReceiverProcess
) -> Iterator[Application]:
    """Production delivered one event and has five more to deliver when it is dumped; under the same name elsewhere."""
    app.subscribe("/customer")
    relay = app.stage.running_relay()
    app.record(1)
    app.wait_settled()
    assert relay.stop() == 0
    app.record(5)
    name = make_url(app.stage.database_url).database
    assert name is not None
    archive = dump(app.stage.database_url)
    with psycopg.connect(other_cluster.url(), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    restore(archive, other_cluster.url(name))
    databases.migrate(other_cluster.url(name))
    (tmp_path / "staging").mkdir()
    with staged(tmp_path / "staging", other_cluster.url(name), receiver_process) as copied:
        yield copied


def command(app: Application, *words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(cli, words, env={"RELAY_DATABASE_URL": app.stage.database_url})
    return ended.exit_code, ended.output


@pytest.mark.slow
def test_staging_made_of_a_dump_sends_nothing_to_customers_until_it_is_adopted(staging: Application) -> None:
    relay = staging.stage.running_relay("--processes", "2", processes=2)
    staging.record(4)
    wait_until(lambda: staging.one("select count(*) from outbox.deliveries") == 9)
    assert staging.receiver.received() == []
    wait_until(lambda: relay.text.count("this database is a copy") == 2, message=relay.text)
    code, told = command(staging, "status", "--check")
    assert code == 1
    assert told.startswith("this database is a copy, and nothing is sent from it: it was at home as database ")
    assert told.splitlines()[0].endswith("; relay adopt, if its events are to be sent from here")
    code, told = command(staging, "adopt", "--json", "--yes")
    assert (code, json.loads(told)["deliveries"]["open"]["value"]) == (0, 9)
    staging.wait_settled()
    assert len(staging.receiver.wait_for(9)) == 9
    wait_until(lambda: relay.text.count("sending goes on") == 2)
    assert relay.stop() == 0
    assert "this database is a copy" not in command(staging, "status", "--check")[1]
