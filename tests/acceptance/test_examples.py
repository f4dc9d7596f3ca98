"""Every example runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
LOOPBACK = {"RELAY_ALLOW_NETWORKS": "127.0.0.0/8", "RELAY_ALLOW_HTTP": "true"}


@contextmanager
def program(arguments: list[str], environment: dict[str, str], output: Path) -> Iterator[None]:
    """Run a program of this environment until the block ends."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def call(url: str, body: Any = None) -> Any:
    """POST a JSON body, or GET without one; return the JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


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
        return call(f"{url}/receipts") == []
    except (urllib.error.URLError, OSError):
        return False


def test_an_order_reaches_the_customer_that_subscribed(shop: str) -> None:
    subscription = call(f"{shop}/subscriptions", {"url": f"{shop}/webhooks", "types": ["order.*"]})
    order = call(f"{shop}/orders", {"cents": 4200})
    wait_until(lambda: call(f"{shop}/receipts") != [], message="no webhook came", timeout_seconds=30)
    (receipt,) = call(f"{shop}/receipts")
    assert subscription["secret"].startswith("whsec_")
    assert receipt["type"] == "order.placed"
    assert receipt["data"] == {"id": order["order"], "cents": 4200}


def test_a_refused_subscription_says_what_to_mend(shop: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        call(f"{shop}/subscriptions", {"url": "ftp://example.com/", "types": ["order.*"]})
    with refusal.value as answer:
        assert answer.code == 422
        assert json.loads(answer.read())["detail"].startswith("url: ")
