"""The options of the daemon, from their declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docs.site.markdown import code
from relay.config.options import options

if TYPE_CHECKING:
    from relay.config.option import Option

_HEAD = """# Configuration

Every option has three spellings. The first one that says something wins: the flag, the environment variable, the key
of a TOML file (`--config FILE`, or RELAY_CONFIG), the default. `relay config` prints each value and where it came
from. A secret may stand in a file: the variable's name with `_FILE` at its end names the file.
"""


def configuration() -> str:
    """Return the page: a heading for each option."""
    return _HEAD + "".join(map(_option, options()))


def _option(option: Option) -> str:
    files = f", or {code(option.env + '_FILE')}" if option.secret else ""
    return f"""
## {option.name}

{option.meaning}

- Flag: {code(option.flag)} of {" and ".join(f"`relay {name}`" for name in option.commands)}
- Variable: {code(option.env)}{files}
- TOML: {code(option.name)}
- Default: {code(option.text_of(option.default)) if option.text_of(option.default) else "none"}
"""
