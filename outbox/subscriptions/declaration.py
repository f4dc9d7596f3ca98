"""How a subscription's field is declared: its column, check, default, flags and documentation, in one value.

`fields.py` declares each field by one of these; the table, the checks, the command line and docs/subscriptions.md are
made from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from inspect import Parameter, signature
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, Final, TypeVar, get_type_hints

from sqlalchemy.types import TypeEngine

from outbox.subscriptions.value_checks import Check

__all__ = [
    "NOTHING",
    "REQUIRED",
    "Field",
    "Flag",
    "fields_in",
    "json_object",
    "none_or",
    "number",
    "numbers",
    "pair",
    "with_fields",
    "words",
    "yes_or_no",
]

F = TypeVar("F", bound="Callable[..., object]")


class _Required(Enum):
    """The default of a field that has none."""

    REQUIRED = "required"


REQUIRED: Final = _Required.REQUIRED


class _Nothing(Enum):
    """What a flag's text `none` stands for; a flag that was not given is None."""

    NOTHING = "none"


NOTHING: Final = _Nothing.NOTHING


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A field's flag on the command line.

    `name` is that of its field where there is one flag only. `from_text` raises ValueError for what it cannot read.
    A repeatable flag gives a list. A file flag names a file that is read as text, since what it holds is secret.
    """

    help: str
    metavar: str | None = None
    name: str = ""
    from_text: Callable[[str], object] = str
    repeatable: bool = False
    file: bool = False


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a subscription. `name` is its key in the TypedDict that declares it.

    Args:
        column: the type of its column; None where it is kept as a secret of this kind.
        check: returns what to store: the value of the column, or a secret's text and what may be shown of it.
        default: what is stored when nothing was told; where it is None, the column may be null.
        constraint: the condition of its column's CHECK in the migration.
        flags: of `relay subscriptions add` and `update`.
        no_flag: help of `update --no-…`, which takes away a secret.
        meaning: one sentence or two for the documentation.
        default_words: the default as people say it; made from `default` where it is left out.
    """

    check: Check
    meaning: str
    flags: tuple[Flag, ...]
    column: TypeEngine[Any] | None = None
    default: Any = None
    constraint: str | None = None
    no_flag: str = ""
    default_words: str = ""
    name: str = ""

    @property
    def is_secret(self) -> bool:
        """Whether it is kept among the secrets and never shown."""
        return self.column is None

    @property
    def default_text(self) -> str:
        """The default in words, '' where there is nothing to say of it."""
        if self.default_words or not self.default or self.default is REQUIRED:
            return self.default_words
        return str(self.default)

    @property
    def documentation(self) -> str:
        """Return what it means, and its default."""
        return f"{self.meaning} Default: {self.default_text}." if self.default_text else self.meaning

    def check_value(self, value: object) -> Any:
        """Return what to store of a value, the default of None. Raises SubscriptionError."""
        if value is None and self.default is not REQUIRED:
            return self.default
        return self.check(self.name, value)


def fields_in(declaring: type) -> tuple[Field, ...]:
    """Return the fields that a TypedDict declares, in order."""
    hints = get_type_hints(declaring, include_extras=True)
    return tuple(_name_field(name, *hint.__metadata__) for name, hint in hints.items())


def _name_field(name: str, field: Field) -> Field:
    flags = tuple(replace(flag, name=flag.name or name) for flag in field.flags)
    return replace(field, name=name, flags=flags)


def with_fields(declaring: type) -> Callable[[F], F]:
    """Show the fields that a TypedDict declares in a function's signature, in place of its `**`, and in its docstring.

    Shells and documentation read these, and nothing else does: the function is called as before. The docstring has
    `{fields}` where their lines go.
    """
    hints = get_type_hints(declaring)
    lines = [f"{field.name}: {field.documentation}" for field in fields_in(declaring)]
    keywords = [Parameter(name, Parameter.KEYWORD_ONLY, default=..., annotation=hint) for name, hint in hints.items()]

    def decorate(function: F) -> F:
        plain = signature(function)
        *parameters, _ = plain.parameters.values()
        function.__signature__ = plain.replace(parameters=[*parameters, *keywords])  # type: ignore[attr-defined]
        before, _, after = (function.__doc__ or "").partition("{fields}")
        indent = before.rpartition("\n")[2]  # from Python 3.13 on, docstrings are indented less than their source
        wrapper = TextWrapper(width=116, initial_indent=indent, subsequent_indent=indent + " " * 4)
        function.__doc__ = before + "\n".join(map(wrapper.fill, lines)).lstrip() + after
        return function

    return decorate


def number(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a valid integer.") from None


def none_or(from_text: Callable[[str], object]) -> Callable[[str], object]:
    """Return what reads `none` as NOTHING, and every other text by `from_text`."""
    return lambda text: NOTHING if text.strip() == "none" else from_text(text)


def numbers(what: str, example: str) -> Callable[[str], list[int]]:
    """Return what reads whole numbers with commas between them, or none."""

    def from_text(text: str) -> list[int]:
        parts = [] if text.strip() in ("", "none") else text.split(",")
        if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
            raise ValueError(f"{text!r} is not a list of {what} such as {example}, or none")
        return [int(part) for part in parts]

    return from_text


def words(text: str) -> list[str]:
    """Read words with commas between them."""
    return text.split(",")


def json_object(text: str) -> object:
    """Read a JSON object with exact numbers, from the text or, after @, from the file it names; none is {}."""
    from outbox.subscriptions.filters import read_filter  # most programs have no filters

    if text.strip() == "none":
        return {}
    source = _text_of_file(text[1:]) if text.startswith("@") else text
    try:
        return read_filter(source)
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}; give an object such as {_EXAMPLE}, @FILE, or none") from None


_EXAMPLE = '{"payload": {"total": {"$gte": 100}}}'


def _text_of_file(name: str) -> str:
    try:
        return Path(name).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ValueError(f"the file {name!r} cannot be read: {reason}") from None


def yes_or_no(text: str) -> bool:
    """Read `true` or `false`."""
    try:
        return {"true": True, "false": False}[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not true or false") from None


def pair(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value
