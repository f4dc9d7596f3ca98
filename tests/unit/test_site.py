"""The site of the documentation: its navigation, its links, and the checks that it is built with."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

import outbox
from docs.site.checks import faults_of
from docs.site.pages import ELSEWHERE, OutsideError, navigation, places, with_links_of_the_site
from docs.site.reference import PAGES
from docs.site.reference.command_line import command_line
from docs.site.reference.http import http
from docs.site.reference.python import INSIDE, MODULES, python
from relay.cli import cli

pytestmark = pytest.mark.field("F56")
WRITTEN = {source: place for source, place in places().items() if source.endswith(".md")}


def test_the_navigation_names_every_page_once() -> None:
    named = navigation()
    assert sorted({*WRITTEN.values(), *PAGES} - {*named}) == [], "add a line to nav in docs/site/zensical.toml"
    assert sorted({*named} - {*WRITTEN.values(), *PAGES}) == [], "nav names a page that is not there"
    assert len(named) == len({*named})


@pytest.mark.parametrize("source", WRITTEN)
def test_every_link_of_a_page_stays_in_the_site(source: str) -> None:
    assert with_links_of_the_site(source, places())


def test_a_link_out_of_the_site_is_refused_and_one_across_directories_fits() -> None:
    known = places()
    assert "](flow/record.md)" in with_links_of_the_site("docs/recording.md", known)
    assert "](start.md)" in with_links_of_the_site("README.md", known)
    assert "](examples/README.md)" in with_links_of_the_site("README.md", known)
    with pytest.raises(OutsideError, match=r"README.md: CHANGELOG.md is not in the site"):
        with_links_of_the_site(
            "README.md", {source: place for source, place in known.items() if source != "CHANGELOG.md"}
        )
    assert ELSEWHERE["README.md"] == "index.md"


def test_the_reference_has_every_command_module_and_document() -> None:
    commands, modules, routes = command_line(), python(), http()
    assert [name for name in cli.commands if f"\n## relay {name}\n" not in commands] == []
    assert [name for name in MODULES if modules.count(f"\n## {name}\n") != 1] == []
    assert "### outbox.record\n" in modules
    assert "record(\n    session_or_connection: Target,\n    /,\n    type: str," in modules
    assert "### POST /events\n" in routes


def test_the_reference_leaves_no_public_module_of_outbox_out() -> None:
    there = {module.name for module in pkgutil.iter_modules(outbox.__path__) if not module.name.startswith("_")}
    described = {name.split(".")[1] for name in MODULES if name.startswith("outbox.")}
    assert there - INSIDE == described, "name it in MODULES of docs/site/reference/python.py, or in INSIDE"


PAGE = '<html><head>{head}</head><body><h2 id="here">x</h2>{body}</body></html>'


@pytest.mark.parametrize(
    ("head", "body", "fault"),
    [
        ("", '<a href="other.html#there">x</a><a href="#here">x</a><a href="https://example.com/">x</a>', ""),
        ("", '<a href="missing.html">x</a>', "missing.html leads nowhere"),
        ("", '<a href="other.html#gone">x</a>', "other.html#gone: there is no such heading"),
        ("", '<img src="https://cdn.example/x.png">', "loads https://cdn.example/x.png"),
        ("", '<img src="x.png">', "x.png is not there"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "", "loads //fonts.example/x.css"),
        ("<style>@import url(https://fonts.example/y.css)</style>", "", "loads https://fonts.example/y.css"),
        ('<script src="https://cdn.example/x.js"></script>', "", "loads https://cdn.example/x.js"),
    ],
)
def test_the_built_site_is_checked(tmp_path: Path, head: str, body: str, fault: str) -> None:
    (tmp_path / "index.html").write_text(PAGE.format(head=head, body=body))
    (tmp_path / "other.html").write_text(PAGE.format(head="", body='<h2 id="there">y</h2>'))
    assert faults_of(tmp_path) == ([f"index.html: {fault}"] if fault else [])


def test_nothing_built_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path) == [f"{tmp_path}: no page was built"]
