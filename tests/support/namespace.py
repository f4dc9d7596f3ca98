"""A network namespace of its own for a process, whose one link to the database can be cut without a packet of goodbye.

Neither side learns of a cut: what a server sends is never acknowledged, and what a process sends never arrives. Needs
root and the program `ip`.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relay.local import embedded

__all__ = ["Namespace", "enter", "inside", "namespace", "reachable_server", "why_not"]

_NETWORK = "198.18"  # 198.18.0.0/15 is for tests of networks (RFC 2544)


def enter(name: str) -> None:
    """Move this thread to a network namespace; the sockets that it has stay where they were made."""
    _enter(os.open(f"/var/run/netns/{name}", os.O_RDONLY))


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Be in a network namespace for the block."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter(name)
    try:
        yield
    finally:
        _enter(here)


def _enter(descriptor: int) -> None:
    """Do so and close it; os.setns comes with Python 3.12."""
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "cannot enter a network namespace")
    finally:
        os.close(descriptor)


def why_not() -> str:
    """Return why this machine has no network namespace for us, or '' when it has."""
    if shutil.which("ip") is None:
        return "no program ip on this machine: apt-get install iproute2"
    name = f"outbox-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@dataclass(frozen=True)
class Namespace:
    """`outside` and `inside` are the addresses of the two ends of the link."""

    name: str
    outside: str
    inside: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make tests/support/crashing.py run inside."""
        return {"RELAY_TEST_NAMESPACE": self.name}

    def cut(self) -> None:
        """Lose every packet from now on, both ways."""
        _ip("link", "set", f"{self.name}-o", "down")

    def mend(self) -> None:
        """Let packets pass again."""
        _ip("link", "set", f"{self.name}-o", "up")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Yield a namespace with a link to this one; both are gone afterwards."""
    token = secrets.token_hex(2)
    third, name = int(token[:2], 16), f"obx{token}"
    made = Namespace(name, f"{_NETWORK}.{third}.1", f"{_NETWORK}.{third}.2")
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{name}-o", "type", "veth", "peer", "name", f"{name}-i")
        _ip("link", "set", f"{name}-i", "netns", name)
        _ip("addr", "add", f"{made.outside}/30", "dev", f"{name}-o")
        _ip("link", "set", f"{name}-o", "up")
        for words in (
            ("addr", "add", f"{made.inside}/30", "dev", f"{name}-i"),
            ("link", "set", f"{name}-i", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", name, *words)
        yield made
    finally:
        _ip("netns", "del", name)


@contextmanager
def reachable_server(links: Sequence[Namespace]) -> Iterator[str]:
    """Yield the URL of a server that answers at these links too."""
    directory = Path(tempfile.mkdtemp(prefix="outbox-cut-"))
    listening = ",".join(["127.0.0.1", *(link.outside for link in links)])
    try:
        with embedded.start(
            directory, settings={"listen_addresses": listening, "fsync": "off", "max_connections": "200"}
        ) as server:
            with (directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.writelines(f"host all all {link.inside}/32 scram-sha-256\n" for link in links)
            server.restart()
            yield server.url()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
