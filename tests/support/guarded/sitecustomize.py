"""No other way out: ends any process of an acceptance test that connects to what the address policy did not just allow.

Python imports this by its name when this directory is on PYTHONPATH, in children too, before anything of ours. It needs
nothing of ours and changes nothing but what it watches, and the constants that a test shortens. The database is not
seen here: libpq connects in C. Everything else goes through `socket.connect`, `sendto` or `getaddrinfo`, which tell the
audit hook, or through uvloop's own ways, which do not and are watched by name.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import ipaddress
import json
import os
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

EXIT_CODE = 97
JUST_NOW_SECONDS = 60.0
WATCHED = ("socket.connect", "socket.sendto", "socket.sendmsg")
LOOKUP_THREAD = "outbox-relay lookup"

allowed: dict[str, float] = {}  # address: when the policy said so


def breach(what: str) -> None:
    """Say what was done, and end the process as no test expects it to end."""
    os.write(2, f"guard: {what}, which the address policy did not just allow\n".encode())
    os._exit(EXIT_CODE)


def is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def named_by_operator() -> set[tuple[str | None, int | None]]:
    """Return host and port of the databases and of an egress proxy, which the operator chose, in a file perhaps."""
    named = {name: text for name, text in os.environ.items() if "DATABASE_URL" in name or "EGRESS_PROXY" in name}
    texts = [Path(text).read_text() if name.endswith("_FILE") else text for name, text in named.items()]
    return {(url.hostname, url.port) for url in map(urlsplit, texts)}


def check_destination(what: str, address: object) -> None:
    host, port = address[:2] if isinstance(address, tuple) else (address, None)
    allowed_at = allowed.get(str(host), -JUST_NOW_SECONDS)
    if time.monotonic() - allowed_at >= JUST_NOW_SECONDS and (host, port) not in named_by_operator():
        breach(f"{what} to {address!r}")


def check_name(host: object) -> None:
    text = host.decode("latin-1") if isinstance(host, bytes) else str(host or "")
    if threading.current_thread().name == LOOKUP_THREAD or is_address(host or "::"):
        return
    if text not in {"", "localhost", *(named for named, _ in named_by_operator())}:
        breach(f"a lookup of {text!r} outside the resolver")


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if event in WATCHED and arguments[-1] is not None:  # a sendmsg on a connected socket names no address
        check_destination(event, arguments[-1])
    elif event == "socket.getaddrinfo":
        check_name(arguments[0])


def watch_policy(module: object) -> None:
    """Note each address that the policy allows."""
    policy = module.AddressPolicy  # type: ignore[attr-defined]
    refusal = policy.refusal

    def noting(self: object, address: object) -> object:
        reason = refusal(self, address)
        if reason is None:
            allowed[str(address)] = time.monotonic()
        return reason

    policy.refusal = noting


def watch_uvloop(module: object) -> None:
    """Check what uvloop connects by itself: it does so in C, and tells no audit hook."""
    loop = module.Loop  # type: ignore[attr-defined]
    for name, host_at in (("create_connection", 1), ("create_unix_connection", 1)):

        def checking(self: object, *args: object, _way: object = getattr(loop, name), _at: int = host_at, **options):
            host, port = (*args[_at : _at + 2], None, None)[:2]
            host, port = host or options.get("host", options.get("path")), port or options.get("port")
            if host is not None:
                check_destination("a connection of the loop", (host, port))
            return _way(self, *args, **options)  # type: ignore[operator]

        setattr(loop, name, checking)


def shorten(module: object) -> None:
    """Set the constants of this module that RELAY_TEST_CONSTANTS names, before another module reads them."""
    for name, value in CONSTANTS[module.__name__].items():  # type: ignore[attr-defined]
        getattr(module, name)  # one that is there
        setattr(module, name, value)


CONSTANTS = json.loads(os.environ.get("RELAY_TEST_CONSTANTS", "{}"))
"""{module: {name: value}}, see tests/support/constants.py."""
MODULES = {"outbox.subscriptions.addresses": watch_policy, "uvloop": watch_uvloop, **dict.fromkeys(CONSTANTS, shorten)}


class Watching(importlib.abc.MetaPathFinder):
    """Finds nothing by itself; has a look at two modules once they are imported."""

    def find_spec(self, name, path=None, target=None):
        watch = MODULES.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if watch else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_watch(module: object) -> None:
            execute(module)  # type: ignore[arg-type]
            watch(module)

        spec.loader.exec_module = execute_and_watch  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Watching())
sys.addaudithook(hook)
