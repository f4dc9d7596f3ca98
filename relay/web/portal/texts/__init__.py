"""The texts of the portal, one file a language; pages name them by key and hold none themselves."""

from __future__ import annotations

import string
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.config.option import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LANGUAGES", "Texts", "read_texts"]

HERE = Path(__file__).parent
LANGUAGES = tuple(sorted(path.stem for path in HERE.glob("*.toml")))
_OF_THE_MODEL = "en"


class Texts:
    """The texts of one language. Calling it with a key, and a value for each name in braces, returns the text."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = dict(texts)

    def __call__(self, key: str, **values: object) -> str:
        """Return the text; the values are text to a template, too. Raises KeyError for a key that there is not."""
        return self._texts[key].format(**values)

    def outcome(self, kind: str) -> str:
        """Return what an outcome is; one that only a newer relay beside this one knows is an error of ours."""
        return self._texts.get(f"outcomes.{kind}") or self("outcomes.internal")

    def group(self, name: str) -> dict[str, str]:
        """Return the texts of a table of the file by their keys in it, as they are written."""
        return {key.partition(".")[2]: text for key, text in self._texts.items() if key.startswith(f"{name}.")}

    @property
    def keys(self) -> frozenset[str]:
        """Every key: `name`, or `table.name`."""
        return frozenset(self._texts)


def read_texts(language: str) -> Texts:
    """Return the texts of a language that comes along (LANGUAGES), or of the file of a translation.

    Raises ConfigError where there is none, or a text is missing, is one too many, or has other names in braces.
    """
    if language in LANGUAGES:
        return Texts(_flat(_read(HERE / f"{language}.toml")))
    if not language.endswith(".toml"):
        raise ConfigError(
            f"portal_language: {language!r} is none of {', '.join(LANGUAGES)}, and no file that ends in .toml"
        )
    given, model = _flat(_read(Path(language))), _model()
    if wrong := model.keys() ^ given.keys():
        name = min(wrong)
        said = "is missing" if name in model else "is a text that there is not"
        raise ConfigError(f"portal_language: {language}: {name} {said}; take texts/{_OF_THE_MODEL}.toml as the model")
    for name, text in given.items():
        if _names_in(text, name, language) != _names_in(model[name], name, _OF_THE_MODEL):
            raise ConfigError(f"portal_language: {language}: {name} needs the same names in braces as {model[name]!r}")
    return Texts(given)


@cache
def _model() -> dict[str, str]:
    return _flat(_read(HERE / f"{_OF_THE_MODEL}.toml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no TOML in UTF-8"
        raise ConfigError(f"portal_language: {path}: {why}; name a file such as the one in docs/portal.md") from None


def _flat(read: Mapping[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in read.items():
        if isinstance(value, dict) and not before:
            flat |= _flat(value, f"{key}.")
        else:
            flat[before + key] = str(value)
    return flat


def _names_in(text: str, name: str, language: str) -> set[str]:
    try:
        return {field for _, field, *_ in string.Formatter().parse(text) if field is not None}
    except ValueError:
        raise ConfigError(f"portal_language: {language}: {name} has a brace alone; write {{{{ for one") from None
