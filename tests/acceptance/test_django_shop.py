"""examples/django_shop as real processes: what a request has committed is delivered, what it rolled back is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from relay.local.embedded import free_port
from tests.support.django_site import scalars
from tests.support.processes import Process, ReceiverProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.field("F51")


def settings_on(database_url: str) -> dict[str, str]:
    """The environment of the shop's commands."""
    return {
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "examples.django_shop.settings",
        "RELAY_ALLOW_NETWORKS": "127.0.0.0/8",
        "RELAY_ALLOW_HTTP": "true",
    }


@pytest.fixture
def settings(empty_database_url: str) -> dict[str, str]:
    return settings_on(empty_database_url)


@pytest.fixture
def shop(settings: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The shop after `manage.py migrate`; yields its address."""
    assert Process(["-m", "django", "migrate"], tmp_path / "migrate.out", settings).wait(60) == 0
    address = f"127.0.0.1:{free_port()}"
    server = Process(["-m", "django", "runserver", "--noreload", address], tmp_path / "shop.out", settings)
    try:
        wait_until(lambda: answers(f"http://{address}"), message=server.text, timeout_seconds=30)
        yield f"http://{address}"
    finally:
        server.end()


def answers(shop: str) -> bool:
    try:
        return httpx.get(f"{shop}/admin/login/", trust_env=False, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def post(url: str, body: Any) -> httpx.Response:
    return httpx.post(url, json=body, timeout=10, trust_env=False, verify=False)


def test_an_order_is_delivered_and_one_that_was_rolled_back_is_not(
    shop: str, settings: dict[str, str], receiver_process: ReceiverProcess, tmp_path: Path
) -> None:
    receiver_process.begin(tmp_path / "receiver.jsonl")
    asked = {"url": receiver_process.url("/hook"), "types": ["order.*"], "secret": receiver_process.secret}
    assert post(f"{shop}/subscriptions", asked).status_code == 201
    assert post(f"{shop}/subscriptions", asked | {"url": "ftp://example.com/"}).status_code == 422
    assert post(f"{shop}/orders", {"cents": -1}).status_code == 500
    order = post(f"{shop}/orders", {"cents": 4200}).json()
    relay = Process(["-m", "django", "relay", "run", "--until-drained"], tmp_path / "relay.out", settings)
    try:
        (received,) = receiver_process.wait_for(1)
        assert relay.wait() == 0, relay.text
    finally:
        relay.end()
    assert received["id"] == order["event"]  # and it was verified: else it would be "refused"
    assert len(receiver_process.received()) == 1
    url = settings["DATABASE_URL"]
    assert scalars(url, "select count(*) from outbox.events") == [1]
    assert scalars(url, "select cents from django_shop_order") == [4200]
    assert scalars(url, "select verdict from outbox.attempts") == ["delivered"]


def test_no_password_stands_on_the_command_line(database_url: str, tmp_path: Path) -> None:
    """`manage.py relay run` becomes the relay: signals reach it, and its arguments name no database."""
    relay = Process(["-m", "django", "relay", "run"], tmp_path / "relay.out", settings_on(database_url))
    try:
        wait_until(lambda: " running, process " in relay.text, message=relay.text, timeout_seconds=30)
        process = psutil.Process(relay.pid)
        assert process.cmdline()[1:] == ["-m", "relay", "run"]
        assert database_url not in relay.text
        process.terminate()
        assert relay.wait() == 0, relay.text
    finally:
        relay.end()
