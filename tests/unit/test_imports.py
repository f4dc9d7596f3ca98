"""Who may import whom, and who may open a socket: read from the source, so that an import inside a function counts."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import outbox
import relay

# The most particular name that fits a module decides. Right of it: what it may import of ours and of others' packages;
# the standard library is free. "outbox" here means the package and everything in it.
MAY_IMPORT: dict[str, set[str]] = {
    "outbox": {"outbox", "sqlalchemy"},
    "outbox._insert": {"outbox", "sqlalchemy", "psycopg", "asyncpg"},
    "outbox.alembic_plugin": {"alembic"},
    "outbox.record": {"outbox", "sqlalchemy", "psycopg", "asyncpg"},
    "outbox.payload": {"outbox", "pydantic"},
    "outbox.url": {"outbox", "idna"},
    "outbox.schemes.ed25519": {"outbox", "cryptography"},
    "outbox.sealing": {"outbox", "sqlalchemy", "cryptography"},
    "outbox.certificates": {"outbox", "cryptography"},
    "relay.http": {
        *("outbox.credentials", "outbox.custom_headers", "outbox.errors", "outbox.signature", "outbox.url"),
        *("relay.http", "httptools"),
    },
    "relay.http.certificate": {"cryptography"},
    "relay.http.inspect_tunnel": {"outbox.url", "relay.http", "anyio"},
    "relay.http.proxied": {"relay.http", "relay.egress_proxy", "anyio", "httpcore"},
    "relay.http.tunnel": {"outbox.url", "relay.http", "relay.egress_proxy", "anyio"},
    "relay.engine": {
        "outbox.errors",
        "outbox.ids",
        "outbox.secret",
        "outbox.schemes",
        "relay.engine",
        "relay.http",
        "relay.keyring",
        "psycopg",
        "anyio",
    },
    "relay.operations": {
        "outbox",
        "relay.engine.statements",
        "relay.operations",
        "relay.config",
        "relay.database_url",
        "relay.keyring",
        "relay.resealing",
        "relay.wording",
        "sqlalchemy",
    },
    "relay.operations.diagnosis": {"outbox.errors", "outbox.url", "relay.http"},
    "relay.operations.exchange": {"outbox", "relay.http", "relay.senders"},
    "relay.operations.probe": {
        *("outbox", "relay.address_policy", "relay.config", "relay.engine", "relay.http", "relay.keyring"),
        *("relay.operations", "relay.senders"),
    },
    "relay.operations.target": {"outbox", "relay.engine", "relay.http", "relay.wording", "sqlalchemy"},
    "relay.address_policy": {"relay.config", "relay.http.addresses"},
    "relay.config": {
        *("outbox.errors", "outbox.secret", "relay.config_kinds", "relay.database_url", "relay.egress_proxy"),
    },
    "relay.config_kinds": {"outbox.secret", "relay.database_url", "relay.egress_proxy", "relay.keyring"},
    "relay.config_sources": {"relay.config"},
    "relay.database_url": {"psycopg", "sqlalchemy"},
    "relay.egress_proxy": {"outbox.errors", "outbox.secret", "outbox.url"},
    "relay.embedded": {"relay.guard"},
    "relay.guard": set(),
    "relay.keyring": {"outbox.errors", "outbox.ids", "outbox.sealing", "outbox.secret", "cryptography"},
    "relay.resealing": {"outbox.sealing", "outbox.secret", "relay.keyring"},
    "relay.redaction": set(),
    "relay.telemetry": {"relay.config", "relay.redaction"},
    "relay.wording": set(),
    "relay.supervisor": set(),
    "relay.startup": {"outbox.schema", "relay.config", "relay.http", "relay.keyring", "relay.operations", "sqlalchemy"},
    "relay.housekeeping": {
        *("outbox.errors", "outbox.sealing", "relay.config", "relay.database_url", "relay.keyring"),
        *("relay.resealing", "psycopg", "anyio"),
    },
    "relay.daemon": {
        *("outbox._version", "relay.config", "relay.database_url", "relay.engine", "relay.housekeeping"),
        *("relay.keyring", "relay.senders", "relay.startup", "relay.supervisor", "relay.telemetry"),
        *("anyio", "uvloop"),
    },
    "relay.senders": {"outbox._version", "relay.address_policy", "relay.config", "relay.http"},
    "relay.receiver": {"outbox.errors", "outbox.signature", "relay.receiver", "httptools"},
    "relay.demo": {
        *("outbox", "relay.config", "relay.database_url", "relay.demo", "relay.embedded", "relay.guard"),
        *("relay.receiver", "rich", "sqlalchemy"),
    },
    "relay.cli": {"outbox", "relay", "click", "sqlalchemy", "psycopg"},
    "relay": {"outbox", "relay.cli", "click"},
}
# Each of these can open a connection to somewhere else. A user's URL is called through relay.http and nothing else.
OUTBOUND_MODULES = {
    "http.client",
    "httpcore",
    "httpx",
    "requests",
    "aiohttp",
    "urllib3",
    "urllib.request",
    "smtplib",
    "ftplib",
    "ssl",
}
OUTBOUND_CALLS = {
    *("create_connection", "open_connection", "sock_connect", "connect_ex", "connect_tcp", "getaddrinfo", "urlopen")
}
# These listen on this machine, or look for a free port.
MAY_USE_SOCKETS = {"relay.embedded", "relay.demo.dev", "relay.supervisor"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in (outbox, relay):
        root = Path(package.__file__).parent
        for file in sorted(root.rglob("*.py")):
            name = ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(file.read_text(encoding="utf-8"))


MODULES = dict(modules())


def imported(tree: ast.Module) -> set[str]:
    """Every dotted name that a module imports; `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def rule_for(module: str) -> set[str]:
    return MAY_IMPORT[max((name for name in MAY_IMPORT if within(module, name)), key=len)]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    names = {name for name in imported(MODULES[module]) if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in names if not any(within(name, allowed) for allowed in rule_for(module))} == set()


def test_the_table_names_only_what_exists() -> None:
    assert {name for name in MAY_IMPORT if name not in MODULES} == set()
    assert {name for name in MAY_USE_SOCKETS if name not in MODULES} == set()


def test_outbox_never_imports_relay() -> None:
    assert {
        m for m, tree in MODULES.items() if within(m, "outbox") and any(within(n, "relay") for n in imported(tree))
    } == set()


def test_nothing_but_relay_http_opens_a_connection() -> None:
    """Besides drivers of PostgreSQL, which have no name in this list."""
    found = {
        f"{module}: {name}"
        for module, tree in MODULES.items()
        if not within(module, "relay.http")
        for name in imported(tree) | called(tree)
        if name in OUTBOUND_CALLS or any(within(name, outbound) for outbound in OUTBOUND_MODULES)
    }
    assert found - {"relay.receiver.server: http.client.responses"} == set()


def test_only_few_modules_touch_sockets() -> None:
    users = {module for module, tree in MODULES.items() if any(within(name, "socket") for name in imported(tree))}
    assert {module for module in users if not within(module, "relay.http")} <= MAY_USE_SOCKETS


def called(tree: ast.Module) -> set[str]:
    """The last name of everything that is called: `loop.create_connection(…)` is create_connection."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        f.attr if isinstance(f, ast.Attribute) else f.id for f in functions if isinstance(f, ast.Attribute | ast.Name)
    }
