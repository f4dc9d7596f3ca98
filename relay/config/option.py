"""One option of the relay's configuration, and the error of a value that it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outbox.errors import OutboxError

if TYPE_CHECKING:
    from relay.config.kinds import Kind

__all__ = ["ConfigError", "Option", "checked"]


class ConfigError(OutboxError):
    """An option was refused; the message names it, where it came from, and the fix."""


@dataclass(frozen=True)
class Option:
    """One option, as declared by its field in `Config`; `commands` are those of run and serve that have its flag."""

    name: str
    kind: Kind
    default: Any
    meaning: str
    commands: tuple[str, ...]

    @property
    def secret(self) -> bool:
        """Whether its value is a secret."""
        return self.kind.redact is not None

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """The environment variable."""
        return "RELAY_" + self.name.upper()

    def text_of(self, value: Any) -> str:
        """Return the value as text, redacted if it is a secret."""
        if self.kind.redact:
            return self.kind.redact(value)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if self.kind.to_text:
            return self.kind.to_text(value)
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def checked(option: Option, value: object, source: str) -> Any:
    """Return the value as the option holds it. Raises ConfigError, which names `source`."""
    try:
        return option.kind.check(value)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
