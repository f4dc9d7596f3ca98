"""Who may import whom, and who may open a socket: read from the source, so that an import inside a function counts."""

from __future__ import annotations

import ast
import functools
import importlib
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
    "outbox.recording": {"outbox", "sqlalchemy", "psycopg", "asyncpg"},
    "outbox.recording.payload": {"outbox", "pydantic"},
    "outbox.recording.trace": {"outbox", "opentelemetry"},
    "outbox.schema.alembic_plugin": {"alembic"},
    "outbox.sealing": {"outbox", "sqlalchemy", "cryptography"},
    "outbox.signing": {"outbox.errors", "outbox.secret", "outbox.signing", "outbox._text"},
    "outbox.signing.schemes.ed25519": {"outbox", "cryptography"},
    "outbox.subscriptions.certificates": {"outbox", "cryptography"},
    "outbox.subscriptions.url": {"outbox", "idna"},
    # From here on each line names only rooms to the left of its own: model ← http ← message ← store, engine ← …
    "relay.model": {"outbox.ids", "outbox.secret", "relay.model"},
    "relay.config": {"outbox", "relay.config", "psycopg", "sqlalchemy"},
    "relay.config.kinds": {"outbox.secret", "outbox.signing", "relay.config", "relay.secrets.keyring"},
    "relay.secrets": {"outbox", "relay.secrets", "cryptography"},
    "relay.telemetry": {"outbox._version", "relay.config", "relay.model", "relay.telemetry", "prometheus_client"},
    "relay.http": {"outbox", "relay.config", "relay.http", "relay.model", "httptools"},
    "relay.http.inspection.certificate": {"cryptography"},
    "relay.message": {"outbox", "relay.http", "relay.message", "relay.model", "relay.secrets"},
    "relay.message.trace": {"outbox", "relay.http", "relay.model", "opentelemetry"},
    "relay.store": {"outbox", "relay.model", "relay.store", "psycopg", "sqlalchemy"},
    "relay.engine": {
        *("outbox", "relay.engine", "relay.http", "relay.message", "relay.model", "relay.secrets", "relay.store"),
        *("psycopg", "anyio"),
    },
    "relay.operations": {
        *(
            "outbox",
            "relay.config",
            "relay.operations",
            "relay.secrets",
            "relay.store",
            "relay.telemetry",
            "sqlalchemy",
        ),
    },
    "relay.operations.probe": {
        *("outbox", "relay.config", "relay.engine", "relay.http", "relay.message", "relay.model", "relay.operations"),
        *("relay.secrets", "relay.store", "sqlalchemy", "anyio"),
    },
    "relay.process": {
        *("outbox", "relay.config", "relay.engine", "relay.http", "relay.operations", "relay.process"),
        *("relay.secrets", "relay.store", "relay.telemetry", "anyio", "psycopg", "sqlalchemy", "uvloop"),
    },
    "relay.client": {"outbox", "relay.client", "relay.operations", "httpx"},
    "relay.web": {
        *("outbox", "relay.config", "relay.operations", "relay.telemetry", "relay.web"),
        *("fastapi", "starlette", "pydantic", "jinja2", "markupsafe", "anyio", "sqlalchemy", "uvicorn"),
        "cryptography",
    },
    "relay.local": {"outbox", "relay.config", "relay.local", "httptools", "rich", "sqlalchemy"},
    "relay.cli": {"outbox", "relay", "click", "sqlalchemy", "psycopg", "anyio"},
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
MAY_USE_SOCKETS = {"relay.local.embedded", "relay.local.demo.dev", "relay.process.supervisor", "relay.web.serving"}


def files() -> Iterator[tuple[str, Path]]:
    for package in (outbox, relay):
        root = Path(package.__file__).parent
        for file in sorted(root.rglob("*.py")):
            yield ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"), file


MODULES = dict(files())


def nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@functools.cache
def imported(file: Path) -> set[str]:
    """Every dotted name that a module imports; `from a import b` counts as a.b."""
    names = set()
    for node in nodes(file):
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


@pytest.mark.parametrize("module", MODULES)
def test_the_name_of_a_module_is_that_module_and_nothing_else(module: str) -> None:
    """No function takes a module's name: `import a.b` never yields a method."""
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}, which is not installed")
    value: object = sys.modules[module.partition(".")[0]]
    for name in module.split(".")[1:]:
        value = getattr(value, name)
    assert value is imported


@pytest.mark.parametrize("package", ["sqlalchemy", "psycopg", "anyio", "click"])
def test_what_users_install_with_it_is_in_use(package: str) -> None:
    assert [name for name, file in MODULES.items() if any(within(each, package) for each in imported(file))] != []


@pytest.mark.parametrize("package", ["httpx", "pytest", "testcontainers"])
def test_what_tests_are_said_to_use_is_in_use(package: str) -> None:
    tests = Path(__file__).parents[1].rglob("*.py")
    assert any(within(name, package) for file in tests for name in imported(file))


def test_outbox_never_imports_relay() -> None:
    assert {
        m for m, file in MODULES.items() if within(m, "outbox") and any(within(n, "relay") for n in imported(file))
    } == set()


def test_nothing_but_relay_http_opens_a_connection() -> None:
    """Besides drivers of PostgreSQL, which have no name in this list."""
    found = {
        f"{module}: {name}"
        for module, file in MODULES.items()
        if not within(module, "relay.http") and not within(module, "relay.client")  # of our own API
        for name in imported(file) | called(file)
        if name in OUTBOUND_CALLS or any(within(name, outbound) for outbound in OUTBOUND_MODULES)
    }
    assert found - {"relay.local.receiver.server: http.client.responses"} == set()


def test_an_operation_runs_in_its_callers_event_loop_and_prints_nothing() -> None:
    """Its callers are a command, a server and an application; each has a loop and an output of its own."""
    rooms = ("relay.operations", "outbox.control")
    operations = {module: file for module, file in MODULES.items() if any(within(module, room) for room in rooms)}
    refused = {"run", "Runner", "run_until_complete", "start_blocking_portal", "print", "echo"}
    assert {(module, name) for module, file in operations.items() for name in called(file) & refused} == set()
    outputs = ("asyncio", "sys.stdout", "sys.stderr", "logging", "click")
    assert {
        (module, name)
        for module, file in operations.items()
        for name in imported(file)
        if any(within(name, output) for output in outputs)
    } == set()


def test_only_few_modules_touch_sockets() -> None:
    users = {module for module, file in MODULES.items() if any(within(name, "socket") for name in imported(file))}
    assert {module for module in users if not within(module, "relay.http")} <= MAY_USE_SOCKETS


@functools.cache
def called(file: Path) -> set[str]:
    """The last name of everything that is called: `loop.create_connection(…)` is create_connection."""
    functions = [node.func for node in nodes(file) if isinstance(node, ast.Call)]
    return {
        f.attr if isinstance(f, ast.Attribute) else f.id for f in functions if isinstance(f, ast.Attribute | ast.Name)
    }
