"""Read the file of a secret, and drop what copying leaves around a value."""

from __future__ import annotations

import re
from pathlib import Path

from relay.config.option import ConfigError, Option

__all__ = ["clean", "read_file", "read_secret"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def read_secret(option: Option, file: str) -> object:
    """Return the value that the file of a secret holds. Raises ConfigError where it cannot be read."""
    twin = f"{option.env}_FILE"
    return option.kind.from_text(clean(read_file(Path(file), twin), twin, lines=option.kind.lines))


def clean(text: str, source: str, *, lines: bool = False) -> str:
    """Drop what copying leaves around a value: a BOM, blanks, line ends, one pair of quotes."""
    text = text.removeprefix("\ufeff").strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    if (_CONTROL_IN_LINES if lines else _CONTROL).search(text):
        raise ConfigError(f"{source}: holds a line break or control character; give it on one line")
    return text


def read_file(path: Path, source: str) -> str:
    """Return the text of a file. Raises ConfigError, which names `source`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{source}: cannot read {path}: {reason}") from None
