"""Every example runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.local.children import Child
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
LOOPBACK = {"RELAY_ALLOW_NETWORKS": "127.0.0.0/8", "RELAY_ALLOW_HTTP": "true"}


def program(arguments: list[str], environment: dict[str, str], output: Path) -> Child:
    """Run a program of this environment until the block ends."""
    return Child(arguments[0], ["-m", *arguments], output, os.environ | {"PYTHONPATH": str(ROOT)} | environment)


def call(url: str, body: Any = None) -> httpx.Response:
    """POST a JSON body, or GET without one."""
    return httpx.request("GET" if body is None else "POST", url, json=body, timeout=10, trust_env=False)


def receipts(shop: str) -> Any:
    """What the shop says that it received."""
    return call(f"{shop}/receipts").raise_for_status().json()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def shop(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The FastAPI shop and a relay, as real processes; yields the shop's address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    application = {"DATABASE_URL": database_url.replace("postgresql://", "postgresql+psycopg://", 1)}
    serve = ["uvicorn", "examples.fastapi_shop:app", "--port", str(port), "--log-level", "warning"]
    with (
        program(serve, application, tmp_path / "shop"),
        program(["relay", "run"], LOOPBACK | {"RELAY_DATABASE_URL": database_url}, tmp_path / "relay"),
    ):
        wait_until(lambda: answers(url), message="the shop does not answer", timeout_seconds=30)
        yield url


def answers(url: str) -> bool:
    try:
        return receipts(url) == []
    except httpx.HTTPError:
        return False


def test_an_order_reaches_the_customer_that_subscribed(shop: str) -> None:
    subscription = call(f"{shop}/subscriptions", {"url": f"{shop}/webhooks", "types": ["order.*"]}).json()
    order = call(f"{shop}/orders", {"cents": 4200}).json()
    wait_until(lambda: receipts(shop) != [], message="no webhook came", timeout_seconds=30)
    (receipt,) = receipts(shop)
    assert subscription["secret"].startswith("whsec_")
    assert receipt["type"] == "order.placed"
    assert receipt["data"] == {"id": order["order"], "cents": 4200}


def test_a_refused_subscription_says_what_to_mend(shop: str) -> None:
    refusal = call(f"{shop}/subscriptions", {"url": "ftp://example.com/", "types": ["order.*"]})
    assert refusal.status_code == 422
    assert refusal.json()["detail"].startswith("url: ")
