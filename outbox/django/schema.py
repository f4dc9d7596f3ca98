"""The schema `outbox` under Django's migrations: each of them runs the library's own runner.

The SQL files of outbox.schema stay the one truth. There is a migration of Django's for each version of the schema, so
that `showmigrations` and `migrate --check` tell that an update of the library brought one. Whichever of them runs first
brings the schema to the newest version, and the others find nothing to do. The first stands for all versions before.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import connections, migrations
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState
from django.db.transaction import TransactionManagementError

from outbox.django.bridge import take_over
from outbox.django.checks import may_hold_outbox
from outbox.django.recording import LABEL
from outbox.errors import SchemaError
from outbox.schema import runner

__all__ = ["BringSchema", "bring", "migrate_without_migrations", "migration_to", "names"]

_FIRST = 27


class BringSchema(Operation):
    """Brings the schema to the version that this library has, on databases that may hold it."""

    reduces_to_sql = False
    reversible = True  # that is, it says itself why it is not

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing of the models."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Run the library's migrations."""
        if may_hold_outbox(schema_editor.connection.alias):
            bring(schema_editor.connection)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Refuse: events that are not delivered yet would be gone."""
        if may_hold_outbox(schema_editor.connection.alias):
            raise IrreversibleError(
                "the schema outbox does not go back: it may hold events that are not delivered yet. An older"
                " outbox-relay goes on with a newer schema where that allows it; to give it up, stop the relays and run"
                " `drop schema outbox cascade`, then `manage.py migrate --fake outbox_relay zero`"
            )

    def describe(self) -> str:
        """Return what `migrate --plan` says."""
        return "Bring the schema outbox to the version of this outbox-relay"


def bring(connection: Any) -> None:
    """Bring the schema to the newest version on a connection of Django's that is not inside atomic().

    It commits: as a whole, or not at all. Raises SchemaError.
    """
    try:
        with take_over(connection) as ours:
            runner.migrate(ours)
    except TransactionManagementError:
        raise SchemaError(
            "migrate: the schema outbox is made in a transaction of its own; run it outside transaction.atomic(), in "
            "tests in a TransactionTestCase"
        ) from None


def names() -> list[str]:
    """Return the names of the migrations that there must be in outbox/django/migrations, oldest first."""
    return [f"{one.version:04}_{one.name}" for one in runner.migrations() if one.version >= _FIRST]


def migration_to(module: str) -> type[migrations.Migration]:
    """Return the migration for the version of the schema that this module's name has."""
    name = module.rpartition(".")[2]
    before = names()[: names().index(name)]
    return type(
        "Migration",
        (migrations.Migration,),
        {
            "__module__": module,
            "initial": not before,
            "atomic": False,  # the runner has a transaction of its own
            "dependencies": [(LABEL, earlier) for earlier in before[-1:]],
            "operations": [BringSchema(), *([] if before else _models())],
        },
    )


def _models() -> list[Operation]:
    """Return the models, as they are: nothing is made for them, and they shall be in step with the code always."""
    states = [ModelState.from_model(model) for model in apps.get_app_config(LABEL).get_models()]
    return [migrations.CreateModel(s.name, [*s.fields.items()], s.options, s.bases, s.managers) for s in states]


def migrate_without_migrations(using: str, **_given: Any) -> None:
    """Make the schema after `migrate` where our migrations are switched off, as by pytest's --no-migrations."""
    if MigrationLoader.migrations_module(LABEL)[0] is None and may_hold_outbox(using):
        bring(connections[using])
