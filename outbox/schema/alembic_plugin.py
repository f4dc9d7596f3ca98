"""Keep an application's own Alembic away from the schema `outbox`: autogenerate never proposes to drop it.

Without `include_schemas` Alembic does not look at other schemas. With it, Alembic 1.18 and later find this module by
its entry point and ignore the schema. For an older Alembic, write in env.py:

    context.configure(…, include_schemas=True, include_name=outbox.schema.alembic_plugin.include_name)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMA", "include_name", "setup"]

SCHEMA = "outbox"


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
    """Tell whether Alembic should look at this name: at everything but our schema. Pass it to context.configure()."""
    if type_ == "schema":
        return name != SCHEMA
    return parent_names.get("schema_name") != SCHEMA


def setup(plugin: Any) -> None:
    """Register with Alembic, which calls this itself with its `Plugin`."""
    from alembic.util import DispatchPriority

    plugin.add_autogenerate_comparator(_ignore_our_schema, "schema", priority=DispatchPriority.FIRST)


def _ignore_our_schema(_context: Any, _upgrade_ops: Any, schemas: set[str | None]) -> Any:
    from alembic.util import PriorityDispatchResult

    schemas.discard(SCHEMA)
    return PriorityDispatchResult.CONTINUE
