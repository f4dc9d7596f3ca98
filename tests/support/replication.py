"""Two embedded servers: a primary, and a standby that follows it asynchronously."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from relay.local import embedded
from relay.local.embedded import EmbeddedServer
from tests.support.waiting import wait_until

__all__ = ["Pair", "pair"]

_SETTINGS = {"fsync": "off", "wal_level": "replica", "max_wal_senders": "5", "hot_standby": "on"}


@dataclass
class Pair:
    """`first` is the primary until the standby, `second`, is promoted."""

    first: EmbeddedServer
    second: EmbeddedServer

    def urls(self, database: str) -> tuple[str, str]:
        """Return the URL of both for an application on SQLAlchemy, and the one for a relay."""
        one = make_url(self.first.url(database))
        hosts = [f"127.0.0.1:{server.port}" for server in (self.first, self.second)]
        sqlalchemy = one.set(host=None, port=None, query={"host": hosts, "target_session_attrs": "read-write"})
        login = f"{one.username}:{one.password}"
        return sqlalchemy.render_as_string(hide_password=False), f"postgresql://{login}@{','.join(hosts)}/{database}"

    def wait_replayed(self) -> None:
        """Wait until the standby has everything that the primary has."""
        now = _ask(self.first, "select pg_current_wal_lsn()")
        wait_until(lambda: _ask(self.second, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", now), timeout_seconds=30)

    def cut(self) -> None:
        """Let the standby hear nothing any more."""
        _ask(self.second, "alter system set primary_conninfo = ''")
        _ask(self.second, "select pg_reload_conf()")
        wait_until(lambda: not _ask(self.second, "select count(*) from pg_stat_wal_receiver"), timeout_seconds=30)

    def promote(self) -> None:
        """Make the standby the primary, and wait until it takes writes."""
        assert _ask(self.second, "select pg_promote()")


def _ask(server: EmbeddedServer, statement: str, *parameters: object) -> object:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        cursor = connection.execute(statement, parameters or None)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


@contextmanager
def pair() -> Iterator[Pair]:
    """Yield a primary and its standby, which has caught up; both and their data are gone afterwards."""
    folders = [Path(tempfile.mkdtemp(prefix=f"outbox-{name}-")) for name in ("first", "second")]
    try:
        with embedded.start(folders[0], settings=_SETTINGS) as first:
            _copy(first, folders[1])
            with embedded.start(folders[1], settings=_SETTINGS) as second:
                made = Pair(first, second)
                made.wait_replayed()
                yield made
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(first: EmbeddedServer, folder: Path) -> None:
    """Make the data of a standby in `folder`, as the user that the server runs as."""
    program = first.binaries / "pg_basebackup"
    if not program.exists():
        pytest.skip(f"no {program} comes with this PostgreSQL")
    owner = None if first.user is None else pwd.getpwnam(first.user)
    password = first.directory / "password"
    shutil.copy(password, folder)
    if owner is not None:
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    folder.chmod(0o700)
    server = ["-h", "127.0.0.1", "-p", str(first.port), "-U", "postgres"]
    subprocess.run(
        [
            str(first.binaries / "pg_basebackup"),
            "-D",
            str(folder / "data"),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            *server,
        ],
        env={**os.environ, "PGPASSWORD": password.read_text(encoding="ascii")},
        user=first.user,
        group=None if owner is None else owner.pw_gid,
        extra_groups=None if owner is None else [],
        cwd=folder,
        check=True,
        capture_output=True,
    )
