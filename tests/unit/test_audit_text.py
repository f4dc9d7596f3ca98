"""What `relay audit` says of a change in one line, and whom it names when nobody is named."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace

import pytest

from relay.cli.audit import change_of
from relay.cli.options import login_name


def change(before=None, after=None, details=None) -> str:
    return change_of(SimpleNamespace(before=before, after=after, details=details))


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ({"url": "a"}, {"url": "b"}, "url: a → b"),
        ({"paused_at": None}, {"paused_at": "2026-01-31T12:00:00Z"}, "paused_at: - → 2026-01-31T12:00:00Z"),
        ({"types": ["a", "b"], "metadata": {}}, {"types": ["c"], "metadata": {"ö": "1"}},
         'types: a,b → c; metadata: - → {"ö": "1"}'),
        ({"kind": "tls", "hint": "", "expires_at": None}, {"kind": "tls", "hint": "", "expires_at": "2026"},
         "kind: tls; expires_at: - → 2026"),
        (None, {"url": "a", "description": "", "types": ["x"], "metadata": {}}, "url: a; types: x"),
        ({"url": "a", "removed_at": "2026"}, None, "url: a; removed_at: 2026"),
    ],
)  # fmt: skip
def test_a_change_is_shown_field_by_field(before, after, line):
    assert change(before, after) == line


def test_an_operation_is_shown_with_its_count_and_the_first_of_its_rows():
    ids = [f"dlv_{number}" for number in range(12)]
    shown = change(details={"count": 12, "ids": ids, "filter": {"tenant": "acme"}})
    assert shown == f'count: 12; ids: {",".join(ids[:10])},… (12); filter: {{"tenant": "acme"}}'


def test_nobody_named_is_the_login_of_this_process():
    assert login_name() == f"os:{pwd.getpwuid(os.getuid()).pw_name}"


@pytest.mark.parametrize("found", [KeyError(4711), SimpleNamespace(pw_name="a\nb"), SimpleNamespace(pw_name="")])
def test_a_user_without_a_name_is_its_number(monkeypatch, found):
    def entry(_: int):
        if isinstance(found, KeyError):
            raise found
        return found

    monkeypatch.setattr(os, "getuid", lambda: 4711)
    monkeypatch.setattr(pwd, "getpwuid", entry)
    assert login_name() == "os:4711"
