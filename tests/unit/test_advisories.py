"""CI fails on a known advisory, and does not when nobody could be asked; what pip-audit 2.10 printed in each case."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.readme import ROOT

CLEAN = {"name": "idna", "version": "3.20", "vulns": []}
ADVISORY = {"id": "CVE-2030-1", "fix_versions": ["99", "98.1"], "aliases": ["GHSA-1"], "description": "x"}
KNOWN = {"name": "click", "version": "8.5.1", "vulns": [ADVISORY, ADVISORY | {"id": "CVE-2030-2", "fix_versions": []}]}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited: rich (15.0.0)"}
TRACEBACK = """Traceback (most recent call last):
  File "pip_audit/_service/osv.py", line 91, in query
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.osv.dev', port=443): Max retries exceeded"""
TIP = """ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed
ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service with `-s SERVICE`"""
UNAVAILABLE = """requests.exceptions.HTTPError: 503 Server Error: Service Unavailable for url: https://pypi.org/pypi/idna/3.20/json
pip_audit._service.interface.ServiceError"""
USAGE = "pip-audit: error: unrecognized arguments: --nonsense"


@pytest.fixture(scope="module")
def advisories() -> ModuleType:
    spec = importlib.util.spec_from_file_location("advisories", ROOT / ".ci" / "advisories.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["advisories"] = importlib.util.module_from_spec(spec)  # dataclasses looks it up there
    spec.loader.exec_module(module)
    return module


def printed(*packages: dict) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_an_advisory_fails_and_is_named(advisories: ModuleType) -> None:
    answer = advisories.conclude(printed(CLEAN, KNOWN, UNKNOWN), "Found 2 known vulnerabilities in 1 package")
    assert (answer.asked, answer.fails) == (True, True)
    assert answer.text.splitlines() == [
        "click 8.5.1: CVE-2030-1, mended in 99, 98.1",
        "click 8.5.1: CVE-2030-2, mended in no version yet",
        "packages asked about: 2, advisories: 2",
        "not known there: rich",
    ]


def test_without_one_it_passes_and_says_how_many_were_asked_about(advisories: ModuleType) -> None:
    answer = advisories.conclude(printed(CLEAN), "No known vulnerabilities found")
    assert (answer.asked, answer.fails, answer.text) == (True, False, "packages asked about: 1, advisories: 0")


@pytest.mark.parametrize(
    ("output", "errors"),
    [("", TRACEBACK), ("", TIP), ("", UNAVAILABLE), (printed(UNKNOWN, UNKNOWN), "No known vulnerabilities found")],
    ids=["no such host", "no connection", "503", "an index that knows nothing"],
)
def test_who_cannot_be_asked_has_not_said_that_all_is_well(advisories: ModuleType, output: str, errors: str) -> None:
    answer = advisories.conclude(output, errors)
    assert (answer.asked, answer.fails) == (False, False)
    assert "\n" not in answer.text


@pytest.mark.parametrize(("output", "errors"), [("", USAGE), ("", ""), ("{}", ""), ("[]", "TypeError: x")])
def test_any_other_failure_of_the_tool_is_one(advisories: ModuleType, output: str, errors: str) -> None:
    assert advisories.conclude(output, errors).fails


def test_what_is_asked_about_is_what_users_install(advisories: ModuleType) -> None:
    found = advisories.installed("outbox-relay[all]")
    assert {"sqlalchemy", "psycopg", "psycopg-binary", "click", "anyio", "httptools", "rich"} <= set(found)
    assert {"pytest", "outbox-relay", "pip"} & set(found) == set()
    assert found["rich"] == version("rich")
    assert "rich" not in advisories.installed("outbox-relay")


@pytest.mark.parametrize(
    ("pypi", "osv", "code", "says"),
    [
        (printed(CLEAN), "", 0, "pypi: packages asked about: 1, advisories: 0"),
        (printed(UNKNOWN), printed(KNOWN), 1, "osv: click 8.5.1: CVE-2030-1"),
        (printed(UNKNOWN), TIP, 0, "advisories: NOT CHECKED, no service could be asked (pypi: it knows none of 1"),
        (USAGE, printed(CLEAN), 1, "pypi: pip-audit: error: unrecognized"),
    ],
    ids=["asked", "the second was asked", "neither", "broken"],
)
def test_the_services_are_asked_in_turn(
    advisories: ModuleType, tmp_path: Path, monkeypatch, capsys, pypi: str, osv: str, code: int, says: str
) -> None:
    """By a program in place of pip-audit, which prints for each service what it was told."""
    for service, text in (("pypi", pypi), ("osv", osv)):
        (tmp_path / service).write_text(text)
    tool = tmp_path / "pip-audit"
    tool.write_text(f'#!/bin/sh\nsaid="{tmp_path}/$6"\ngrep -q "^{{" "$said" || exec >&2\ncat "$said"\n')
    tool.chmod(0o700)
    monkeypatch.setattr(sys, "argv", ["advisories.py", str(tool)])
    assert advisories.main() == code
    told = capsys.readouterr().out
    assert told.startswith(says)
    assert told.count("NOT CHECKED") == told.count("(pypi: ")
