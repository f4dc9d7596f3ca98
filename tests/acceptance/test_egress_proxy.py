"""A relay behind an egress proxy that is set, and one beside a proxy that only the environment names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.support.application import Application
from tests.support.proxies import Proxy, proxying
from tests.support.waiting import wait_until

NAME, LOGIN = "hooks.example.com", "relay:p@ss-word"


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(params=["http", "socks5"])
def proxy(request: pytest.FixtureRequest, portal: BlockingPortal) -> Iterator[Proxy]:
    """A proxy that knows where NAME is, which nobody else does."""
    running = proxying(request.param, hosts={NAME: "127.0.0.1"}, login=LOGIN)
    with portal.wrap_async_context_manager(running) as proxy:
        yield proxy


@pytest.mark.case("B17")
def test_every_request_goes_through_the_proxy_that_is_set(app: Application, proxy: Proxy, tmp_path: Path) -> None:
    port = urlsplit(app.receiver.url("/")).port
    app.subscribe("/hook")
    app.rows("update outbox.subscriptions set url = :url", url=f"http://{NAME}:{port}/hook")
    app.record(10)
    file = tmp_path / "egress-proxy"
    file.write_text(proxy.url.replace("//", "//relay:p%40ss-word@") + "\n")
    file.chmod(0o600)
    relay = app.stage.relay("--until-drained", environment={"RELAY_EGRESS_PROXY_FILE": str(file)})
    assert relay.wait(60) == 0, relay.text
    app.assert_each_once()  # the receiver verified every signature
    assert {(asked.host, asked.port, asked.login) for asked in proxy.asked} == {(NAME, port, LOGIN)}
    assert 1 <= len(proxy.asked) == proxy.accepted <= 10, "connections are kept"
    assert "ss-word" not in relay.text


def test_a_proxy_that_is_down_costs_no_attempt(app: Application) -> None:
    app.subscribe("/hook")
    app.record(3)
    relay = app.stage.running_relay("--egress-proxy", "http://127.0.0.1:9")
    wait_until(lambda: "this machine cannot send: egress proxy http://127.0.0.1:9: Connection refused" in relay.text)
    assert relay.stop() == 0
    assert app.one("select count(*) from outbox.attempts") == 0
    assert app.one("select count(*) from outbox.deliveries where attempts = 0") == 3


@pytest.mark.case("S7")
def test_the_proxies_of_the_environment_are_not_used(app: Application, proxy: Proxy, tmp_path: Path) -> None:
    """proxy-env, socks"""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    environment = {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")} | dict.fromkeys(names, proxy.url)
    app.subscribe("/hook")
    app.record(3)
    relay = app.stage.relay("--until-drained", environment=environment)
    assert relay.wait(60) == 0, relay.text
    app.assert_each_once()
    assert proxy.accepted == 0
