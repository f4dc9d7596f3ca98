"""The guard of every process in these tests bites: there is no other way out than through the address policy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.application import Application
from tests.support.processes import BREACH, Process

GUARD_CODE = 97

OTHER_WAYS = {
    "connect": "socket.create_connection(('127.0.0.1', PORT))",
    "connect_ex": "socket.socket().connect_ex(('127.0.0.1', PORT))",
    "a unix socket": "socket.socket(socket.AF_UNIX).connect('/nowhere')",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "a message": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('127.0.0.1', PORT))",
    "a lookup": "socket.getaddrinfo('example.com', 443)",
    "a library": "urllib.request.urlopen('http://127.0.0.1:PORT/'.replace('PORT', str(PORT)))",
    "asyncio": "asyncio.run(asyncio.open_connection('127.0.0.1', PORT))",
    "uvloop": "uvloop.run(asyncio.open_connection('127.0.0.1', PORT))",
    "another address": "policy.refusal('8.8.8.8'); socket.create_connection(('127.0.0.1', PORT))",
    "an address refused": "AddressPolicy().refusal('127.0.0.1'); socket.create_connection(('127.0.0.1', PORT))",
}
ALLOWED_WAYS = {
    "connect": "policy.refusal('127.0.0.1'); socket.create_connection(('127.0.0.1', PORT))",
    "uvloop": "policy.refusal('127.0.0.1'); uvloop.run(asyncio.open_connection('127.0.0.1', PORT))",
}
PROGRAM = """
import asyncio, socket, urllib.request, uvloop
from outbox.subscriptions.addresses import AddressPolicy
PORT = {port}
policy = AddressPolicy(["127.0.0.0/8"])
{way}
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A port of loopback where everybody may connect."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def ended(program: list[str], directory: Path, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Return the exit code of a program, and what it printed."""
    process = Process(program, directory / "output", environ)
    try:
        return process.wait(), process.text
    finally:
        process.end()


@pytest.mark.slow
@pytest.mark.parametrize("way", OTHER_WAYS.values(), ids=OTHER_WAYS)
def test_another_way_out_ends_the_process(way: str, port: int, tmp_path: Path) -> None:
    code, printed = ended(["-c", PROGRAM.format(port=port, way=way)], tmp_path)
    assert (code, printed[: len(BREACH)]) == (GUARD_CODE, BREACH)


@pytest.mark.parametrize("way", ALLOWED_WAYS.values(), ids=ALLOWED_WAYS)
def test_what_the_policy_just_allowed_is_no_breach(way: str, port: int, tmp_path: Path) -> None:
    assert ended(["-c", PROGRAM.format(port=port, way=way)], tmp_path) == (0, "")


UNCHECKED = """
from relay.http import dial
from outbox.subscriptions.addresses import AddressPolicy
AddressPolicy.refusal_of_url = lambda *_: None
async def checked_addresses(policy, resolve, host, deadline):
    return [host]
dial.checked_addresses = checked_addresses
from relay.__main__ import main
main()
"""


def test_a_relay_that_skips_the_policy_is_ended_at_its_first_request(app: Application, tmp_path: Path) -> None:
    app.subscribe()
    app.record(1)
    environ = {"RELAY_DATABASE_URL": app.stage.database_url, "RELAY_ALLOW_HTTP": "true",
               "RELAY_ALLOW_NETWORKS": "127.0.0.0/8"}  # fmt: skip
    code, printed = ended(["-c", UNCHECKED, "run", "--until-drained"], tmp_path, environ)
    assert code == GUARD_CODE
    assert f"{BREACH}socket.connect to ('127.0.0.1'," in printed
    assert app.receiver.received() == []


def test_children_of_a_relay_are_guarded_too(app: Application) -> None:
    relay = app.stage.running_relay("--processes", "2", processes=2)
    for child in relay.children():
        assert "guarded" in child.environ()["PYTHONPATH"]
