"""The dashboard by plain HTTP: a client that signs in, posts forms with their token, and reads pages."""

from __future__ import annotations

import re
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
