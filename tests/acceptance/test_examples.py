"""Every example runs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.local.children import Child
from relay.local.embedded import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
LOOPBACK = {"RELAY_ALLOW_NETWORKS": "127.0.0.0/8", "RELAY_ALLOW_HTTP": "true"}


def program(arguments: list[str], environment: dict[str, str], output: Path) -> Child:
    """Run a program of this environment until the block ends."""
    return Child(arguments[0], ["-m", *arguments], output, os.environ | {"PYTHONPATH": str(ROOT)} | environment)


def call(url: str, body: Any = None) -> httpx.Response:
    """POST a JSON body, or GET without one."""
    return httpx.request("GET" if body is None else "POST", url, json=body, timeout=10, trust_env=False, verify=False)


def receipts(shop: str) -> Any:
    """What the shop says that it received."""
    return call(f"{shop}/receipts").raise_for_status().json()


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


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for what a program makes for itself, which root's embedded server, the user nobody, may enter."""
    directory = Path(tempfile.mkdtemp(prefix="outbox-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.slow
def test_one_command_runs_an_example_until_ctrl_c_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    with program(["examples", "notely"], {"TMPDIR": str(temporary)}, tmp_path / "notely") as example:
        wait_until(lambda: "its customer's receiver" in example.text, message="it does not run", timeout_seconds=60)
        url = example.text.split("notely: ")[1].split("/docs")[0]
        assert call(f"{url}/openapi.json").json()["info"]["title"] == "notely"
        assert list(temporary.glob("outbox-example-*"))
        os.kill(example.pid, signal.SIGINT)
        assert example.wait(30) == 0
    assert list(temporary.iterdir()) == []


def test_an_unknown_example_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with program(["examples", "notly"], {}, tmp_path / "unknown") as example:
        assert example.wait(30) == 2
        assert example.last_words() == "python -m examples NAME: NAME is one of catalogue, leads, notely, soundhash"
