"""An upgrade under load: the former version goes on while the schema is migrated, and says what is to be done after."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from outbox.schema.compatibility import known_version
from tests.support.application import Application, staged
from tests.support.former import NEWEST_MIGRATION, Former, UnreachableError, former_tree
from tests.support.processes import ReceiverProcess, RelayProcess, read_log
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F72")

KNOWN = known_version()
IN_USE = "migrate: a table of the schema outbox is in use by another transaction, and nothing was changed"
# What the former relay says of a database that changed under it; everything else above `info` is a failure.
EXPECTED = (
    "fsync is off on the server",
    "synchronous_commit is off",
    "database: another server or timeline, or another schema; everything known is read again",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return former_tree(tmp_path_factory.mktemp("former"))
    except UnreachableError as error:
        pytest.skip(str(error))


@pytest.fixture
def old_app(tmp_path: Path, empty_database_url: str, receiver_process: ReceiverProcess) -> Iterator[Application]:
    """An application on a database without the schema."""
    with staged(tmp_path, empty_database_url, receiver_process) as app:
        yield app


def start_former(former: Former, app: Application, name: str) -> RelayProcess:
    relay = former.relay(app.stage.incidents, name)
    app.stage.started.append(relay)
    return relay


def subscribe(former: Former, app: Application) -> None:
    secret = app.stage.directory / "secret"
    secret.write_text(app.receiver.secret)
    adding = former.command(
        *("subscriptions", "add", app.receiver.url("/hook"), "*", "--secret-file", str(secret)),
        environment={"RELAY_ALLOW_HTTP": "true", "RELAY_ALLOW_NETWORKS": "127.0.0.0/8"},
    )
    app.stage.started.append(adding)
    assert adding.wait() == 0, adding.text
    app.know(app.one("select outbox.text_id('sub', id) from outbox.subscriptions"), "/hook")


def migrate(url: str) -> None:
    """Run `relay migrate` of now as a person does: again, where it says that a table is in use."""
    for _ in range(10):
        ended = subprocess.run(
            [sys.executable, "-m", "relay", "migrate"],
            env={"RELAY_DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if ended.returncode == 0:
            return
        assert IN_USE in ended.stderr, ended.stderr
    raise AssertionError("a table was in use each time")


def unexpected(relay: RelayProcess) -> list[str]:
    """What a relay said that is neither information nor known."""
    return [
        line
        for line in relay.text.splitlines()
        if " info " not in line and not any(known in line for known in EXPECTED)
    ]


@pytest.mark.slow
def test_former_applications_and_relays_go_on_while_the_schema_is_migrated(tree: Path, old_app: Application) -> None:
    app, former = old_app, Former(tree, old_app.stage.directory, old_app.stage.database_url)
    made = former.command("migrate")
    assert made.wait() == 0, made.text
    assert app.one("select max(version) from outbox.schema_migrations") == NEWEST_MIGRATION
    subscribe(former, app)
    relay = start_former(former, app, "relay")
    relay.wait_running()
    writer = former.writer("--events", 3000, "--per-second", 200, "--batch", 2, "--rollback-share", 0)
    app.stage.started.append(writer)
    app.receiver.wait_for(100)

    migrate(app.stage.database_url)
    recorded = writer.committed()
    wait_until(lambda: writer.committed() >= recorded + 100, message="the former application records no more")
    app.receiver.wait_for(len(app.receiver.received()) + 100)  # by the former relay, which is the only one
    new = app.stage.running_relay()
    app.receiver.wait_for(len(app.receiver.received()) + 100)  # by both
    assert relay.stop() == 0
    assert unexpected(relay) == []

    again = start_former(former, app, "again")
    assert again.wait() == 2
    assert again.text == f"relay: the outbox schema is at version {KNOWN}, newer than 9: upgrade outbox-relay\n"
    writer.finish()
    assert {entry["what"] for entry in read_log(writer.log)} == {"committed"}  # a statement that fails is rolled back
    app.take_over(writer)
    app.record(20)
    app.wait_settled()
    assert new.stop() == 0
    assert unexpected(new) == []
    app.assert_each_once()


def note_migration(app: Application, version: int, least_code: int | None) -> None:
    with psycopg.connect(app.stage.database_url) as connection:
        connection.execute(
            "insert into outbox.schema_migrations (version, name, checksum, least_code) values (%s, 'later', '', %s)",
            (version, least_code),
        )


@pytest.mark.slow
def test_a_running_relay_goes_on_beside_a_migration_that_allows_it_and_drains_at_one_that_does_not(
    app: Application,
) -> None:
    app.stage.constants = {"relay.process.schema_watch": {"EVERY_SECONDS": 0.1}}
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "200")
    relay = app.stage.running_relay()
    note_migration(app, KNOWN + 1, KNOWN)
    wait_until(lambda: f"schema is at version {KNOWN + 1}, newer than this relay" in relay.text)
    app.record(5)
    app.wait_settled()
    also = app.stage.running_relay()  # starts beside it, too
    assert also.stop() == 0

    app.receiver.plan("/hook", "hold")
    app.record(1)
    app.receiver.wait_for(6)
    note_migration(app, KNOWN + 2, None)
    refusal = f"the outbox schema is at version {KNOWN + 2}, newer than {KNOWN}, which this outbox-relay "
    wait_until(lambda: refusal in relay.text)
    app.receiver.release()
    assert relay.wait() == 2
    assert relay.text.count(refusal) == 1
    app.wait_settled()  # what was under way was settled
    app.assert_each_once()

    again = app.stage.relay()
    assert again.wait() == 2
    assert refusal in again.text
    assert again.text.rstrip().endswith("upgrade outbox-relay")


@pytest.mark.slow
def test_with_several_processes_the_parent_stays_and_they_run_again_when_it_is_mended(app: Application) -> None:
    app.stage.constants = {"relay.process.schema_watch": {"EVERY_SECONDS": 0.1}}
    relay = app.stage.running_relay("--processes", "2", processes=2)
    note_migration(app, KNOWN + 1, None)
    ended = "refused its configuration or the schema (exit code 2"
    wait_until(lambda: relay.text.count(ended) == 2, timeout_seconds=60)
    assert relay.alive
    app.rows(f"delete from outbox.schema_migrations where version > {KNOWN}")
    relay.wait_running(4)
    app.subscribe()
    app.record(5)
    app.wait_settled()
    assert relay.stop() == 0
    app.assert_each_once()
