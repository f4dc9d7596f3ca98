"""A password that is changed at the server and in its file: a relay that runs goes on with the new one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.support.waiting import wait_until

RELAY = Path(sys.executable).with_name("relay")
BACKENDS = "select pid from pg_stat_activity where usename = %s and application_name like 'outbox-relay%%'"


@contextmanager
def running(url_file: Path) -> Iterator[None]:
    """A relay that reads its URL from a file."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "DATABASE_"))}
    with (url_file.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen([RELAY, "run"], env=environ | {"RELAY_DATABASE_URL_FILE": str(url_file)}, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def record(database: psycopg.Connection[Any]) -> None:
    """Record an event, and wait until a relay has resolved it."""
    database.execute("insert into outbox.events (type, payload) values ('a.b', '1')")
    wait_until(lambda: database.execute("select count(*) from outbox.pending").fetchone() == (0,))


@pytest.mark.field("F75")
def test_a_relay_goes_on_with_the_new_password_when_the_server_refuses_the_old_one(
    database_url: str, tmp_path: Path
) -> None:
    role, first, second, file = f"outbox_test_{secrets.token_hex(6)}", "first", "second", tmp_path / "url"

    def url_of(password: str) -> str:
        return make_url(database_url).set(username=role, password=password).render_as_string(hide_password=False)

    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute(f"create role {role} login password '{first}' in role outbox_relay")
        try:
            file.write_text(url_of(first))
            with running(file):
                record(database)
                before = {pid for (pid,) in database.execute(BACKENDS, (role,)).fetchall()}
                database.execute(f"alter role {role} password '{second}'")
                with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                    psycopg.connect(url_of(first)).close()
                file.write_text(url_of(second))
                database.execute(f"select pg_terminate_backend(pid) from ({BACKENDS}) relay", (role,))
                record(database)
                after = {pid for (pid,) in database.execute(BACKENDS, (role,)).fetchall()}
                assert after
                assert not before & after
        finally:
            wait_until(lambda: not database.execute(BACKENDS, (role,)).fetchall())
            database.execute(f"drop owned by {role}; drop role {role}")
