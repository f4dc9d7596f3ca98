"""A server once a worker, a migrated database of its own for each test that asks for one."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Callable, Iterator

import hypothesis
import psutil
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

import outbox
from tests.support import databases
from tests.support.left_open import take_open
from tests.support.loopback import allow_loopback

# How long an example takes to make or to judge says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than cores: tests of leases, outages and deadlines wait for a good third of their time."""
    return (psutil.cpu_count(logical=True) or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without the collector of cycles, and keep it from what was collected.

    Thirteen thousand tests and their modules are a million objects that stay. Looking through them again and again
    took a sixth of the time of collecting, in each worker, and later some of each long test's.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of the server's maintenance database."""
    with databases.server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(server_url: str) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    with databases.database(server_url) as url:
        databases.migrate(url)
        databases.compact(url)
        yield str(make_url(url).database)


@pytest.fixture(scope="session")
def relays_with_their_own_rights(server_url: str, migrated_template: str) -> Iterator[None]:
    """Relays of the tests log in as a member of outbox_relay, and so find out which right is missing."""
    with databases.relay_login(server_url):
        yield


@pytest.fixture
def database_url(server_url: str, migrated_template: str) -> Iterator[str]:
    """The URL (postgresql://…) of a fresh database with the current schema."""
    with databases.database(server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """The URL of a fresh database without the schema."""
    with databases.database(server_url) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[sqlalchemy.Engine]:
    """A SQLAlchemy engine (psycopg) on `database_url`."""
    with databases.engine_on(database_url) as engine:
        yield engine


@pytest.fixture
def default() -> Iterator[outbox.Catalogue]:
    """The process's own catalogue of event types, afterwards as empty and open as it was before."""
    yield outbox.catalogue.default
    outbox.catalogue.default.clear()
    outbox.catalogue.default.configure(closed=False, validate="strict")


@pytest.fixture(scope="session", autouse=True)
def loopback_endpoints() -> None:
    """Let tests, and what is made for a whole module, subscribe receivers on this machine."""
    allow_loopback()


@pytest.fixture(autouse=True)
def endpoints_as_before() -> Iterator[None]:
    """Allow them again after a test that is about what else is allowed: it calls `outbox.allow_endpoints()`."""
    yield
    allow_loopback()


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Fail the test that leaves a connection to SQLite open, instead of another one that meets Python's warning."""
    yield
    assert take_open() == []


@pytest.fixture
def login(database_url: str) -> Iterator[Callable[..., str]]:
    """Make a login role, a member of the given group roles only, and return its URL."""
    made: list[str] = []

    def make(*groups: str) -> str:
        name, password = f"outbox_test_{secrets.token_hex(6)}", secrets.token_hex(16)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"create role {name} login password '{password}'")
            for group in groups:
                connection.execute(f"grant {group} to {name}")
        made.append(name)
        return make_url(database_url).set(username=name, password=password).render_as_string(hide_password=False)

    yield make
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"drop owned by {name} cascade")
            connection.execute(f"drop role {name}")
