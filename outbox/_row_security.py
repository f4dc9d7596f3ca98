"""Row level security that somebody switched on for our tables: what the server's refusal looks like, and its mend."""

from __future__ import annotations

import re

__all__ = ["is_row_security", "mend_row_security"]

_TABLE = re.compile(r"\btable \"([^\"]+)\"")
_RAISED_BY = ("check_enable_rls", "ExecWithCheckOptions")  # where the server speaks another language than English


def is_row_security(error: object) -> bool:
    """Tell whether a driver's error is one about row level security, which hides rows, or takes none."""
    if (getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)) != "42501":
        return False
    raised_by = getattr(getattr(error, "diag", None), "source_function", None)
    return raised_by in _RAISED_BY or "row-level security" in str(error)


def mend_row_security(error: object, role: str = "its role") -> str:
    """Return what mends it, with the name of the table as far as the server's message has it."""
    found = _TABLE.search(str(error))
    table = f"outbox.{found[1]}" if found else "that table"
    return (
        f"alter table {table} disable row level security, or give {role} BYPASSRLS, or a policy that shows and takes"
        " each row: using (true)"
    )
