"""Signature schemes that a test declares, and that are gone when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from outbox.signing import schemes


@contextmanager
def only_here(*declarations: schemes.SchemeDeclaration) -> Iterator[None]:
    """Declare these, and forget afterwards whatever was declared meanwhile."""
    known = dict(schemes.SCHEMES)
    try:
        for declaration in declarations:
            schemes.declare(declaration)
        yield
    finally:
        declared = schemes._schemes  # noqa: SLF001 - no user takes a declaration back
        declared.clear()
        declared.update(known)
