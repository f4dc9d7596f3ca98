"""One event type as a plain value: what is stored, shown, compared and exported, whatever its model was made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["DeclaredType", "StoredType"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredType:
    """An event type: its name, and what may be told of it.

    `schema` is a JSON Schema, None where the data is any JSON; `example` is JSON text; `deprecated` says what to use.
    """

    type: str
    version: int = 1
    description: str = ""
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    example: str | None = field(default=None, repr=False)
    deprecated: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredType(DeclaredType):
    """An event type as the database has it: of which catalogue, and when it came, changed and went (UTC)."""

    catalogue: str
    added_at: datetime
    changed_at: datetime
    retired_at: datetime | None
