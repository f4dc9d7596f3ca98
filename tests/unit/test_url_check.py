"""`relay url-check`: every URL and every line gets one answer, from the code that the sender uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.errors import SubscriptionError
from outbox.subscriptions.addresses import AddressPolicy
from outbox.subscriptions.url import parse_url
from relay.cli import cli
from tests.support.corpus import ssrf_cases

ROOT = Path(__file__).parents[2]


def checked(*arguments: str, lines: bytes | None = None, **environ: str) -> tuple[int, list[dict]]:
    """Run the command without any of our variables; return its exit code and what it printed."""
    ended = CliRunner().invoke(cli, ["url-check", *arguments], env=environ, input=lines, standalone_mode=False)
    assert ended.exception is None, ended.exception
    assert ended.stderr == ""
    return ended.return_value, [json.loads(line) for line in ended.stdout.splitlines()]


def answers(*arguments: str, **environ: str) -> list[bool]:
    return [answer["allow"] for answer in checked(*arguments, **environ)[1]]


def test_one_object_a_url_with_three_keys_in_order() -> None:
    ended = CliRunner().invoke(cli, ["url-check", "https://8.8.8.8/ü", "https://8.8.8.8"], standalone_mode=False)
    first, second = ended.stdout.splitlines()
    assert first.startswith('{"url": "https://8.8.8.8/\\u00fc", "allow": false, "reason": "url: its path')
    assert list(json.loads(second)) == ["url", "allow", "reason"]


def test_the_exit_code_says_whether_all_arguments_were_allowed() -> None:
    assert checked("https://a.example", "https://b.example")[0] == 0
    assert checked("https://a.example", "https://127.0.0.1")[0] == 1
    assert checked("-", lines=b'"https://127.0.0.1"\n')[0] == 0


@pytest.mark.parametrize(("url", "expected"), ssrf_cases(), ids=lambda value: repr(value)[:70])
def test_the_corpus_gets_the_verdict_of_parser_and_policy(url: str, expected: str) -> None:
    code, (answer,) = checked("-", lines=json.dumps(url).encode() + b"\n")
    assert (code, answer["url"]) == (0, url)
    try:
        refusal = AddressPolicy().refusal_of_url(parse_url(url))
    except SubscriptionError as error:
        refusal = str(error)
    assert answer["allow"] == (refusal is None)
    assert answer["reason"] == refusal or refusal is None
    if not answer["allow"]:
        assert expected == "block"


BROKEN = [b"5", b"null", b"", b" ", b"{}", b'["https://a.example"]', b'"https://a.example', b'"a" "b"', b"[" * 100_000,
          b"\xff\xfe", b'"\xff"', b'"a\tb"', b"'https://a.example'", b"\xef\xbb\xbf\"https://a.example\"", b"9" * 9999,
          b"\x00", b'"\\ud83"', b'"' + b"\\" * 9]  # fmt: skip


@pytest.mark.parametrize("line", BROKEN, ids=lambda line: repr(line)[:30])
def test_a_line_that_is_no_json_string_is_answered_and_the_next_one_too(line: bytes) -> None:
    _, (broken, fine) = checked("-", lines=line + b'\n"https://a.example"')
    assert not broken["allow"]
    assert "not one JSON string" in broken["reason"]
    assert isinstance(broken["url"], str)
    assert fine["allow"]


@pytest.mark.parametrize("url", ["\ud800", "https://\udfff.example/", "a\0b", "", "x" * 1_000_000, "https://a\n.b/"])
def test_any_string_is_given_back_as_it_came(url: str) -> None:
    _, (answer,) = checked("-", lines=json.dumps(url).encode() + b"\r\n")
    assert (answer["url"], answer["allow"]) == (url, False)


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=4))
@settings(max_examples=100)
def test_every_line_is_answered_whatever_its_bytes(lines: list[bytes]) -> None:
    code, printed = checked("-", lines=b"".join(line + b"\n" for line in lines))
    assert (code, len(printed)) == (0, len(lines))


def test_what_the_operator_allows_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ("http://127.0.0.1/", "http://a.example/", "https://a.example:8443/", "http://10.0.0.1/")
    assert answers(*urls) == [False, False, True, False]
    environ = {"RELAY_ALLOW_NETWORKS": "127.0.0.0/8", "RELAY_ALLOW_HTTP": "true", "RELAY_ALLOW_PORTS": "80"}
    assert answers(*urls, **environ) == [True, True, False, False]
    assert answers("--allow-http", "--allow-networks", "10.0.0.0/8", "--allow-ports", "80,8443", *urls) == [
        False,
        True,
        True,
        True,
    ]


def test_resolving_judges_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"good.example": ["8.8.8.8"], "mixed.example": ["8.8.8.8", "::1"], "inner.example": ["10.0.0.1"]}

    def addresses(host: str) -> list[str] | OSError:
        return names.get(host) or OSError(-2, "Name or service not known")

    monkeypatch.setattr("relay.http.resolver.ask_machine", addresses)
    urls = [f"https://{name}/" for name in (*names, "gone.example", "8.8.4.4")]
    _, printed = checked("--resolve", *urls)
    assert [answer["allow"] for answer in printed] == [True, False, False, False, True]
    reasons = [answer["reason"] for answer in printed]
    assert "8.8.8.8" in reasons[0]
    assert "::1 is not a public address" in reasons[1]
    assert "10.0.0.1 is not a public address" in reasons[2]
    assert "cannot be resolved" in reasons[3]
    assert [answer["allow"] for answer in checked(*urls)[1]] == [True] * 5, "without --resolve nothing is looked up"


def test_standard_input_stands_alone() -> None:
    ended = CliRunner().invoke(cli, ["url-check", "-", "https://a.example"])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "stands alone" in ended.stderr


def test_lines_are_answered_as_they_come() -> None:
    command = [sys.executable, "-m", "relay", "url-check", "-"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for url in ("https://a.example", "https://[::1]"):
            process.stdin.write(json.dumps(url).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["url"] == url
        process.stdin.close()
        assert process.wait(20) == 0
