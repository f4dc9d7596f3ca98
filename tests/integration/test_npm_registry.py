"""Tests that need npm are skipped where no registry can be reached, and fail where one refuses."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from tests.support.npm import Npm


@contextmanager
def registry(status: int, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Yield the URL of a registry that answers everything with this status."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None: ...

    with Quiet(("127.0.0.1", 0), Answer) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package from a registry, as the tests do, with no cache and no pause before the second try."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)

    def install_from(url: str) -> None:
        settings = {"registry": url, "cache": str(tmp_path / "cache"), "fetch_retry_mintimeout": "1", "proxy": ""}
        for name, value in settings.items():
            monkeypatch.setenv(f"npm_config_{name}", value)
        Npm(tmp_path, ["standardwebhooks@1.1.1"])

    return install_from


def test_where_nobody_listens_it_is_skipped(install) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(pytest.skip.Exception, match=r"the npm registry cannot be reached \(ECONNREFUSED\)"):
        install(f"http://127.0.0.1:{port}/")


def test_behind_tls_that_nobody_vouches_for_it_is_skipped(install) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with (
        registry(200, context) as url,
        pytest.raises(pytest.skip.Exception, match=r"the npm registry cannot be reached \(UNABLE_TO_VERIFY"),
    ):
        install(url)


@pytest.mark.slow
@pytest.mark.parametrize("status", [407, 502, 503, 504])
def test_where_a_proxy_or_gateway_stands_before_it_it_is_skipped(install, status: int) -> None:
    with registry(status) as url, pytest.raises(pytest.skip.Exception, match=rf"\(E{status}\)"):
        install(url)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_what_a_registry_refuses_is_a_failure(install, status: int) -> None:
    with registry(status) as url, pytest.raises(AssertionError, match=f"code E{status}"):
        install(url)
