"""The schema inside an application's own Alembic migrations: online on each driver, as a script, and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.engine import make_url

import outbox
import outbox.alembic
from outbox import schema
from outbox.schema.compatibility import known_version
from tests.support import databases

ENV = """
import sqlalchemy as sa
from alembic import context
if context.is_offline_mode():
    context.configure(dialect_name="postgresql")
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
REVISION = """
import outbox.alembic, sqlalchemy as sa
from alembic import op
revision, down_revision = {revision!r}, {former!r}
def upgrade():
    {upgrade}
def downgrade():
    {downgrade}
"""
OURS = f"outbox.alembic.upgrade(op, to={known_version()})"
ORDERS = 'op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))'
Project = Callable[..., Config]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Makes an Alembic environment with three revisions: a table, the schema outbox, another table."""

    def make(url: str, *, downgrade: str = "outbox.alembic.downgrade(op)", driver: str = "psycopg") -> Config:
        (tmp_path / "env.py").write_text(ENV)
        (tmp_path / "versions").mkdir()
        revisions = [
            (ORDERS, 'op.drop_table("orders")'),
            (OURS, downgrade),
            (ORDERS.replace("orders", "carts"), 'op.drop_table("carts")'),
        ]
        for number, (upgrade, back) in enumerate(revisions):
            former = f"r{number - 1}" if number else None
            text = REVISION.format(revision=f"r{number}", former=former, upgrade=upgrade, downgrade=back)
            (tmp_path / "versions" / f"r{number}.py").write_text(text)
        config = Config(output_buffer=io.StringIO())
        config.set_main_option("script_location", str(tmp_path))
        config.set_main_option("path_separator", "os")
        name = make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
        config.set_main_option("sqlalchemy.url", name.replace("%", "%%"))
        return config

    return make


def look(url: str) -> dict[str, Any]:
    """What stands in a database: the application's tables and Alembic's revision; of ours, what differs."""
    with databases.engine_on(url) as engine, engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        revision = connection.execute(sa.text("select version_num from alembic_version")).scalar_one()
        return {"tables": sorted(tables), "revision": revision, "differences": schema.differences(connection)}


WHOLE = {"tables": ["alembic_version", "carts", "orders"], "revision": "r2", "differences": []}


def record_one(url: str) -> None:
    with databases.engine_on(url) as engine, engine.begin() as connection:
        outbox.record(connection, "order.placed", {"id": 1})


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_one_upgrade_makes_both_in_one_transaction(empty_database_url: str, project: Project, driver: str) -> None:
    command.upgrade(project(empty_database_url, driver=driver), "head")
    assert look(empty_database_url) == WHOLE
    record_one(empty_database_url)
    assert databases.migrate(empty_database_url) == [], "relay migrate finds nothing to do"


def test_a_script_makes_the_same(empty_database_url: str, project: Project) -> None:
    config = project(empty_database_url)
    command.upgrade(config, "head", sql=True)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(config.output_buffer.getvalue())
    assert look(empty_database_url) == WHOLE
    record_one(empty_database_url)


def test_what_relay_migrate_made_is_not_made_again(database_url: str, project: Project) -> None:
    record_one(database_url)
    command.upgrade(project(database_url), "head")
    assert look(database_url) == WHOLE


def test_a_failure_takes_all_of_it_back(empty_database_url: str, project: Project) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create table carts ()")
        with pytest.raises(sa.exc.ProgrammingError, match="carts"):
            command.upgrade(project(empty_database_url), "head")
        assert connection.execute("select to_regnamespace('outbox')").fetchone() == (None,)


def test_going_back_is_refused_and_drops_when_it_is_asked_to(database_url: str, project: Project) -> None:
    config = project(database_url)
    command.upgrade(config, "head")
    with pytest.raises(outbox.SchemaError, match="does not go back: what was not delivered yet would be lost"):
        command.downgrade(config, "base")
    assert look(database_url) == WHOLE
    revision = Path(config.get_main_option("script_location") or "") / "versions" / "r1.py"
    revision.write_text(revision.read_text().replace("downgrade(op)", "downgrade(op, drop=True)"))
    command.downgrade(config, "r2:base", sql=True)
    assert "drop schema if exists outbox cascade" in config.output_buffer.getvalue()
    command.downgrade(config, "base")
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select to_regnamespace('outbox'), to_regclass('orders')").fetchone() == (None, None)


def operations(connection: sa.Connection, **options: Any) -> Operations:
    return Operations(MigrationContext.configure(connection, opts=options))


def test_the_settings_of_the_transaction_are_as_they_were(empty_database_url: str) -> None:
    names = ("search_path", "lock_timeout", "idle_in_transaction_session_timeout", "datestyle", "intervalstyle")
    with databases.engine_on(empty_database_url) as engine, engine.begin() as connection:
        connection.execute(
            sa.text(
                "create schema shop; set local search_path = shop, public; set local lock_timeout = 777;"
                " set local datestyle = 'German'; set local intervalstyle = 'iso_8601'"
            )
        )
        before = [connection.scalar(sa.text(f"show {name}")) for name in names]
        outbox.alembic.upgrade(operations(connection), to=known_version())
        after = [connection.scalar(sa.text(f"show {name}")) for name in names]
        assert after == before == ["shop, public", "777ms", "0", "German, DMY", "iso_8601"]


def test_a_later_revision_continues_in_a_script() -> None:
    buffer = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer})
    last = known_version()
    outbox.alembic.upgrade(Operations(context), since=last - 1, to=last)
    script = buffer.getvalue()
    assert [line for line in script.splitlines() if line.startswith("-- outbox ")] == [
        f"-- outbox {last:04} {schema.migrations()[-1].name}"
    ]
    assert "create schema" not in script
    assert "make_event_leaf() from" not in script


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({"to": to}, "to") for to in (26, known_version() + 1, "0027", True)),
    *(({"to": 27, "since": since}, "since") for since in (27, -1)),
]


@pytest.mark.parametrize(("numbers", "named"), WRONG, ids=repr)
def test_a_number_that_cannot_be_is_refused(numbers: dict[str, Any], named: str) -> None:
    with pytest.raises(outbox.ArgumentError, match=f"{named}: "):
        outbox.alembic.upgrade(None, **numbers)


def test_what_cannot_migrate_is_told_what_would(empty_database_url: str) -> None:
    with (
        databases.engine_on(empty_database_url) as engine,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(outbox.SchemaError, match="is in autocommit"),
    ):
        outbox.alembic.upgrade(operations(connection), to=27)
    engine = sa.create_mock_engine("postgresql+asyncpg://", executor=print)
    context = type("Op", (), {"get_context": lambda _: type("C", (), {"as_sql": False}), "get_bind": lambda _: engine})
    with pytest.raises(outbox.SchemaError, match=r"connect with postgresql\+psycopg://"):
        outbox.alembic.upgrade(context(), to=27)
