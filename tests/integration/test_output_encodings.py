"""Commands under encodings that cannot write every character: it is spelled out, and nothing fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import text

from tests.support import seeding

TEXTS = "ключ-漢字-€-…-é"
COMMANDS = {
    "events list": [],
    "events show": ["event"],
    "deliveries list": [],
    "deliveries show": ["delivery"],
    "dead-letters list": [],
    "subscriptions list": [],
    "subscriptions show": ["subscription"],
    "audit": [],
    "status": [],
}
# Runs each command as the console script does, in one process, and writes the exit codes to stderr.
ALL_OF = """
import json, sys
from relay.__main__ import run_command
from relay.cli.streams import accept_every_character
accept_every_character()
print(json.dumps([run_command(command) for command in json.loads(sys.argv[1])]), file=sys.stderr)
"""


@pytest.fixture
def names(engine) -> dict[str, str]:
    """An event, a delivery and a subscription with texts in many scripts; a change of it is in the audit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        subscription = seeding.subscribe(connection)
        connection.execute(text("update outbox.subscriptions set description = :text"), {"text": TEXTS})
        event = seeding.record(connection, json.dumps({"text": TEXTS}, ensure_ascii=False), key=TEXTS)
        delivery, dead = seeding.resolve(connection, event, subscription, subscription)
        for name, verdict in ((delivery, "retry"), (dead, "dead")):
            seeding.attempt(connection, name, verdict, error=f"the server said {TEXTS}")
    return {"event": event, "delivery": delivery, "subscription": subscription}


@pytest.mark.slow
@pytest.mark.field("F25")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_what_does_not_fit_is_spelled_out_and_no_command_fails(names, database_url, encoding):
    commands = [[*command.split(" "), *(names[name] for name in given)] for command, given in COMMANDS.items()]
    environment = os.environ | {"RELAY_DATABASE_URL": database_url, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(
        [sys.executable, "-c", ALL_OF, json.dumps(commands)], env=environment, capture_output=True, timeout=60
    )
    assert json.loads(ended.stderr.decode(encoding)) == [0] * len(commands)
    printed = ended.stdout.decode(encoding)
    assert (
        printed.count(TEXTS.replace("…", _as(encoding, "…")).encode(encoding, "backslashreplace").decode(encoding)) >= 5
    )


ODD = "😀👩‍👩‍👧-مرحبا-שלום-e\u0301-\u202eabc\u202c"
LOCALES = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "koi8-r"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.slow
@pytest.mark.field("F25")
@pytest.mark.parametrize("given", LOCALES, ids=["latin-1", "koi8-r", "C"])
def test_json_stays_json_and_odd_arguments_are_taken(names, database_url, given):
    """Emoji, right-to-left and combining characters, in what is printed and in what is asked for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    kept["RELAY_DATABASE_URL"] = database_url

    def run(*command: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        relay = [sys.executable, "-m", "relay", *command]
        return subprocess.run(relay, env=kept | more, capture_output=True, timeout=60)

    ended = run("subscriptions", "update", names["subscription"], "--description", ODD, PYTHONUTF8="1")
    assert (ended.returncode, ended.stderr) == (0, b"")
    ended = run("subscriptions", "show", names["subscription"], "--json", **given)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout.decode("ascii"))["description"] == ODD
    ended = run("events", "list", "--key", ODD, **given)
    assert b"unexpected" not in ended.stderr
    if "LC_ALL" in given:  # the argument's bytes are no characters there
        assert ended.returncode in (1, 2)
        assert ended.stderr.startswith(b"relay: key: has bytes that the locale cannot read; ")
    else:
        assert (ended.returncode, ended.stderr) == (0, b"")


def _as(encoding: str, character: str) -> str:
    try:
        return character.encode(encoding).decode(encoding)
    except UnicodeEncodeError:
        return "..."


@pytest.mark.slow
@pytest.mark.field("F25")
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_an_error_about_bytes_that_are_no_text_is_one_line(database_url, encoding):
    environment = os.environ | {"RELAY_DATABASE_URL": database_url, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(
        [sys.executable, "-m", "relay", "events", "show", b"\xff\xe9"], env=environment, capture_output=True, timeout=60
    )
    complaint = ended.stderr.decode(encoding)
    assert ended.returncode in (1, 2)
    assert len(complaint.splitlines()) == 1
    assert "unexpected" not in complaint
