"""A database that a person has to mend: every command says in one line what is the matter and what mends it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from outbox.schema import runner as schema
from relay.config.options import Config
from relay.process.housekeeping import Housekeeping
from relay.process.presence import Presence
from tests.support import databases
from tests.support.application import Application
from tests.support.processes import RelayProcess, WarmProcess
from tests.support.replication import pair
from tests.support.waiting import wait_until

COMMANDS = [["run", "--until-drained"], ["status"], ["migrate"], ["migrate", "--check"], ["events", "list"]]


def run(directory: Path, database_url: str, *arguments: str) -> tuple[int, str]:
    """Run a command to its end; return its exit code and the last line that it printed."""
    output = directory / f"{secrets.token_hex(4)}.out"
    with WarmProcess(["-m", "relay", *arguments], output, {"RELAY_DATABASE_URL": database_url}) as command:
        code = command.wait(60)
    return code, command.text.strip().splitlines()[-1]


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def foreign(server_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of another encoding, into which psql loaded the schema."""
    name = f"outbox_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create database {name} encoding '{request.param}' locale 'C' template template0")
    url = databases.named(server_url, name)
    script = "\n".join(line for line in schema.render_sql().splitlines() if not line.startswith("\\"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode("ascii", "replace"))
    yield url
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.mark.field("F112")
def test_every_command_refuses_a_database_of_another_encoding(foreign: str, tmp_path: Path) -> None:
    for command in COMMANDS:
        code, said = run(tmp_path, foreign, *command)
        assert (code, "encoding is" in said, "UTF8" in said) == (2, True, True), (command, said)


@pytest.mark.field("F112")
def test_a_standby_takes_no_migration_and_no_relay_and_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pair() as servers:
        databases.migrate(servers.first.url())
        servers.wait_replayed()
        standby = servers.second.url()
        code, said = run(tmp_path, standby, "migrate")
        assert (code, "is a standby" in said) == (2, True), said
        assert run(tmp_path, standby, "events", "list")[0] == 0
        relay = RelayProcess(tmp_path / "incidents", tmp_path / "relay.out", standby)
        with relay:
            wait_until(lambda: "standby" in relay.text)
            assert "running" not in relay.text
        keep_house(standby, 3)
    assert [message.partition(":")[0] for message in caplog.messages] == ["housekeeping"], "the same is said once"


def keep_house(url: str, seconds: float) -> None:
    async def keep() -> None:
        presence = Presence(lambda: url, processes=1, key_ids=(), leased=lambda: 0, unsent=tuple)
        with suppress(TimeoutError):
            await asyncio.wait_for(Housekeeping(Config(database_url=url), presence.sign).run(), seconds)

    asyncio.run(keep())


@pytest.mark.slow
@pytest.mark.field("F44")
def test_a_database_that_is_not_there_is_named_once_in_ten_seconds(server_url: str, tmp_path: Path) -> None:
    relay = RelayProcess(
        tmp_path / "incidents", tmp_path / "relay.out", databases.named(server_url, "outbox_test_none")
    )
    with relay:
        wait_until(lambda: "create the database, then run `relay migrate`" in relay.text)
        time.sleep(3)
        assert relay.text.count("does not exist") == 1


@pytest.mark.field("F44")
def test_a_schema_that_goes_under_a_running_relay_is_named_with_what_mends_it(app: Application) -> None:
    relay = app.stage.running_relay()
    app.drop_schema()
    wait_until(lambda: "run `relay migrate`" in relay.text)
    assert "back after" not in relay.text
    databases.migrate(app.stage.database_url)
    app.subscribe()
    sent = app.record(3)
    wait_until(lambda: {entry["id"] for entry in app.receiver.received()} >= set(sent), timeout_seconds=30)
    assert relay.stop() == 0


@pytest.mark.parametrize("table", ["pending", "subscriptions", "events", "deliveries"])
def test_row_level_security_that_is_switched_on_under_a_running_relay_loses_nothing(
    app: Application, table: str
) -> None:
    """It would hide the rows, and events would be resolved for nobody."""
    app.subscribe()
    relay = app.stage.running_relay()
    app.record(1)
    app.wait_settled()
    app.rows(f"alter table outbox.{table} enable row level security")
    app.record(3)
    mend = f"alter table outbox.{table} disable row level security"
    wait_until(lambda: "policy for table" in relay.text and mend in relay.text)
    app.rows(f"create policy all_of_it on outbox.{table} using (true) with check (true)")
    app.wait_settled()
    app.record(3)
    app.wait_settled()
    app.assert_each_once()
    assert len(app.receiver.received()) == 7
