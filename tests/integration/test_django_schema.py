"""Django's migrations keep the schema outbox, its checks look at it, its test runners make it; `relay` runs on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connections, router, transaction
from django.db.migrations.exceptions import IrreversibleError
from sqlalchemy.engine import make_url

from outbox.errors import SchemaError
from outbox.schema import comparison, runner
from relay.config.database_url import normalised
from tests.support import databases, django_site
from tests.support.django_site import on_database, scalars
from tests.support.processes import ROOT

django_site.begin()

from outbox.django import schema  # noqa: E402 - only now are there settings
from outbox.django.management.commands import relay  # noqa: E402

VERSIONS = "select version from outbox.schema_migrations order by 1"
APPLIED = "select name from django_migrations where app = 'outbox_relay' order by 1"
EVERY = [one.version for one in runner.migrations()]


def migrate(*arguments: str, **options: Any) -> None:
    call_command("migrate", *(arguments or ("outbox_relay",)), verbosity=0, **options)


def findings() -> list[str]:
    return [message.id for message in run_checks(databases=["default"])]


def test_every_version_of_the_schema_has_a_migration_of_django() -> None:
    files = Path(schema.__file__).with_name("migrations").glob("[0-9]*.py")
    assert sorted(file.stem for file in files) == schema.names(), "copy 0027_portal.py; its name is the SQL file's"


@pytest.mark.parametrize("before", [0, 26, EVERY[-1]])
def test_migrate_brings_the_schema_to_the_newest_version_from_any(empty_database_url: str, before: int) -> None:
    with on_database(empty_database_url) as connection:
        if before:
            databases.migrate_to(empty_database_url, before)
        assert ("outbox_relay.W002" in findings()) == (before != EVERY[-1])
        migrate()
        migrate()
        assert findings() == []
        assert connection.get_autocommit()
        assert connection.is_usable()
    assert scalars(empty_database_url, VERSIONS) == EVERY
    assert scalars(empty_database_url, APPLIED) == schema.names()
    with databases.engine_on(empty_database_url) as engine, engine.connect() as connection:
        assert comparison.differences(connection) == []


def test_nothing_is_left_to_migrate_or_to_make_and_nothing_goes_back(server_url: str) -> None:
    with django_site.site_database(server_url) as url:
        call_command("migrate", check_unapplied=True, verbosity=0)
        call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
        with pytest.raises(IrreversibleError, match="drop schema outbox cascade"):
            migrate("outbox_relay", "zero")
        assert scalars(url, VERSIONS) == EVERY


def test_a_newer_schema_is_named(database_url: str) -> None:
    with databases.engine_on(database_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into outbox.schema_migrations (version, name, checksum) values (9999, 'later', '')"
        )
    with on_database(database_url):
        (found,) = run_checks(databases=["default"])
        assert (found.id, "upgrade outbox-relay" in found.msg) == ("outbox_relay.W002", True)


def test_inside_a_transaction_it_is_refused(empty_database_url: str) -> None:
    with on_database(empty_database_url) as connection:
        with transaction.atomic(), pytest.raises(SchemaError, match=r"outside transaction\.atomic\(\)"):
            schema.bring(connection)
        assert connection.introspection.table_names() == []


def test_a_database_that_cannot_be_reached_is_a_finding(database_url: str) -> None:
    gone = make_url(database_url).set(database="outbox_test_gone").render_as_string(hide_password=False)
    with on_database(gone):
        (found,) = run_checks(databases=["default"])
        assert (found.id, "outbox_test_gone" in found.msg) == ("outbox_relay.W003", True)


def test_routers_say_where_the_schema_is(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
            return app_label != "outbox_relay"

    monkeypatch.setattr(router, "routers", [Elsewhere()])
    with on_database(empty_database_url):
        migrate()
        assert findings() == ["outbox_relay.W001"]
    assert scalars(empty_database_url, "select to_regnamespace('outbox')") == [None]


def test_the_schema_is_made_where_migrations_are_switched_off(empty_database_url: str, settings_of: Any) -> None:
    settings_of.MIGRATION_MODULES = dict.fromkeys(["outbox_relay", "django_shop", "admin", "auth", "sessions"])
    settings_of.MIGRATION_MODULES["contenttypes"] = None
    with on_database(empty_database_url):
        call_command("migrate", run_syncdb=True, verbosity=0)
    assert scalars(empty_database_url, VERSIONS) == EVERY


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Django's settings, which are put back afterwards."""
    from django.test.utils import override_settings

    with override_settings():
        from django.conf import settings

        yield settings


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "postgresql:///shop"),
        ({"USER": "app", "HOST": "db", "PORT": 5433}, "postgresql://app@/shop?host=db&port=5433"),
        ({"USER": "a:b", "PASSWORD": "p@/?#%ä "}, "postgresql://a%3Ab:p%40%2F%3F%23%25%C3%A4%20@/shop"),
        ({"HOST": "/var/run/postgresql"}, "postgresql:///shop?host=%2Fvar%2Frun%2Fpostgresql"),
        ({"OPTIONS": {"sslmode": "require", "pool": True, "server_side_binding": True, "isolation_level": None}},
         "postgresql:///shop?sslmode=require"),
        ({"NAME": "", "OPTIONS": {"service": "shop"}}, "postgresql:///?service=shop"),
    ],
)  # fmt: skip
def test_the_address_of_a_database_of_the_settings(settings: dict[str, Any], url: str) -> None:
    plain = {"NAME": "shop", "USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}, "CONN_MAX_AGE": 0}
    connection = type(connections["default"])({**connections.settings["default"], **plain, **settings}, "default")
    assert relay.database_url(connection) == url
    assert normalised(url) == url


def test_relay_needs_postgresql_and_a_database_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^--database: 'other' is not in settings\.DATABASES, which has default"):
        call_command("relay", "status", database="other")
    lite = type("Lite", (), {"vendor": "sqlite", "alias": "lite"})
    with pytest.raises(CommandError, match="relay needs PostgreSQL, but 'lite' is sqlite"):
        relay.database_url(lite)


def test_relay_runs_on_the_database_of_the_settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_DATABASE_URL_FILE", "/nowhere")
    with on_database(database_url, "second"):
        call_command("relay", "--database", "second", "subscriptions", "add", "https://example.com/hooks", "order.*")
        with pytest.raises(CommandError, match="relay subscriptions failed") as refused:
            call_command("relay", "--database", "second", "subscriptions", "add", "nowhere", "order.*")
    assert refused.value.returncode == 2
    assert scalars(database_url, "select url from outbox.subscriptions") == ["https://example.com/hooks"]


def test_at_the_command_line_a_wrong_database_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        relay.Command().run_from_argv(["manage.py", "relay", "--database", "elsewhere", "status"])
    assert left.value.code == 2
    assert capsys.readouterr().err == ("--database: 'elsewhere' is not in settings.DATABASES, which has default\n")


def django(url: str, *words: str, settings: str = "examples.django_shop.settings", **more: Any) -> Any:
    """Run a command of Django as manage.py does."""
    environment = os.environ | {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": settings, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "django", *words]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False, **more)


TESTS = """
import outbox, outbox.django
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from examples.django_shop.models import Order
from outbox.django.models import Event


class InOneTransaction(TestCase):
    @classmethod
    def setUpTestData(cls):
        outbox.record(connection, "set.up", 1)

    def test_a_view_records(self):
        answer = self.client.post("/orders", {"cents": 4200}, content_type="application/json")
        assert answer.status_code == 201
        assert [event.type for event in Event.objects.order_by("seq")] == ["set.up", "order.placed"]

    def test_a_failing_view_records_nothing(self):
        with self.assertRaises(ValueError):
            self.client.post("/orders", {"cents": -1}, content_type="application/json")
        assert (Event.objects.count(), Order.objects.count()) == (1, 0)


class InReal(TransactionTestCase):
    def test_autocommit_is_refused(self):
        with self.assertRaises(outbox.TransactionError):
            outbox.django.record("lost", 1)
        with transaction.atomic():
            outbox.django.record("kept", 1)
        assert [event.type for event in Event.objects.all()] == ["kept"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's tests, and settings as small as they can be."""
    (tmp_path / "test_orders.py").write_text(TESTS)
    (tmp_path / "small.py").write_text(
        "from examples.django_shop.settings import *\n"
        'INSTALLED_APPS = ["examples.django_shop", "outbox.django"]\n'
        'ROOT_URLCONF, MIDDLEWARE = "urls", []\n'
    )
    (tmp_path / "urls.py").write_text(
        "from django.urls import path\nfrom examples.django_shop import views\n"
        'urlpatterns = [path("orders", views.place_order)]\n'
    )
    return tmp_path


def test_django_s_own_runner_makes_the_schema_and_copies_it_for_its_processes(server_url: str, project: Path) -> None:
    with databases.database(server_url) as url:
        command = ["test", "--parallel", "2", "--noinput", "--pythonpath", str(project)]
        done = django(url, *command, settings="small", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


@pytest.mark.slow
def test_pytest_django_makes_the_schema_without_migrations_too(server_url: str, project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = small\npythonpath = .\n")
    with databases.database(server_url) as url:
        environment = os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
        program = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:xdist", "--no-migrations"]
        done = subprocess.run(
            program, env=environment, cwd=project, capture_output=True, text=True, timeout=120, check=False
        )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
