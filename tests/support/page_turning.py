"""Turn the pages of a list to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from outbox.control.pages import Page

T = TypeVar("T")


def all_pages(ask: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Yield what every page has, from the first on; a page that leads to itself fails."""
    after: str | None = None
    while True:
        page = ask(after)
        yield from page
        if page.next is None:
            return
        assert page.next != after
        after = page.next
