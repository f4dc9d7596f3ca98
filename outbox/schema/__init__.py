"""The schema `outbox` in the database: numbered SQL files in migrations/, and the runner that applies them.

runner.py applies them: preconditions.py says to which server and database, settings.py under which settings,
table_locks.py locks what they change. comparison.py compares the database with them; compatibility.py says which code
may use a newer schema; alembic_plugin.py keeps a user's own Alembic from touching them. functions.txt says which file
has the newest definition of each function.
"""

from outbox.schema.comparison import differences, findings
from outbox.schema.runner import Migration, migrate, migrations, render_sql, require_current

__all__ = ["Migration", "differences", "findings", "migrate", "migrations", "render_sql", "require_current"]
