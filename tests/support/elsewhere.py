"""A receiver and a proxy in a process of their own, so that their bytes come while a test's loop stands still.

A thread would do, but uvloop in one thread beside asyncio in another has ended a worker with a segmentation fault.
The process reads commands and writes answers, one line of JSON each.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import trustme

from relay.config.egress_proxy import EgressProxy, parse_egress_proxy
from tests.support.proxies import proxying
from tests.support.scripted_receiver import OK, Exchange, receiving
from tests.support.tls_server import server_context

_ROOT = Path(__file__).parents[2]


class Elsewhere:
    """The process, as a test sees it; `name` is the host that its proxies resolve and its certificates are for."""

    authority: str
    """What signs its certificates, PEM."""
    port: int
    """Of the receiver that is being served."""
    address: EgressProxy
    """Of the proxy that is being served."""

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, name], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.authority = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)  # it ends with its input

    @contextmanager
    def serving(self, proxy: str, endpoint: str) -> Iterator[None]:
        """Serve a proxy and a receiver of these schemes; the receiver answers every request with OK."""
        self.port, url = self._ask("serve", proxy, endpoint)
        self.address = parse_egress_proxy(url)
        try:
            yield
        finally:
            self._ask("stop")

    def play(self, data: bytes) -> None:
        """Let the receiver write so to the connection of its last request."""
        self._ask("play", data.decode("latin-1"))

    def counts(self) -> tuple[int, int]:
        """Return how many connections the receiver accepted, and how many requests came."""
        accepted, requests = self._ask("count")
        return accepted, requests

    def _ask(self, *command: str) -> Any:
        assert self._process.stdin
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the process ended with {self._process.wait()}"
        return json.loads(line)


async def _answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


async def _command() -> list[str]:
    return json.loads(await asyncio.to_thread(sys.stdin.readline) or '["end"]')


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


async def _serve(authority: trustme.CA, name: str, proxy: str, endpoint: str) -> None:
    def encryption(scheme: str) -> dict[str, Any]:
        return {"ssl": server_context(authority.issue_cert(name, "127.0.0.1"))} if scheme == "https" else {}

    async with (
        receiving(_answers_ok, **encryption(endpoint)) as receiver,
        proxying(proxy, hosts={name: "127.0.0.1"}, **encryption(proxy)) as served,
    ):
        _say([receiver.port, served.url])
        while (command := await _command())[0] in ("play", "count"):
            if command[0] == "play":
                await receiver.requests[-1].play(command[1].encode("latin-1"))
            _say([receiver.accepted, len(receiver.requests)])
    _say(None)


async def _main(name: str) -> None:
    authority = trustme.CA()
    _say(authority.cert_pem.bytes().decode())
    while (command := await _command())[0] == "serve":
        await _serve(authority, name, *command[1:])


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
