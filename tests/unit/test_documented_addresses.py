"""An address of the database that people paste into create_engine() names the driver that is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from relay.local.demo.dev import for_sqlalchemy
from tests.support.readme import ROOT

pytestmark = pytest.mark.field("F40")

READ = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.[pm][yd]")),
        *sorted((ROOT / "relay" / "cli").glob("*.py")), *sorted((ROOT / "relay" / "local").rglob("*.py")),
        *sorted((ROOT / "outbox").rglob("*.py"))]  # fmt: skip
PASTED = re.compile(r"""(?:\bDATABASE_URL=|create_engine\(\s*f?|make_url\(\s*f?)["']?(?P<url>[a-z0-9+]+://[^\s"')]*)""")


@pytest.mark.parametrize("file", [*filter(Path.is_file, READ)], ids=lambda file: str(file.relative_to(ROOT)))
def test_every_address_for_sqlalchemy_names_psycopg(file: Path) -> None:
    for found in PASTED.finditer(file.read_text("utf-8")):
        assert make_url(found["url"]).drivername == "postgresql+psycopg", found[0]


def test_there_are_such_addresses_and_others_are_found() -> None:
    assert len(PASTED.findall((ROOT / "README.md").read_text("utf-8"))) == 1
    assert [
        found["url"] for found in PASTED.finditer("create_engine('postgresql://x/y') DATABASE_URL=postgres://z")
    ] == [
        "postgresql://x/y",
        "postgres://z",
    ]


@pytest.mark.parametrize("url", ["postgresql://postgres:pa%40ss@127.0.0.1:5433/postgres", "postgres://h/d"])
def test_what_relay_dev_prints_is_the_same_address_by_psycopg(url: str) -> None:
    shown, plain = make_url(for_sqlalchemy(url)), make_url(url.replace("postgres://", "postgresql://"))
    assert shown.drivername == "postgresql+psycopg"
    assert shown.set(drivername="postgresql") == plain
