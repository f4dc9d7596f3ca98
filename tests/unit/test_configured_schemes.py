"""Schemes of the operator's own: where the configuration takes them from, and `relay schemes list|show`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import outbox
from outbox.signing.schemes import ROWS, SCHEMES, SchemeDeclaration
from relay.__main__ import run_command
from relay.config.option import ConfigError
from relay.config.options import Config
from relay.config.sources import load
from tests.support import readme
from tests.support.own_schemes import only_here

TABLE = """
[schemes.acme]
signed = "{timestamp}.{body}"
signature_header = "X-Acme-Signature"
value = "t={timestamp},v1={signature}"
separator = ","
several = true
"""
DECLARED = SchemeDeclaration(
    "acme", "{timestamp}.{body}", "X-Acme-Signature", "t={timestamp},v1={signature}", separator=",", several=True
)
AS_JSON = json.dumps(
    {"schemes": {"acme": {"signed": "{body}", "signature_header": "X-Acme"}, "b-2": {"signed": "{body}",
     "signature_header": "X-B"}}}
)  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    with only_here():
        yield


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(text: str | bytes, name: str = "relay.toml") -> str:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(file)

    return write


@pytest.fixture
def relay(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    def relay(*arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("RELAY_", "DATABASE_"))]:
                patch.delenv(name)
            code = run_command(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return relay


def test_the_file_of_the_relay_has_them_as_tables(write: Callable[..., str]) -> None:
    loaded = load({}, {}, write("processes = 2\n" + TABLE))
    assert loaded.config.schemes == (DECLARED,)
    assert loaded.config.processes == 2
    assert loaded.origins["schemes"].startswith("file ")
    assert Config().schemes == ()


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_file_of_their_own_is_named_by_flag_or_variable(write: Callable[..., str], by: str) -> None:
    for path, names in ((write(TABLE), ["acme"]), (write("\ufeff" + AS_JSON, "own.json"), ["acme", "b-2"])):
        flags, environ = ({"schemes": path}, {}) if by == "flag" else ({}, {"RELAY_SCHEMES": path})
        assert [each.name for each in load(flags, environ).config.schemes] == names


def test_reading_a_configuration_declares_nothing(write: Callable[..., str]) -> None:
    load({}, {}, write(TABLE))
    assert "acme" not in SCHEMES


WRONG_TABLES = {
    "schemes = 7": r"^schemes \(file .*relay\.toml\): not tables; write \[schemes\.NAME\]",
    "schemes = ['acme']": r"^schemes \(file .*\): not tables",
    "[schemes]\nacme = 7": r"^schemes \(file .*\): schemes\.acme: not a table",
    "[schemes.acme]": r"^schemes \(file .*\): schemes\.acme\.signed: missing; write signed = ",
    TABLE.replace(
        "several", "sevral"
    ): r"^schemes \(file .*\): schemes\.acme\.sevral: unknown key; did you mean several",
    TABLE.replace('","', '";"'): r"^schemes \(file .*\): schemes\.acme\.separator: does not divide",
    TABLE.replace("acme", "Acme"): r"^schemes \(file .*\): schemes\.Acme: not a name; use 1 to 32",
}


@pytest.mark.parametrize("text", WRONG_TABLES, ids=range(len(WRONG_TABLES)))
def test_a_wrong_table_is_refused_by_file_table_and_key(write: Callable[..., str], text: str) -> None:
    with pytest.raises(ConfigError, match=WRONG_TABLES[text]):
        load({}, {}, write(text))


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("gone", None, r"cannot read .*gone: No such file"),
        ("own.toml", b"\xff", r"cannot read .*own\.toml: not UTF-8 text"),
        ("own.toml", "not toml", r"own\.toml is not TOML: "),
        ("own.json", TABLE, r"own\.json is not JSON: "),
        ("own.json", "[" * 100_000, r"own\.json is not JSON: "),
        ("own.json", '{"schemes": {"a": {}, "a": {}}}', r"own\.json is not JSON: an object has the same key twice"),
        ("own.json", '{"schemes": {"a": {"signed": "x", "signed": "y"}}}', "the same key twice"),
        ("own.json", "[]", r"own\.json must hold tables \[schemes\.NAME\] and nothing else"),
        ("own.toml", "", r"own\.toml must hold tables \[schemes\.NAME\] and nothing else"),
        ("own.toml", f"processes = 2\n{TABLE}", r"own\.toml must hold tables \[schemes\.NAME\] and nothing else"),
    ],
)
def test_a_wrong_file_is_one_line(
    write: Callable[..., str], tmp_path: Path, name: str, text: str | bytes | None, complaint: str
) -> None:
    path = str(tmp_path / name) if text is None else write(text, name)
    with pytest.raises(ConfigError, match=rf"^schemes \(env RELAY_SCHEMES\): .*{complaint}") as refused:
        load({}, {"RELAY_SCHEMES": path})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", [("run",), ("config",), ("schemes", "list"), ("subscriptions", "list")])
def test_every_command_ends_with_2_where_a_declaration_is_wrong(
    relay: Callable[..., tuple[int, str, str]], write: Callable[..., str], command: tuple[str, ...]
) -> None:
    for text, complaint in (
        (TABLE.replace("{body}", "{text}"), "schemes.acme.signed: {text} is no part of it"),
        (TABLE.replace("acme", "github"), "schemes.github: another scheme has this name; choose a name of its own"),
    ):
        code, out, err = relay(*command, "--config", write(text))
        assert (code, out) == (2, "")
        assert err.startswith("relay: ")
        assert complaint in err
        assert err.count("\n") == 1


def test_the_configuration_shows_their_names(
    relay: Callable[..., tuple[int, str, str]], write: Callable[..., str]
) -> None:
    code, out, _ = relay("config", "--schemes", write(AS_JSON, "own.json"), "--json")
    (row,) = [row for row in map(json.loads, out.splitlines()) if row["name"] == "schemes"]
    assert (code, row["value"], row["origin"]) == (0, "acme,b-2", "flag --schemes")


def test_list_has_a_row_for_each_scheme(relay: Callable[..., tuple[int, str, str]], write: Callable[..., str]) -> None:
    code, out, _ = relay("schemes", "list", "--config", write(TABLE))
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows[1:]] == [*(row.name for row in ROWS), "acme"]
    assert rows[-1] == [
        *("acme", "{timestamp}.{body}", "X-Acme-Signature: t={timestamp},v1={signature}", "sha256 hex", "text"),
        "declared",
    ]
    documents = [json.loads(line) for line in relay("schemes", "list", "--json")[1].splitlines()]
    assert [document["origin"] for document in documents] == ["built in"] * len(ROWS) + ["declared"]


def test_show_says_what_is_protected_and_its_example_verifies(
    relay: Callable[..., tuple[int, str, str]], write: Callable[..., str]
) -> None:
    config = write(TABLE)
    for name in [*SCHEMES, "acme"]:
        code, out, _ = relay("schemes", "show", name, "--config", config, "--json")
        document = json.loads(out)
        example = document["example"]
        assert code == 0
        webhook = outbox.verify(
            example["secret"], example["headers"], example["body"].encode(), scheme=name, now=1_767_268_800
        )
        assert document["protects"]["id"] == (webhook.id != "")
        assert document["headers"] == list(example["headers"])
        assert {header.lower() for header in document["headers"]} >= set(document["verified_by"])
        assert document["protects"]["timestamp"] == (name in ("standard", "svix", "stripe", "convoy-advanced", "acme"))


def test_show_is_for_people_too(relay: Callable[..., tuple[int, str, str]], write: Callable[..., str]) -> None:
    _, out, _ = relay("schemes", "show", "acme", "--schemes", write(TABLE))
    lines = dict(line.split(maxsplit=1) for line in out.split("\n\n")[0].splitlines())
    assert lines["protects"] == "the body, the time"
    assert lines["does_not_protect"] == "the id"
    assert lines["replays"] == "a receiver refuses what is older than 300 s"
    assert "\n  X-Acme-Signature: t=1767268800,v1=" in out
    _, out, _ = relay("schemes", "show", "leads")
    assert "whoever records a request can send it again at any time" in out


def test_an_unknown_scheme_is_one_line_that_names_the_mend(relay: Callable[..., tuple[int, str, str]]) -> None:
    for command in (("schemes", "show", "acme"), ("listen", "--scheme", "acme")):
        code, _, err = relay(*command)
        assert code == 2
        assert err.startswith("relay: scheme: choose one of standard, ")
        assert err.endswith(
            "; or declare acme: [schemes.acme] in the relay's configuration, outbox.declare_scheme() in Python\n"
        )


def test_the_tables_of_the_documentation_are_declarations(write: Callable[..., str]) -> None:
    (block,) = [block for block in readme.blocks(readme.ROOT / "docs" / "signatures.md") if block.language == "toml"]
    declared = load({}, {}, write(block.text)).config.schemes
    assert [each.name for each in declared] == ["slack", "paddle", "shopify"]
