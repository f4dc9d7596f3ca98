"""Who may import whom, who may open a socket, and how long things are: read from the source.

An import inside a function counts, too.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import outbox
import relay
from tests.support import django_site

pytestmark = pytest.mark.xdist_group("imports")  # each file is read once for all of them

# The most particular name that fits a module decides. Right of it: what it may import of ours and of others' packages;
# the standard library is free. "outbox" here means the package and everything in it.
MAY_IMPORT: dict[str, set[str]] = {
    "outbox": {"outbox", "sqlalchemy"},
    "outbox.django": {"outbox", "sqlalchemy", "psycopg", "django"},
    "outbox.fastapi": {"outbox", "sqlalchemy", "fastapi", "pydantic"},
    "outbox.inbox": {"outbox", "sqlalchemy", "psycopg"},
    "outbox.inbox.on_django": {"outbox", "sqlalchemy", "django"},
    "outbox.catalogue.models": {"outbox", "pydantic", "msgspec", "jsonschema_rs"},
    "outbox.recording": {"outbox", "sqlalchemy", "psycopg", "asyncpg"},
    "outbox.recording.payload": {"outbox", "pydantic"},
    "outbox.recording.trace": {"outbox", "opentelemetry"},
    "outbox.schema.alembic_plugin": {"alembic"},
    "outbox.sealing": {"outbox", "sqlalchemy", "cryptography"},
    "outbox.signing": {"outbox.errors", "outbox.secret", "outbox.signing", "outbox._text"},
    "outbox.signing.schemes.ed25519": {"outbox", "cryptography"},
    # For tests, and imported by nothing else of ours. drain() runs a relay, postgres() the server that comes with one;
    # each is imported inside its function, so that a test of record() alone loads neither.
    "outbox.testing": {"outbox", "sqlalchemy", "psycopg"},
    "outbox.testing.databases": {"outbox", "sqlalchemy", "relay.local.embedded"},
    "outbox.testing._relay": {
        *(
            "outbox.secret",
            "outbox.subscriptions",
            "relay.engine",
            "relay.http",
            "relay.model",
            "relay.secrets",
            "relay.store",
        ),
    },
    "outbox.subscriptions.certificates": {"outbox", "cryptography"},
    "outbox.subscriptions.url": {"outbox", "idna"},
    # From here on each line names only rooms to the left of its own: model ← http ← message ← store, engine ← …
    "relay.model": {"outbox.ids", "outbox.secret", "relay.model"},
    "relay.config": {"outbox", "relay.config", "psycopg", "sqlalchemy"},
    "relay.config.kinds": {"outbox.secret", "outbox.signing", "relay.config", "relay.secrets.keyring"},
    "relay.secrets": {"outbox", "relay.secrets", "cryptography"},
    "relay.secrets.resealing": {"outbox", "relay.secrets", "psycopg"},
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
            "relay.model",
            "relay.operations",
            "relay.secrets",
            "relay.store",
            "relay.telemetry",
            "sqlalchemy",
        ),
    },
    "relay.operations.endpoint_tests": {
        *("outbox", "relay.config", "relay.engine", "relay.http", "relay.message", "relay.model", "relay.operations"),
        *("relay.secrets", "relay.store", "sqlalchemy", "anyio"),
    },
    "relay.operations.resend": {"outbox", "relay.config", "relay.http", "relay.operations", "anyio"},
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
    "relay.local.receiver.forwarding": {"outbox", "relay.config", "relay.http", "relay.local", "relay.model"},
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
# What follows may only shrink: an entry that is no longer needed fails its test.
CYCLES = {frozenset({"outbox.inbox.frameworks", "outbox.inbox.request"})}
# record() on a connection of Django writes by Django's own cursor. It finds that out in the call, and only then loads
# what is Django's; and that stands on recording, as every integration does. The test kit runs a relay.
UPWARDS = {("outbox.recording", "outbox.django"), ("outbox", "relay")}
MAX_LINES, MAX_LINES_OF_FUNCTION = 300, 40
LONG_FUNCTIONS: set[str] = set()


def files() -> Iterator[tuple[str, Path]]:
    for package in (outbox, relay):
        root = Path(package.__file__).parent
        for file in sorted(root.rglob("*.py")):
            yield ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"), file


MODULES = dict(files())


@functools.cache
def names_in(file: Path) -> tuple[set[str], set[str]]:
    """What a module imports, and what it calls."""
    imports, calls = set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            calls.add(node.func.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            calls.add(node.func.id)
    return imports, calls


def imported(file: Path) -> set[str]:
    """Every dotted name that a module imports; `from a import b` counts as a.b."""
    return names_in(file)[0]


def called(file: Path) -> set[str]:
    """The last name of everything that is called: `loop.create_connection(…)` is create_connection."""
    return names_in(file)[1]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def rule_for(module: str) -> set[str]:
    return MAY_IMPORT[max((name for name in MAY_IMPORT if within(module, name)), key=len)]


def test_a_module_imports_only_what_the_table_allows() -> None:
    refused = {
        (module, name)
        for module, file in MODULES.items()
        for name in imported(file)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(within(name, allowed) for allowed in rule_for(module))
    }
    assert refused == set()


def test_the_table_names_only_what_exists() -> None:
    assert {name for name in MAY_IMPORT if name not in MODULES} == set()
    assert {name for name in MAY_USE_SOCKETS if name not in MODULES} == set()


@pytest.mark.parametrize("module", MODULES)
def test_the_name_of_a_module_is_that_module_and_nothing_else(module: str) -> None:
    """No function takes a module's name: `import a.b` never yields a method."""
    django_site.begin()
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


