"""What must hold for the site as it was built: its links and anchors exist, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
_LINKS_THAT_LOAD = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
_CSS_URL = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""")


class Page(HTMLParser):
    """The links, ids and loaded assets of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.loads: list[str] = _CSS_URL.findall(html)
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, loads, and is called."""
        given = {name: value for name, value in attrs if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in _LOADS and _LOADS[tag] in given:
            self.loads.append(given[_LOADS[tag]])
        if tag == "link" and _LINKS_THAT_LOAD & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))


def faults_of(site: Path) -> list[str]:
    """Return what is wrong with a site, a line each."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        return [f"{site}: no page was built"]
    wrong = [fault for path, page in pages.items() for fault in _faults_of_page(site, path, page, pages)]
    for path in sorted(site.rglob("*.css")):
        wrong += [f"{path.relative_to(site)}: loads {url}" for url in _CSS_URL.findall(path.read_text("utf-8"))]
    return wrong


def _faults_of_page(site: Path, path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    name = path.relative_to(site)
    for url in page.loads:
        if urlsplit(url).netloc:
            yield f"{name}: loads {url}"
        elif not _target(site, path, url).exists():
            yield f"{name}: {url} is not there"
    for link in page.links if path.name != "404.html" else ():
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = _target(site, path, link)
        if not target.is_file():
            yield f"{name}: {link} leads nowhere"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"{name}: {link}: there is no such heading"


def _target(site: Path, path: Path, link: str) -> Path:
    """Return the file that a link of a page leads to."""
    place = unquote(urlsplit(link).path)
    target = site / place.lstrip("/") if place.startswith("/") else path.parent / place
    target = target.resolve() if place else path
    return target / "index.html" if target.is_dir() else target
