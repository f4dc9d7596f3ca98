"""Whether code may use a schema that a newer version has migrated.

A migration says which code may go on beside it, in a line of its own near its top:

    -- least code: 26

It means that code which knows migration 0026 neither fails nor does harm there. A migration without this line is for
code that knows the migration itself. `outbox.schema_migrations.least_code` keeps it, so that code which is older than
the migration can read it. Code of before 0026 reads nothing: it goes on while it runs, and does not start again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from outbox._version import __version__

__all__ = ["NEWER", "known_version", "least_code_of", "refusal"]

NEWER = """
select version, cast(to_jsonb(m) ->> 'least_code' as integer) as least_code from outbox.schema_migrations m
where version > {known}
"""
"""Every migration after the last one that we know, with its least_code; `{known}` is that one's version."""

_LEAST_CODE = re.compile(r"^-- least code: (\d+)$", re.MULTILINE)


@cache
def known_version() -> int:
    """Return the version of the newest migration in this package."""
    names = [file.name for file in files("outbox.schema").joinpath("migrations").iterdir()]
    return max(int(name.partition("_")[0]) for name in names if name.partition("_")[0].isdigit())


def least_code_of(sql: str) -> int | None:
    """Return the version that code has to know to go on beside this migration; None: that of the migration."""
    found = _LEAST_CODE.search(sql)
    return int(found[1]) if found else None


def refusal(newer: Iterable[tuple[int, int | None]], known: int) -> str | None:
    """Return why code that knows version `known` may not use the schema, in one line with the mend; None where it may.

    `newer` are the rows of `NEWER`: migrations that the code does not know, each with its least_code.
    """
    demanded = {version: version if least is None else least for version, least in newer}
    least = max(demanded.values(), default=known)
    if least <= known:
        return None
    return (
        f"the outbox schema is at version {max(demanded)}, newer than {known}, which this outbox-relay {__version__}"
        f" knows, and only code that knows version {least} may use it: upgrade outbox-relay"
    )
