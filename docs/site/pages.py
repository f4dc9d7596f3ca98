"""The pages that people wrote: which there are, where each stands in the site, and their links."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
ELSEWHERE = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "LICENSE": "licence.txt"}
_FENCE = re.compile(r"^ *```\w*\n.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)(?P<path>[^)\s#]+)(?=[#)])")


class OutsideError(Exception):
    """A link leads to a file that is not in the site."""


def places() -> dict[str, str]:
    """Return every file of the site that is in the repository, and where it stands in the site."""
    docs = {file: file.removeprefix("docs/") for file in _files("docs") if not file.startswith("docs/site/")}
    return {**docs, **{file: file for file in _files("examples")}, **ELSEWHERE}


def _files(directory: str) -> Iterator[str]:
    for path in sorted((ROOT / directory).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix()


def copy_pages(pages: Path) -> None:
    """Copy every file of the site, with links that fit there. Raises OutsideError."""
    known = places()
    for source, place in known.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            target.write_text(with_links_of_the_site(source, known), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)


def with_links_of_the_site(source: str, known: dict[str, str]) -> str:
    """Return a page with its links as they are in the site; what is in a block of code stays."""
    text = (ROOT / source).read_text(encoding="utf-8")

    def moved(match: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / match["path"])
        if target + "/README.md" in known:
            target += "/README.md"
        if target not in known:
            raise OutsideError(f"{source}: {match['path']} is not in the site: link to a file of docs/, or by https://")
        return os.path.relpath(known[target], PurePosixPath(known[source]).parent)

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(moved, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(moved, text[end:])])


def navigation() -> list[str]:
    """Return the pages that the navigation names, in order."""
    return list(_pages_in(tomllib.loads((SITE / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))


def _pages_in(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from _pages_in(inner)
