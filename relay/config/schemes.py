"""Read an operator's own signature schemes: tables `[schemes.NAME]`, in the relay's file or in a separate one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from outbox.recording.raw_json import parse_once as parse_json
from outbox.signing.schemes.declaration import declaration_of

if TYPE_CHECKING:
    from pathlib import Path

    from outbox.signing.schemes import SchemeDeclaration

__all__ = ["parse_schemes", "read_schemes"]


def read_schemes(path: Path) -> object:
    """Read the tables from a TOML file, or from a JSON file if its name ends in .json. Raises ValueError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(f"cannot read {path}: {reason}") from None
    form, parse = ("JSON", parse_json) if path.suffix == ".json" else ("TOML", tomllib.loads)
    try:
        document = parse(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not {form}: {error}") from None
    if not isinstance(document, dict) or list(document) != ["schemes"]:
        raise ValueError(f"{path} must hold tables [schemes.NAME] and nothing else; move other options elsewhere")
    return document["schemes"]


def parse_schemes(tables: object) -> tuple[SchemeDeclaration, ...]:
    """Return the declarations in tables. Raises ValueError, which names table, key and fix."""
    if not isinstance(tables, Mapping):
        raise ValueError("not tables; write [schemes.NAME] and below it signed, signature_header, …")  # noqa: TRY004
    try:
        return tuple(declaration_of(name, table) for name, table in tables.items())
    except SubscriptionError as error:
        raise ValueError(str(error)) from None