def test_outbox_never_imports_relay_but_for_its_test_kit() -> None:
    assert {
        m for m, file in MODULES.items() if within(m, "outbox") and any(within(n, "relay") for n in imported(file))
    } == {"outbox.testing._relay", "outbox.testing.databases"}


def test_nothing_imports_the_test_kit_and_it_imports_no_relay_until_it_runs_one() -> None:
    users = {m for m, file in MODULES.items() if any(within(n, "outbox.testing") for n in imported(file))}
    assert {m for m in users if not within(m, "outbox.testing")} == set()
    program = "import sys, outbox.testing; print([name for name in sys.modules if name.partition('.')[0] == 'relay'])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


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


def test_no_modules_need_one_another() -> None:
    """What only type checkers read is left out."""
    needs = {
        module: {home for name in run_time_imports(file) if (home := home_of(name))} for module, file in MODULES.items()
    }
    assert set(cycles(needs)) == CYCLES


def run_time_imports(file: Path) -> Iterator[str]:
    """Yield every dotted name that a module imports when it runs, also inside a function."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def home_of(name: str) -> str:
    """Return the module of ours that this name is, or is in; "" for others."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def cycles(needs: dict[str, set[str]]) -> Iterator[frozenset[str]]:
    """Yield the strongly connected components of more than one module, by Tarjan's algorithm."""
    seen: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> Iterator[frozenset[str]]:
        seen[module] = lowest[module] = len(seen)
        path.append(module)
        for needed in needs[module] - {module}:
            if needed not in seen:
                yield from visit(needed)
                lowest[module] = min(lowest[module], lowest[needed])
            elif needed in path:
                lowest[module] = min(lowest[module], seen[needed])
        if lowest[module] == seen[module]:
            members = frozenset(path[path.index(module) :])
            del path[path.index(module) :]
            if len(members) > 1:
                yield members

    for module in needs:
        if module not in seen:
            yield from visit(module)


def test_no_rooms_need_one_another() -> None:
    """Nor by way of others. A folder, what is below it and what is beside it in its own folder are one room here."""
    needs: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        for name in run_time_imports(file):
            arrow = parted(room_of(module), room_of(home)) if (home := home_of(name)) else None
            if arrow is not None and arrow not in UPWARDS:
                needs.setdefault(arrow[0], set()).add(arrow[1])
                needs.setdefault(arrow[1], set())
    assert set(cycles(needs)) == set()


def test_each_arrow_upwards_is_still_there() -> None:
    arrows = {
        parted(room_of(module), room_of(home))
        for module, file in MODULES.items()
        for name in run_time_imports(file)
        if (home := home_of(name))
    }
    assert arrows >= UPWARDS


def room_of(module: str) -> str:
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def parted(room: str, other: str) -> tuple[str, str] | None:
    """Return the two folders, beside one another, that lead to these rooms; None where one of them is in the other."""
    if within(room, other) or within(other, room):
        return None
    steps, others = room.split("."), other.split(".")
    common = next(at for at, (step, another) in enumerate(zip(steps, others, strict=False)) if step != another)
    return ".".join(steps[: common + 1]), ".".join(others[: common + 1])


@pytest.mark.parametrize(
    ("room", "other", "arrow"),
    [
        ("outbox.inbox", "outbox.signing.schemes", ("outbox.inbox", "outbox.signing")),
        ("relay.web.api", "relay.web.portal", ("relay.web.api", "relay.web.portal")),
        ("relay.web.api", "relay.model", ("relay.web", "relay.model")),
        ("relay.web.api", "outbox.inbox", ("relay", "outbox")),
        ("relay.web.api", "relay.web", None),
        ("outbox", "outbox.inbox", None),
    ],
)
def test_rooms_part_where_their_folders_do(room: str, other: str, arrow: tuple[str, str] | None) -> None:
    assert parted(room, other) == arrow


def test_a_cycle_is_found_whatever_leads_to_it() -> None:
    needs = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": {"e"}, "e": {"f"}, "f": {"d"}, "g": {"a", "g"}}
    assert set(cycles(needs)) == {frozenset("bc"), frozenset("def")}


def sources() -> Iterator[tuple[str, str]]:
    """Yield name and text of every file of Python outside of the tests."""
    root = Path(outbox.__file__).parents[1]
    for folder in ("outbox", "relay", "benchmarks", "docs", "examples", ".ci"):
        for file in sorted((root / folder).rglob("*.py")):
            yield file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")


def test_a_file_is_read_at_a_sitting() -> None:
    assert {name for name, text in sources() if len(text.splitlines()) > MAX_LINES} == set()


@pytest.mark.parametrize("room", ["relay.engine", "relay.model"])
def test_the_map_of_a_room_has_each_of_its_files_once(room: str) -> None:
    """Its files are the modules right below it; "dead_letter_log.py" on the map names no "log.py"."""
    text = ast.get_docstring(ast.parse(MODULES[room].read_text(encoding="utf-8"))) or ""
    files = sorted(f"{module.rpartition('.')[2]}.py" for module in MODULES if module.rpartition(".")[0] == room)
    named = re.findall(r"(?<![\w/])\w+\.py", text)
    assert sorted(named) == files


def test_a_function_is_seen_at_a_glance() -> None:
    found = {
        f"{name}: {node.name}"
        for name, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of(node) > MAX_LINES_OF_FUNCTION
    }
    assert found == LONG_FUNCTIONS


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines a function's body has without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
