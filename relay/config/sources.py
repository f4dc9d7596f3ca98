"""Load the configuration from flags, environment and files. `relay.config.options` has the order."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outbox._text import nearest
from relay.config.database_url import redacted
from relay.config.opened_networks import opened
from relay.config.option import ConfigError, Option, checked
from relay.config.options import Config, options
from relay.config.secret_files import clean, read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Loaded", "load"]


MOUNTED_SECRETS = Path("/run/secrets")
"""Where engines of containers put secrets, readable by all of the container: its user is the only one there."""


@dataclass(frozen=True)
class Loaded:
    """The configuration, the origin of each value (by option name), and warnings to print once."""

    config: Config
    origins: dict[str, str]
    warnings: tuple[str, ...]


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    config_file: str | None = None,
) -> Loaded:
    """Read the configuration from flags, environment and TOML file.

    Args:
        flags: text (or bool) by option name, as the command line gave it; None or missing: not given.
        environ: the environment; os.environ by default.
        config_file: the TOML file; by default the one that RELAY_CONFIG names, if any.

    Raises:
        ConfigError: a value, key or file was refused.
    """
    environ = os.environ if environ is None else environ
    path = config_file or clean(environ.get("RELAY_CONFIG", ""), "RELAY_CONFIG")
    warnings: list[str] = []
    table = _toml(Path(path), warnings) if path else {}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in options():
        found = _first(option, flags or {}, environ, table, path, warnings)
        if found:
            value, origins[option.name] = found
            values[option.name] = checked(option, value, f"{option.name} ({origins[option.name]})")
        else:
            origins[option.name] = "default"
    warnings += _unknown_variables(environ)
    config = Config(**values)
    if kinds := opened(config.allow_networks):
        warnings.append(
            f"allow_networks: opens more than one network: {', '.join(kinds)}; name only the networks that are needed"
        )
    if origins["database_url"] == "env RELAY_DATABASE_URL_FILE":
        config = config.reading_again(clean(environ["RELAY_DATABASE_URL_FILE"], "RELAY_DATABASE_URL_FILE"))
    return Loaded(config, origins, tuple(warnings))


def _has_password(option: Option, text: str) -> bool:
    """Tell whether the text of a secret option holds what is secret in it: a URL may do without a password."""
    if option.name == "database_url":
        return redacted(text) != text
    return option.name != "egress_proxy" or "@" in text


def _first(
    option: Option,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
    path: str,
    warnings: list[str],
) -> tuple[object, str] | None:
    """Return the first value given and its origin, or None."""
    flag = flags.get(option.name)
    if isinstance(flag, str):
        if option.secret and _has_password(option, flag):
            warnings.append(f"{option.name}: anyone on this machine can read a flag; use {option.env}_FILE")
        return option.kind.from_text(clean(flag, option.flag, lines=option.kind.lines)), f"flag {option.flag}"
    if flag is not None:
        return flag, f"flag {option.flag}"
    from_environment = _from_environment(option, environ, warnings)
    if from_environment:
        text, origin = from_environment
        return option.kind.from_text(text), origin
    if option.name in table:
        return table[option.name], f"file {path}"
    if option.name == "database_url" and environ.get("DATABASE_URL", "").strip():
        return clean(environ["DATABASE_URL"], "DATABASE_URL"), "env DATABASE_URL"
    return None


def _from_environment(option: Option, environ: Mapping[str, str], warnings: list[str]) -> tuple[str, str] | None:
    lines = option.kind.lines
    text = clean(environ.get(option.env, ""), option.env, lines=lines)
    twin = f"{option.env}_FILE"
    file = clean(environ.get(twin, ""), twin) if option.secret else ""
    if text and file:
        raise ConfigError(f"{option.name}: both {option.env} and {twin} are set; unset one of them")
    if file:
        content = read_file(Path(file), twin)
        if _is_open(Path(file)) and not Path(file).is_relative_to(MOUNTED_SECRETS):
            warnings.append(f"{twin}: anyone may read {file}; chmod o-r {file}")
        return clean(content, twin, lines=lines), f"env {twin}"
    return (text, f"env {option.env}") if text else None


def _is_open(path: Path) -> bool:
    """Tell whether everyone on this machine may read the file."""
    return bool(path.stat().st_mode & stat.S_IROTH)


def _toml(path: Path, warnings: list[str]) -> dict[str, Any]:
    """Read the file's keys, and add warnings about the file."""
    text = read_file(path, "config")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config: {path} is not TOML: {error}") from None
    by_name = {option.name: option for option in options()}
    for key in table:
        if key not in by_name:
            raise ConfigError(f"config: {path} has the unknown key {key!r}{_suggestion(key, list(by_name))}")
    secrets = [key for key in table if by_name[key].secret]
    if secrets and _is_open(path):
        warnings.append(f"config: {path} holds {secrets[0]} and anyone may read it; chmod o-r {path}")
    return table


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a warning, no error: a Kubernetes service named relay sets RELAY_PORT, RELAY_SERVICE_HOST and more."""
    known = {option.env for option in options()} | {"RELAY_CONFIG", "RELAY_ACTOR", "RELAY_API", "RELAY_API_TOKEN"}
    known |= {f"{option.env}_FILE" for option in options() if option.secret}
    unknown = sorted(name for name in environ if name.startswith("RELAY_") and name not in known)
    if not unknown:
        return []
    return ["ignored, not options: " + ", ".join(name + _suggestion(name, sorted(known)) for name in unknown)]


def _suggestion(word: str, known: list[str]) -> str:
    close = nearest(word.replace("-", "_"), known, cutoff=0.8)
    return f" (did you mean {close}?)" if close else ""
