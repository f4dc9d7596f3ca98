"""The log of what was done to relays and to the database, JSON Lines: what may have caused repeats."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil


def note(incidents: Path, what: str, **facts: object) -> None:
    """Append to the log: a relay `killed` or `stopped` (with `ports`), `database away`, `database back`."""
    with incidents.open("a") as log:
        log.write(json.dumps({"what": what, "at": time.time(), **facts}) + "\n")


def connected_ports(pid: int) -> list[int]:
    """Return the local ports of a process's TCP connections."""
    return [connection.laddr.port for connection in psutil.Process(pid).net_connections("tcp") if connection.raddr]
