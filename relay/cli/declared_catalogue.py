"""The catalogue that an application's module declares: import the module, find it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outbox.catalogue import Catalogue, declaration_of, default

if TYPE_CHECKING:
    from types import ModuleType

    from outbox.control.catalogue import Declaration

__all__ = ["declared_in", "module_option"]

module_option = click.option(
    "-m", "--module", "module", metavar="MODULE[:NAME]", help="The Python module that declares the types: myapp.events."
)


def declared_in(spec: str) -> Declaration:
    """Import a module, found from here or where Python looks, and return its catalogue as a plain value.

    That is the one that NAME names, or the only Catalogue among the module's names, or else the process's own.
    Raises UsageError where there is none.
    """
    name, _, attribute = spec.partition(":")
    catalogue = _named(_imported(name), attribute) if attribute else _only(_imported(name))
    if not len(catalogue):
        raise click.UsageError(f"--module: {name} declares no event type; name the module whose import does")
    return declaration_of(catalogue)


def _imported(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except Exception as error:
        reason = str(error).splitlines() or [""]
        raise click.UsageError(f"--module: cannot import {name}: {type(error).__name__}: {reason[0]}") from error


def _named(module: ModuleType, attribute: str) -> Catalogue:
    found: Any = getattr(module, attribute, None)
    if not isinstance(found, Catalogue):
        raise click.UsageError(f"--module: {module.__name__} has no Catalogue of the name {attribute}")
    return found


def _only(module: ModuleType) -> Catalogue:
    found = {name: one for name, one in vars(module).items() if isinstance(one, Catalogue)}
    if len(set(map(id, found.values()))) > 1:
        raise click.UsageError(f"--module: {module.__name__} has several: {', '.join(found)}; add :NAME for one")
    return next(iter(found.values()), default)
