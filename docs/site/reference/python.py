"""Public names of the packages: signature and docstring, from the modules themselves."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import outbox.errors
from docs.site.markdown import fence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MODULES = (
    "outbox",
    "outbox.catalogue",
    "outbox.inbox",
    "outbox.testing",
    "outbox.fastapi",
    "outbox.django",
    "outbox.alembic",
    "outbox.subscriptions",
    "outbox.events",
    "outbox.deliveries",
    "outbox.dead_letters",
    "outbox.replays",
    "outbox.statistics",
    "outbox.schema",
    "outbox.schema.alembic_plugin",
    "outbox.ids",
    "relay.client",
    "relay.client.calls",
    "relay.client.results",
    "relay.local.embedded",
    "relay.web.app",
)
INSIDE = {
    *("capturing", "control", "errors", "event_types", "formats", "recording", "sealing", "secret", "signing"),
    "transformation",
}
"""Modules of `outbox` that the page leaves out: `outbox` imports what is public in them, or they have another page."""
_HEAD = """# Python

Every public name: its signature, and what it says about itself. Errors have [a page of their own](errors.md). Each
module below lists its names in `__all__`; what is not listed may change without notice.
"""
_ERRORS_HEAD = """# Errors

Every error that the library raises on purpose is an `outbox.OutboxError`. Its message names the argument and the
mend, and holds no secret.
"""
_TREE = re.compile(r"(?:^.*[├└│].*\n?)+", re.MULTILINE)
_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes):\n((?:    .*(?:\n|$)|\n(?=    ))+)", re.MULTILINE)
_ITEM = re.compile(r"^    (\*{0,2}\w+): ", re.MULTILINE)


def python() -> str:
    """Return the page of all modules."""
    return _HEAD + "".join(_module(importlib.import_module(name)) for name in MODULES)


def errors() -> str:
    """Return the page of the errors, as a tree and one by one."""
    names = sorted(outbox.errors.__all__, key=lambda name: len(getattr(outbox.errors, name).__mro__))
    said = inspect.getdoc(outbox.errors) or ""
    listed = [_named(f"outbox.{name}", getattr(outbox.errors, name), "##") for name in names]
    return "\n".join([_ERRORS_HEAD, fence(said.partition("\n\n")[2]), *listed])


def public_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the public names of a module that the page describes: no modules, no errors of `outbox.errors`."""
    for name in getattr(module, "__all__", None) or _defined_in(module):
        value = getattr(module, name, None)
        is_error = inspect.isclass(value) and value.__module__ == "outbox.errors"
        if value is not None and not inspect.ismodule(value) and not is_error and name != "__version__":
            yield name, value


def _defined_in(module: ModuleType) -> list[str]:
    found = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return [name for name in found if not name.startswith("_")]


def _module(module: ModuleType) -> str:
    parts = [f"\n## {module.__name__}\n", _text(module.__doc__)]
    parts += [_named(f"{module.__name__}.{name}", value, "###") for name, value in public_names(module)]
    return "\n".join(parts)


def _named(name: str, value: Any, level: str) -> str:
    heading = f"{level} {name}\n"
    if inspect.isclass(value):
        return "\n".join([heading, *_class(name.rpartition(".")[2], value)])
    if callable(value):
        return "\n".join([heading, fence(_signature(name.rpartition(".")[2], value), "python"), _text(value.__doc__)])
    return f"{heading}\nA `{type(value).__name__}`. {_text(type(value).__doc__)}"


def _class(name: str, value: type) -> Iterator[str]:
    yield fence(f"class {name}{_signature('', value)}", "python")
    written = vars(value).get("__doc__") or ""
    made = written.startswith(f"{value.__name__}(")  # a dataclass without a docstring is given its signature
    yield "" if made else _text(written)
    for method, member in _methods(value):
        yield fence(_signature(method, member), "python")
        yield _text(inspect.getdoc(member))


def _methods(value: type) -> Iterator[tuple[str, Any]]:
    own = [
        (method, inspect.unwrap(getattr(value, method)))
        for base in value.__mro__
        if base.__module__.startswith(("outbox", "relay"))
        for method, member in vars(base).items()
        if not method.startswith("_") and isinstance(member, (classmethod, staticmethod)) | inspect.isfunction(member)
    ]
    yield from dict(own).items()


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Stands in a signature for an annotation or a default, as readers should see it."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _signature(name: str, value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return f"{name}(…)"
    if inspect.isclass(value) and issubclass(value, Exception):
        return name
    parameters = [_shown(one) for one in signature.parameters.values() if one.name != "self"]
    returned = inspect.Signature.empty if inspect.isclass(value) else _annotation(signature.return_annotation)
    return f"{name}{_lines(inspect.Signature(parameters, return_annotation=returned))}"


def _shown(parameter: inspect.Parameter) -> inspect.Parameter:
    default = parameter.default
    if default is not parameter.empty:
        text = repr(default) or "''"
        default = _Shown("…" if text.startswith("<") else text)
    return parameter.replace(annotation=_annotation(parameter.annotation), default=default)


def _annotation(annotation: Any) -> Any:
    return _Shown(annotation) if isinstance(annotation, str) else annotation


def _lines(signature: inspect.Signature) -> str:
    """Return a signature, a parameter a line where it is long."""
    text = str(signature)
    if len(text) <= 90:
        return text
    each: list[str] = []
    previous = None
    for parameter in signature.parameters.values():
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and previous not in (kind, parameter.VAR_POSITIONAL):
            each.append("*")
        if previous is parameter.POSITIONAL_ONLY and kind is not previous:
            each.append("/")
        previous = kind
        each.append(str(parameter))
    returned = text.rpartition(") -> ")[2] if ") -> " in text else ""
    return "(\n    " + ",\n    ".join(each) + ",\n)" + (f" -> {returned}" if returned else "")


def _text(docstring: str | None) -> str:
    """Return a docstring as Markdown: what is drawn in it becomes a block, its arguments a list."""
    text = inspect.cleandoc(docstring or "").replace("<", "&lt;")
    text = _SECTION.sub(lambda section: f"{section[1]}:\n\n{_items(section[2])}\n", text)
    return _TREE.sub(lambda tree: fence(tree[0]), text) + "\n"


def _items(lines: str) -> str:
    return inspect.cleandoc("\n" + _ITEM.sub(r"    - `\1`: ", lines)).replace("\n    ", "\n  ")
