"""The pytest plugin: the documented tests run; it costs nothing and breaks nothing where nobody asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import readme

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "testing-your-application.md"
OPTIONS = ("-p", "outbox_relay_pytest", "-p", "anyio", "-p", "no:cacheprovider", "-W", "error")


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is installed; test_packaging.py shows that pytest finds this one."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


CONFTEST = """
import os
import pytest

@pytest.fixture(scope="session")
def outbox_server():
    return os.environ["SHOP_SERVER"]
"""
SHOP = "from relay.local.demo.shop import Base, Order, place_order"
OTHERS = """
import asyncio
import unittest

import django
import pytest
from django.conf import settings
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import outbox
from outbox.testing import assert_recorded, nothing_recorded, recorded


@pytest.mark.anyio
async def test_asynchronous(outbox_database):
    engine = create_async_engine(outbox_database)
    async with AsyncSession(engine) as session:
        with outbox.use_session(session):
            outbox.emit("order.placed", {"id": 1})
        await session.run_sync(assert_recorded, "order.placed", where={"id": 1}, times=1)
        await session.rollback()
        await session.run_sync(nothing_recorded)
    await engine.dispose()


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def django_set_up(outbox_database):
    url = make_url(outbox_database)
    settings.configure(DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username,
        "PASSWORD": url.password, "HOST": url.host, "PORT": url.port}}, USE_TZ=True)
    django.setup()
    yield
    from django.db import connections

    connections.close_all()


class TestDjango:
    def test_in_its_test_case(self):
        from django.db import connection
        from django.test import TestCase

        class Inner(TestCase):
            def test_it(self):
                connection.ensure_connection()
                outbox.record(connection.connection, "order.placed", {"id": 1})
                assert_recorded(connection, "order.placed", where={"id": 1}, times=1)

        for _ in range(2):  # rolled back each time
            result = unittest.TextTestRunner().run(Inner("test_it"))
            assert result.wasSuccessful() and result.testsRun == 1


class TestUnittest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _session(self, session):
        self.session = session

    def test_it(self):
        outbox.record(self.session, "order.placed", {"id": 1})
        with self.assertRaisesRegex(AssertionError, "wanted 2, found 1"):
            assert_recorded(self.session, "order.placed", times=2)


def test_a_failure_is_told_where_it_is_asserted(session):
    outbox.record(session, "order.placed", {"id": 1})
    assert_recorded(session, "order.placed", where={"id": 2})
"""


@pytest.mark.slow
@pytest.mark.field("F55")
@pytest.mark.parametrize("processes", [(), ("-p", "xdist", "-n2")], ids=["one process", "xdist"])
def test_the_documented_tests_and_others_kinds_of_tests_run(
    processes: tuple[str, ...], pytester: pytest.Pytester, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_SERVER", server_url)
    page = "\n".join(block.text for block in readme.blocks(PAGE) if block.language == "python")
    fixtures, tests = page.split("\ndef test_", 1)
    pytester.makeconftest(CONFTEST + fixtures)
    pytester.makepyfile(shop=SHOP, test_documented=f"{fixtures}\ndef test_{tests}", test_others=OTHERS)
    ran = pytester.runpytest_subprocess(*OPTIONS, *processes)
    ran.assert_outcomes(passed=9, failed=1)
    ran.stdout.fnmatch_lines([
        "E *order.placed, data = {'id': 2}: wanted some, found none",
        "E *data.id: wanted 2, is 1",
        "test_others.py:*: AssertionError",
    ])  # fmt: skip
    assert "seen.py" not in ran.stdout.str()


OWN_SERVER = """
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import outbox
from outbox.testing import drain


@pytest.fixture(scope="session")
def engine(outbox_database):
    engine = create_engine(outbox_database)
    yield engine
    engine.dispose()


def note(engine):
    with engine.connect() as connection, open("servers", "a") as file:
        asked = "select current_setting('data_directory'), current_setting('fsync'), current_database()"
        print(*connection.execute(text(asked)).one(), file=file)


def test_what_is_recorded_is_delivered(engine, webhook_receiver):
    with Session(engine) as session:
        webhook_receiver.subscribe(session, "order.*")
        outbox.record(session, "order.placed", {"id": 7})
        session.commit()
    (delivery,) = drain(engine)
    assert delivery.verdict == "delivered"
    assert [request.data for request in webhook_receiver.requests] == [{"id": 7}]
    note(engine)


def test_all_tests_share_it(engine):
    note(engine)
"""
WITHOUT_PYTEST = """
import unittest

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

import outbox
from outbox.testing import assert_recorded, database, postgres


class OfTheShop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(postgres())
        cls.url = cls.enterClassContext(database(cls.server))

    def test_it_records(self):
        engine = create_engine(self.url)
        self.addCleanup(engine.dispose)
        with Session(engine) as session:
            outbox.record(session, "order.placed", {"id": 7})
            session.commit()
            assert_recorded(session, "order.placed", where={"id": 7}, times=1)
            with open("servers", "a") as file:
                print(session.scalar(text("select current_setting('data_directory')")), file=file)


unittest.main()
"""


@pytest.fixture
def no_database_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment leads to a PostgreSQL."""
    for name in [name for name in os.environ if "DATABASE" in name or name.startswith("PG")]:
        monkeypatch.delenv(name)


def servers(directory: Path) -> list[list[str]]:
    """What the tests noted of the server that they ran on; all of it has to be gone by now."""
    noted = [line.split() for line in (directory / "servers").read_text().splitlines()]
    assert {Path(data_directory).exists() for data_directory, *_ in noted} == {False}
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert [line for line in running for data_directory, *_ in noted if data_directory in " ".join(line)] == []
    return noted


@pytest.mark.parametrize("processes", [(), ("-p", "xdist", "-n2")], ids=["one process", "xdist"])
@pytest.mark.usefixtures("no_database_given")
def test_a_suite_that_is_given_no_database_has_a_server_of_its_own(
    processes: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_own=OWN_SERVER)
    pytester.runpytest_subprocess(*OPTIONS, *processes).assert_outcomes(passed=2)
    first, second = servers(pytester.path)
    assert (first == second) is (not processes), "one for a run, or for each worker"
    assert first[1] == "off", "nothing there has to survive a crash"


@pytest.mark.usefixtures("no_database_given")
def test_postgres_is_a_server_for_a_suite_without_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shop_tests=WITHOUT_PYTEST)
    ran = pytester.runpython(pytester.path / "shop_tests.py")
    assert ran.ret == 0
    ran.stderr.fnmatch_lines(["OK"])
    assert len(servers(pytester.path)) == 1


def test_a_project_of_its_own_outbox_is_left_alone(pytester: pytest.Pytester) -> None:
    """The plugin is loaded in every run of pytest where the package is installed."""
    pytester.makepyfile(
        outbox="mine = 1", relay="mine = 2", test_it="import outbox, relay\ndef test_it(): assert outbox.mine"
    )
    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_until_a_test_asks() -> None:
    program = "import pytest, sys; before = {*sys.modules}; import outbox_relay_pytest; print({*sys.modules} - before)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "{'outbox_relay_pytest'}"
