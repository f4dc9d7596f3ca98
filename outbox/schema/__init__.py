"""The schema `outbox` in the database: numbered SQL files in migrations/, and the runner that applies them.

runner.py applies and checks them; alembic_plugin.py keeps a user's own Alembic from touching them.
"""

from outbox.schema.runner import Migration, differences, findings, migrate, migrations, render_sql, require_current

__all__ = ["Migration", "differences", "findings", "migrate", "migrations", "render_sql", "require_current"]
