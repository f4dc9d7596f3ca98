"""`relay run --processes 2`: a parent that only looks after its children, and children that never outlive it."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from relay.operations.status.status import status
from tests.support.application import Application
from tests.support.databases import engine_on
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until


def _database_connections(pid: int, database_url: str) -> int:
    port = make_url(database_url).port
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return sum(1 for c in connections if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED)


def _pids(relay: RelayProcess) -> set[int]:
    return {child.pid for child in relay.children()}


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)  # nobody may be there to reap an orphan
    except psutil.NoSuchProcess:
        return False


def test_the_parent_touches_no_database_and_the_children_share_the_work(app: Application) -> None:
    app.subscribe()
    relay = app.stage.running_relay("--processes", "2", processes=2)
    for _ in range(10):
        app.record(20)
    app.wait_settled()
    assert _database_connections(relay.pid, app.stage.database_url) == 0
    assert len(_pids(relay)) == 2
    assert all(_database_connections(pid, app.stage.database_url) for pid in _pids(relay))
    assert relay.stop() == 0
    app.assert_each_once()


def test_a_killed_child_is_replaced_and_the_other_goes_on(app: Application) -> None:
    app.subscribe()
    relay = app.stage.running_relay("--processes", "2", processes=2)
    before = _pids(relay)
    relay.note("killed")
    doomed = before.pop()
    psutil.Process(doomed).kill()
    relay.wait_running(3)
    assert len(_pids(relay)) == 2
    assert before < _pids(relay)
    app.record(20)
    app.wait_settled()
    assert relay.stop() == 0
    app.assert_each_once()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_children_start_ends_all_with_code_0(app: Application, number: signal.Signals) -> None:
    """A child that holds nothing yet dies of it, as it listens to no signal."""
    relay = app.stage.relay("--processes", "2")
    wait_until(lambda: len(relay.children()) == 2)
    relay.signal(number)
    assert relay.wait() == 0, relay.text
    assert "Traceback" not in relay.text
    assert not relay.children()


def test_children_are_of_the_same_code_as_their_parent(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is started: the folder there may have a package of the same name."""
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "__init__.py").write_text("raise SystemExit('another relay')")
    monkeypatch.chdir(tmp_path)
    relay = app.stage.running_relay("--processes", "2", processes=2)
    assert relay.stop() == 0
    assert "another relay" not in relay.text


@pytest.mark.slow
def test_children_stop_within_two_seconds_of_their_parents_death(app: Application) -> None:
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "hang", "200")
    app.record(6)
    relay = app.stage.running_relay("--processes", "2", processes=2)
    app.receiver.wait_for(6)
    children = relay.children()
    relay.kill()
    wait_until(lambda: not any(_alive(child) for child in children), timeout_seconds=2)
    app.rows("update outbox.deliveries set due_at = clock_timestamp()")
    app.stage.drain()
    app.assert_all_accounted()


def test_a_process_holds_at_most_four_connections_under_load(app: Application) -> None:
    app.switch_breakers_off()
    app.subscribe("/one")
    app.subscribe("/two")
    app.receiver.plan("/two", "500", "200")
    relay = app.stage.running_relay()
    most = 0
    for _ in range(20):
        app.record(20)
        most = max(most, _database_connections(relay.pid, app.stage.database_url))
    app.wait_settled()
    assert 1 <= most <= 4


def test_a_wrong_schema_ends_parent_and_children_with_code_2(app: Application) -> None:
    app.drop_schema()
    relay = app.stage.relay("--processes", "2")
    assert relay.wait() == 2
    assert "relay migrate" in relay.text


def test_status_finds_a_relay_whose_url_names_the_application(app: Application) -> None:
    named = make_url(app.stage.database_url).update_query_dict({"application_name": "shop"})
    relay = app.stage.relay(database_url=named.render_as_string(hide_password=False))
    relay.wait_running()
    with engine_on(app.stage.database_url) as engine, engine.connect() as connection:
        reading = connection.execution_options(isolation_level="AUTOCOMMIT")
        wait_until(lambda: status(reading, None).running.alive)
    assert relay.stop() == 0


@pytest.mark.slow
@pytest.mark.field("F94")
def test_a_child_that_is_refused_later_is_started_again_until_its_cause_is_mended(app: Application) -> None:
    # A running child would notice this cause by itself: tests/acceptance/test_upgrade.py. Here it does not look again.
    app.stage.constants = {"relay.process.schema_watch": {"EVERY_SECONDS": 3600.0}}
    relay = app.stage.running_relay("--processes", "2", processes=2)
    before = _pids(relay)
    app.rows("insert into outbox.schema_migrations (version, name, checksum) values (9999, '9999_newer.sql', 'x')")
    relay.note("killed")
    doomed = min(before)
    psutil.Process(doomed).kill()
    refusal = "is at version 9999"
    wait_until(lambda: relay.text.count(refusal) >= 2, timeout_seconds=60)  # started twice, and refused
    assert relay.alive
    assert before - _pids(relay) == {doomed}, "the other child runs on"
    assert relay.text.count("refused its configuration or the schema (exit code 2") == 1
    assert "runs again" not in relay.text
    app.rows("delete from outbox.schema_migrations where version = 9999")
    wait_until(lambda: "runs again, in the place of one that ended with 2" in relay.text, timeout_seconds=60)
    relay.wait_running(3)
    assert relay.text.count("refused its configuration or the schema (exit code 2") == 1
    assert relay.text.count("runs again") == 1
    app.subscribe()
    app.record(20)
    app.wait_settled()
    assert len(_pids(relay)) == 2
    assert relay.stop() == 0
    app.assert_each_once()


@pytest.mark.field("F94")
@pytest.mark.parametrize("cause", ["schema", "configuration"])
def test_a_refusal_at_the_very_start_ends_the_parent_at_once(app: Application, cause: str) -> None:
    if cause == "schema":
        app.rows("insert into outbox.schema_migrations (version, name, checksum) values (9999, '9999_newer.sql', 'x')")
        relay = app.stage.relay("--processes", "2")
    else:
        relay = app.stage.relay("--processes", "2", environment={"RELAY_SECRET_KEY": "nonsense"})
    assert relay.wait() == 2
    assert "until that is mended" not in relay.text
    assert not relay.children()
