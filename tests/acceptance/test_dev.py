"""`relay dev`: one command, and what an application records is printed."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import sqlalchemy

from tests.support.processes import Process, WarmProcess
from tests.support.waiting import wait_until

START_SECONDS = 60
Run = Callable[..., Process]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the user nobody may enter: root's embedded server runs as that."""
    directory = Path(tempfile.mkdtemp(prefix="relay-dev-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts `relay` with arguments; what a test leaves running is ended."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(WarmProcess(["-m", "relay", *arguments], tmp_path / f"{len(started)}.txt"))
        return started[-1]

    yield start
    for process in started:
        process.end()


def start(run: Run, directory: Path, *options: str) -> Process:
    dev = run("dev", "--directory", str(directory), *options)
    wait_until(lambda: "Ctrl-C stops everything" in dev.text or not dev.alive, timeout_seconds=START_SECONDS)
    assert dev.alive, dev.text
    return dev


def stop(dev: Process) -> None:
    """Press Ctrl-C, and see that everything is gone."""
    children = dev.children()
    dev.signal(signal.SIGINT)
    assert dev.wait() == 0, dev.text
    wait_until(lambda: not any(psutil.pid_exists(child.pid) for child in children))


def record(url: str, number: int) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("select outbox.record('order.placed', %s::json)", [f'{{"id":{number}}}']).fetchone()
    assert row
    return str(row[0])


def subscribed(url: str) -> list[str]:
    """The tenants of the subscriptions that get events."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("select tenant from outbox.subscriptions where removed_at is null").fetchall()
    return [tenant for (tenant,) in rows]


def hears(dev: Process, url: str, number: int) -> None:
    """See that the listener is the one subscription, and gets an event, until dev is stopped."""
    assert subscribed(url) == ["*"]
    event_id = record(url, number)
    wait_until(lambda: event_id in dev.text)
    wait_until(lambda: f'"id": {number}\n' in dev.text)
    assert "signature verified" in dev.text
    stop(dev)
    assert subscribed(url) == []


@pytest.mark.slow
def test_on_a_given_database_the_listener_is_subscribed_while_it_runs(
    run: Run, directory: Path, empty_database_url: str
) -> None:
    hears(start(run, directory, "--database-url", empty_database_url), empty_database_url, 1)


@pytest.mark.slow
def test_a_database_that_others_use_is_asked_about_first(run: Run, directory: Path, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into outbox.subscriptions (url, types) values ('https://example.com/', '{*}')")
    with psycopg.connect(database_url, application_name="outbox-relay"):
        dev = run("dev", "--directory", str(directory), "--database-url", database_url)
        assert dev.wait() == 2
    assert "It has 1 active subscriptions and a relay that runs" in dev.text
    assert "Add --yes to do it." in dev.text
    assert subscribed(database_url) == [""]
    stop(start(run, directory, "--database-url", database_url, "--yes"))


@pytest.mark.slow
@pytest.mark.field("F40")
def test_without_a_database_it_starts_one_and_keeps_its_data_and_address(run: Run, directory: Path) -> None:
    dev = start(run, directory)
    shown = dev.text.partition("export DATABASE_URL=")[2].split()[0]
    with sqlalchemy.create_engine(shown, poolclass=sqlalchemy.NullPool).connect() as connection:
        assert connection.dialect.driver == "psycopg"  # also of SQLAlchemy 2.0, where psycopg2 is the default
    url = shown.replace("+psycopg", "")
    first = record(url, 1)
    wait_until(lambda: first in dev.text)
    stop(dev)
    again = start(run, directory)
    assert f"export DATABASE_URL={shown}\n" in again.text
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from outbox.events").fetchone() == (1,)
    stop(again)


@pytest.mark.slow
def test_when_the_relay_ends_dev_ends_with_its_last_words(run: Run, directory: Path, empty_database_url: str) -> None:
    dev = start(run, directory, "--database-url", empty_database_url)
    relay = next(child for child in dev.children() if child.cmdline()[-2:] == ["relay", "run"])
    relay.kill()
    assert dev.wait() == 1
    assert "relay: the relay ended by itself (SIGKILL): " in dev.text


@pytest.mark.slow
def test_even_a_killed_dev_leaves_no_process_and_the_next_one_hears(
    run: Run, directory: Path, empty_database_url: str
) -> None:
    dev = start(run, directory, "--database-url", empty_database_url)
    children = dev.children()
    assert any(child.cmdline()[-2:] == ["relay", "run"] for child in children)
    dev.signal(signal.SIGKILL)
    dev.wait()
    wait_until(lambda: not any(psutil.pid_exists(child.pid) for child in children))
    hears(start(run, directory, "--database-url", empty_database_url), empty_database_url, 2)


@pytest.mark.slow
def test_the_dashboard_is_open_and_its_link_signs_in_once_while_it_runs(
    run: Run, directory: Path, empty_database_url: str
) -> None:
    dev = start(run, directory, "--database-url", empty_database_url)
    record(empty_database_url, 1)
    link = re.search(r"dashboard (http://127\.0\.0\.1:\d+)/sign-in\?once=(rtk_\S+) signs you in once", dev.text)
    assert link, dev.text
    with httpx.Client(base_url=link[1], verify=False) as browser, httpx.Client(base_url=link[1], verify=False) as other:
        for client, status in ((browser, 303), (other, 403)):
            csrf = re.search(r'name="csrf" value="(\w+)"', client.get("/sign-in", params={"once": link[2]}).text)
            assert csrf
            fields = {"csrf": csrf[1], "once": "1", "token": link[2]}
            assert client.post("/sign-in", data=fields).status_code == status
        wait_until(lambda: "order.placed" in browser.get("/deliveries?state=delivered").text)
    stop(dev)
    with psycopg.connect(empty_database_url) as connection:
        live = connection.execute("select count(*) from outbox.tokens where revoked_at is null").fetchone()
    assert live == (0,)
