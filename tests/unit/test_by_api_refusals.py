"""What a command cannot do by --api is refused in one line, before anything is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from outbox.recording.payload import RawJSON
from relay.cli import cli
from relay.client import calls

API_MD = Path(__file__).parents[2] / "docs" / "api.md"
DRAFT = ("--type", "order.created", "--data", "draft.json")


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from commands(command, *before, name)
            elif command is not None:
                yield (*before, name), command


def test_the_documents_list_what_takes_api_and_what_does_not() -> None:
    every = {words: any(one.name == "api" for one in command.params) for words, command in commands(cli)}
    takes = {words for words, by_api in every.items() if by_api}
    groups = {words[0] for words in takes}
    not_at_all = {" ".join(words) if words[0] in groups else words[0] for words in every.keys() - takes}
    page = API_MD.read_text("utf-8").partition("## From the command line")[2].partition("\n## ")[0]
    listed = set()
    for name, verbs in re.findall(r"^\| `relay ([a-z-]+)` \| ([^|]+) \|", page, re.MULTILINE):
        listed |= {(name,)} if verbs == "whole" else {(name, verb) for verb in verbs.split(", ")}
    assert listed == takes
    named = " ".join(page.split()).partition("no `--api`:")[2].partition(".")[0]
    assert set(re.findall(r"`([a-z -]+)`", named)) == not_at_all


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("subscriptions", "add", "https://example.com/", "*", "--all-tenants"),
            "in the database only; leave out --api",
        ),
        (("subscriptions", "show", "sub_x", "--removed"), "shows no removed subscription; leave out --api"),
        (("subscriptions", "pause", "sub_x", "--actor", "alice"), "--actor: the API notes the name of the token"),
        (("explain", *DRAFT, "--after", "x"), "--after: of a draft the API explains the first --limit"),
        (
            ("subscriptions", "filter-test", "--filter", "{}", "--data", "draft.json", "--tenant", "acme"),
            "--tenant: of a",
        ),
        (("deliveries", "show", "dlv_x", "--curl"), "it signs with a key that only relays hold; leave out --api"),
        (("schemes", "list", "--schemes", "{}"), "--schemes: by --api those of relay serve's configuration"),
        (("subscriptions", "add", "https://example.com/", "*", "--header", "A=1", "--header", "a=2"), "headers: "),
        (("subscriptions", "test", "sub_x", "--data", "{"), "--data: not JSON"),
        (("subscriptions", "preview", "sub_x", "--data", "broken.json"), "--data: not JSON"),
        (("bulk", "recover", "sub_x", "--dry-run"), "since: is needed for recover"),
        (("tenants", "retain", "acme", "--events-days", "0"), "events_days: 0 is not a whole number"),
        (("erase", "subject", "customer..id=7", "--yes"), "path: 'customer..id' has an empty step"),
    ],
)
def test_it_is_refused_before_anything_is_asked(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens there: whatever asked would say so."""
    monkeypatch.chdir(tmp_path)
    Path("draft.json").write_text("{}")
    Path("broken.json").write_text("{")
    environ = {"RELAY_API_TOKEN": "rtk_x"}
    ended = CliRunner().invoke(cli, [*words, "--api", "http://127.0.0.1:1"], env=environ, standalone_mode=False)
    assert said in str(ended.exception)
    assert "ConnectError" not in str(ended.exception)


def test_a_file_with_a_token_goes_with_api() -> None:
    ended = CliRunner().invoke(cli, ["schemes", "list", "--api-token-file", "x"], standalone_mode=False)
    assert str(ended.exception) == "--api-token-file goes with --api"


def test_an_actor_of_the_environment_is_left_alone() -> None:
    """It is set once, for commands of both ways."""
    environ = {"RELAY_API_TOKEN": "rtk_x", "RELAY_ACTOR": "alice"}
    words = ["pause-all", "--api", "http://127.0.0.1:1"]
    ended = CliRunner().invoke(cli, words, env=environ, standalone_mode=False)
    assert "ConnectError" in str(ended.exception)


def test_raw_json_is_sent_as_it_is_written() -> None:
    assert calls.send_test_message("sub_x", data=RawJSON('{"a": 1.10, "a2": 1e400}')).content == (
        b'{"type": "outbox.test", "data": {"a": 1.10, "a2": 1e400}}'
    )
    assert calls.resume_bulk_operation("bulk_x").content == b"{}"
    assert calls.get_status().content is None
