"""The dashboard by plain HTTP: a client that signs in, posts forms with their token, and reads pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import httpx

from tests.support.dashboard import Scene

SECRET = re.compile(r"whsec_[A-Za-z0-9+/=]{20,}|rtk_[A-Za-z0-9_-]{43}")


class Page(HTMLParser):
    """A page as a browser reads it: its elements in order, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def posts_to(self) -> set[str]:
        return {str(e["action"]) for tag, e in self.elements if tag == "form" and e.get("method") == "post"}


class Forms(HTMLParser):
    """The forms of a page that post, by the name of their button: where each goes, with which fields."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, dict[str, str]]] = {}
        self._form: tuple[str, dict[str, str]] = ("", {})
        self._button: str | None = None  # its name so far
        self._is_named = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = (has.get("action", ""), {})
        elif tag == "input" and has.get("name") and has.get("type") != "checkbox":
            self._form[1][has["name"]] = has.get("value", "")
        elif tag == "button":
            self._button, self._is_named = has.get("aria-label", ""), "aria-label" in has

    def handle_data(self, data: str) -> None:
        if self._button is not None and not self._is_named:
            self._button += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "button" and self._button is not None:
            self.found[self._button.strip()] = self._form
            self._button = None


@dataclass
class Visitor:
    """Whoever reads pages and presses their buttons."""

    client: httpx.Client
    page: str = ""
    _path: str = "/"

    def open(self, path: str) -> str:
        self.page = self._shown(self.client.get(path, follow_redirects=True))
        return self.page

    def press(self, button: str, **fields: Any) -> str:
        """Press a button of the page that is open, with these fields filled in; return the text of the next page."""
        action, given = Forms(self.page).found[button]
        self.page = self._shown(self.client.post(action or self._path, data=given | fields, follow_redirects=True))
        return self.page

    def _shown(self, answer: httpx.Response) -> str:
        assert answer.status_code == 200, answer.text
        self._path = answer.url.raw_path.decode()
        return answer.text


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page))


_opened: list[httpx.Client] = []


def close_opened() -> None:
    """Close every client that `visit` has opened."""
    while _opened:
        _opened.pop().close()


def visit(address: str) -> httpx.Client:
    _opened.append(httpx.Client(base_url=address, timeout=30, verify=False))
    return _opened[-1]


def csrf_of(page: str) -> str:
    match = re.search(r'name="csrf" value="(\w+)"', page)
    assert match, page[:500]
    return match[1]


def sign_in(address: str, token: str) -> httpx.Client:
    client = visit(address)
    answer = client.post("/sign-in", data={"csrf": csrf_of(client.get("/sign-in").text), "token": token})
    assert answer.status_code == 303, answer.text
    return client


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, data={"csrf": csrf_of(client.get("/preferences").text), **fields})


def paths_of(scene: Scene) -> list[str]:
    return [
        "/", "/?window=1h", "/findings", "/subscriptions", "/subscriptions/new", f"/subscriptions/{scene.failing}",
        f"/subscriptions/{scene.subscription}/edit", f"/subscriptions/{scene.subscription}/secret",
        f"/subscriptions/{scene.subscription}/test", "/events", f"/events/{scene.dead_event}", "/deliveries",
        "/deliveries?state=delivered", f"/deliveries/{scene.dead_delivery}", f"/deliveries/{scene.waiting_delivery}",
        f"/deliveries/{scene.delivered_delivery}/request", "/dead-letters", "/attempts",
        "/attempts?outcome=failed&status=5xx&text=Gateway", "/bulk", "/bulk/new", f"/bulk/{scene.bulk}", "/audit",
        "/types", "/types/order.created", "/types/order.created?window=7d", "/tokens", "/preferences",
    ]  # fmt: skip
