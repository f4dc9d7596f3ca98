"""Beside an application's own Alembic: autogenerate finds its changes, and never proposes to drop our tables."""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import api
from alembic.migration import MigrationContext
from alembic.operations import ops
from sqlalchemy.exc import SAWarning

from outbox.schema import alembic_plugin


def proposals(engine: sa.Engine, **options: Any) -> list[str]:
    """What autogenerate would write for an application with one table more than the database, and one less."""
    metadata = sa.MetaData()
    sa.Table("customers", metadata, sa.Column("id", sa.Integer, primary_key=True))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata, **options})
        upgrade = api.produce_migrations(context, metadata).upgrade_ops
    assert upgrade is not None
    return sorted(
        f"{type(op).__name__} {op.schema or 'public'}.{op.table_name}"
        for op in upgrade.ops
        if isinstance(op, ops.CreateTableOp | ops.DropTableOp)
    )


@pytest.fixture
def application(engine: sa.Engine) -> sa.Engine:
    """A database with our schema, and a table of the application's that its models no longer have."""
    with engine.begin() as connection:
        connection.execute(sa.text("create table orders (id integer primary key)"))
        connection.execute(sa.text("create schema shop create table carts (id integer primary key)"))
    return engine


def test_by_default_only_the_applications_own_schema_is_looked_at(application: sa.Engine) -> None:
    assert proposals(application) == ["CreateTableOp public.customers", "DropTableOp public.orders"]


def test_with_all_schemas_ours_is_left_alone(application: sa.Engine) -> None:
    assert proposals(application, include_schemas=True) == [
        "CreateTableOp public.customers",
        "DropTableOp public.orders",
        "DropTableOp shop.carts",
    ]


def test_the_hook_for_env_py_does_the_same_without_the_plugin(application: sa.Engine) -> None:
    options: dict[str, Any] = {
        "include_schemas": True,
        "autogenerate_plugins": ["alembic.autogenerate.*", "~alembic.autogenerate.outbox_relay"],
    }
    with warnings.catch_warnings():  # SQLAlchemy 2.1 stumbles over a CHECK that is NOT VALID, such as ours of events
        warnings.simplefilter("ignore", SAWarning)
        assert any("outbox.events" in proposal for proposal in proposals(application, **options))
    assert proposals(application, **options, include_name=alembic_plugin.include_name) == [
        "CreateTableOp public.customers",
        "DropTableOp public.orders",
        "DropTableOp shop.carts",
    ]


def test_alembic_finds_the_plugin_by_its_entry_point() -> None:
    (found,) = (point for point in entry_points(group="alembic.plugins") if point.value == alembic_plugin.__name__)
    assert found.load() is alembic_plugin
