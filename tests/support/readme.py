"""The documents: their code blocks, what they name, and their parts that are made from code.

`python -m tests.support.readme --write` makes those parts anew.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from outbox.subscriptions.declaration import REQUIRED, Field
from outbox.subscriptions.fields import FIELDS
from relay.cli.subscription_options import flag_name
from relay.config.options import config_table
from relay.local.demo import shop

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (
    README,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "flow").glob("*.md")),
    ROOT / "examples" / "README.md",
)

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line} {self.language}"


def blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    content = document.read_text(encoding="utf-8")
    return [
        Block(str(document.relative_to(ROOT)), content.count("\n", 0, match.start()) + 1, match[1], dedent(match[2]))
        for match in _FENCE.finditer(content)
    ]


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def spans(document: Path) -> list[str]:
    """Return what stands between backticks in the prose, line ends as blanks."""
    return [" ".join(span.split()) for span in _SPAN.findall(prose(document))]


def shell_lines(block: Block) -> list[str]:
    """Return the commands of an sh or console block."""
    return [line.removeprefix("$ ") for line in block.text.replace("\\\n", " ").splitlines()]


def relay_commands(document: Path) -> list[str]:
    """Return every `relay …` that a document names: in prose, shell blocks and unit files."""
    found = [span for span in spans(document) if span.startswith("relay ")]
    for block in blocks(document):
        if block.language in ("sh", "console"):
            parts = [part.strip() for line in shell_lines(block) for part in line.split("&&")]
            found += [re.sub(r"^\S*/relay ", "relay ", part) for part in parts]
        elif block.language == "ini":
            found += re.findall(r"^ExecStart=\S*/(relay .*)$", block.text, re.MULTILINE)
    return [command for command in found if command.startswith("relay ")]


def section(name: str) -> str:
    """Return what stands between the markers `<!-- name -->` and `<!-- /name -->` of the one document that has them."""
    (found,) = [text for document in DOCUMENTS for text in _section(name).findall(document.read_text(encoding="utf-8"))]
    return str(found)


def made_sections() -> dict[str, str]:
    """Return the sections that are made from code, by name."""
    return {"shop": _shop(), "configuration": _configuration(), "fields": _fields()}


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=^<!-- {name} -->\n)(.*?)(?=^<!-- /{name} -->$)", re.MULTILINE | re.DOTALL)


def _shop() -> str:
    source = Path(shop.__file__).read_text(encoding="utf-8")
    return f"```python\n{source}```\n"


def _configuration() -> str:
    rows = [f"| `{row['name']}` | {row['default'] or 'none'} | {row['meaning']} |" for row in config_table()]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _fields() -> str:
    rows = [
        f"| `{field.name}` | {', '.join(f'`{flag_name(flag.name)}`' for flag in field.flags)} | {_default(field)}"
        f" | {field.meaning} |"
        for field in FIELDS
    ]
    return "\n".join(["| field | flags | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _default(field: Field) -> str:
    return "required" if field.default is REQUIRED else field.default_text or "none"


def write() -> None:
    """Replace the sections that are made from code, in every document."""
    for document in DOCUMENTS:
        content = document.read_text(encoding="utf-8")
        for name, body in made_sections().items():
            content = _section(name).sub(lambda _, body=body: body, content)
        document.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
