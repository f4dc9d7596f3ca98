"""What the documents say exists, exists: commands, options, files, benchmarks, and the parts made from code.

Their Python, SQL and console blocks run in tests/integration/test_documents.py, their shell blocks in
test_document_commands.py beside it; what those leave out is at least read here.
"""

from __future__ import annotations

import configparser
import doctest
import importlib.util
import json
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import outbox
import relay
from benchmarks import __main__ as benchmarks
from relay.cli import cli
from relay.config.options import options
from tests.support import django_site, readme
from tests.support.readme import DOCUMENTS, README, ROOT, Block

FIRST_COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install -qe '.[demo]' && .venv/bin/relay demo\n",
    "python3 -m venv .venv && .venv/bin/pip install -qe '.[dev]' && .venv/bin/pytest\n",
]
PROMISE = """
Every event whose transaction committed is delivered to every subscription that matched it when it was resolved, until
the endpoint answers 2xx, or its retry schedule ends (then it is a visible dead letter that can be replayed), or the
subscription is deleted. Nothing is sent for a transaction that rolled back. A delivery may arrive more than once,
always with the same `webhook-id` and the same body bytes. Age never deletes anything undelivered. A new subscription
also gets events that were not resolved yet. Requires `fsync=on`, and `synchronous_commit` on in the application. Every
committed event × matching subscription is at any time exactly one of: due or waiting, delivered, dead with a reason,
cancelled by a person or a removed subscription; an event without subscriber is counted.
"""
NOT_OURS = {
    *("x_y", "RELAY_X_Y", "--x-y", "--pdb", "--collect-only"),  # a rule, pytest's; below PostgreSQL's
    *("publish_via_partition_root", "default_transaction_read_only", "pg_dump", "pg_dumpall", "pg_restore"),
    *("--roles-only", "--load-via-partition-root"),
    *("mark_changed", "initial_state"),  # zope.sqlalchemy's
    *("version_id_col", "reject_on_worker_lost"),  # SQLAlchemy's, Celery's
    "transaction_per_migration",  # Alembic's
    *("on_commit", "bulk_create", "perform_create", "--no-migrations", "--exclude"),  # Django's, pytest-django's
    *("shop_owner", "shop_relay", "shop_serve"),  # logins of docs/deploy/roles.sql
    *(
        "retry_count",
        "success_count",
        "failure_count",
        "whitelabel_headers",
        "owner_id",
    ),  # what others have: docs/from-….md
}
CONFIGURATION = ROOT / "docs" / "configuration.md"
BLOCKS = [block for document in DOCUMENTS for block in readme.blocks(document)]
RUN_ELSEWHERE = {"python", "sql", "console", "javascript"}
READ_ELSEWHERE = {"go", "ruby", "php", "java", "csharp", "nft"}  # tests/integration/test_receiving.py, test_security.py
by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_readme_begins_with_five_lines_of_code_and_the_two_commands() -> None:
    first, *rest = readme.blocks(README)
    assert first.language == "python"
    assert [block.text for block in rest[:2]] == FIRST_COMMANDS
    assert [block.language for block in readme.blocks(README)].count("sh") == len(FIRST_COMMANDS)


def test_the_extras_of_the_two_commands_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {re.findall(r"'\.\[(\w+)\]'", command)[0] for command in FIRST_COMMANDS} <= set(extras)


def test_readme_states_the_promise_word_for_word() -> None:
    assert " ".join(PROMISE.split()) in " ".join(README.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", readme.made_sections())
def test_a_section_made_from_code_is_up_to_date(name: str) -> None:
    assert readme.section(name) == readme.made_sections()[name], "run python -m tests.support.readme --write"


def test_every_option_is_spelled_as_the_rule_in_the_documents_says() -> None:
    assert "An option `x_y` is the flag `--x-y`, the environment variable `RELAY_X_Y`" in CONFIGURATION.read_text(
        "utf-8"
    )
    for option in options():
        assert option.flag == "--" + option.name.replace("_", "-")
        assert option.env == "RELAY_" + option.name.upper()
        assert [name for name in option.commands if misnamed(f"relay {name} {option.flag} …")] == []


def test_every_figure_in_readme_has_the_command_that_measures_it() -> None:
    measured = readme.section("benchmarks")
    if "|" in measured:
        assert "python -m benchmarks" in measured
    figures = [line for line in readme.prose(README).splitlines() if re.search(r"\d *(%|ms|MB|/s)(\W|$)", line)]
    assert [line for line in figures if line not in measured] == []


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_in_a_language_that_is_checked(block: Block) -> None:
    if block.language not in RUN_ELSEWHERE | READ_ELSEWHERE:
        CHECKS[block.language](block.text)


def is_unit_file(text: str) -> None:
    """A unit of systemd, which must give the relay time to drain."""
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    (drain,) = [option.default for option in options() if option.name == "drain_seconds"]
    assert int(unit["Service"]["TimeoutStopSec"]) > drain


def is_shell(text: str) -> None:
    subprocess.run(["bash", "-n", "-c", text], check=True, capture_output=True)


def is_a_figure(text: str) -> None:
    assert "\t" not in text


CHECKS = {"json": json.loads, "toml": tomllib.loads, "ini": is_unit_file, "sh": is_shell, "text": is_a_figure}


@by_document
def test_lines_fit_and_name_no_place_on_a_machine(document: Path) -> None:
    for line in document.read_text(encoding="utf-8").splitlines():
        assert len(line) <= 130 or line.startswith("|"), line
        assert not re.search(r"(?<![\w.])/(work|root|home|Users|tmp)\b|localhost:\d{5}", line), line


def headings(document: Path) -> set[str]:
    """Return the headings of a document as GitHub names them in links."""
    lines = re.findall(r"^#+ (.*)$", readme.prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in lines}


@by_document
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", readme.prose(document))
    relative = [target.partition("#")[0] for target in targets if not re.match(r"https?://", target)]
    assert [target for target in relative if not (document.parent / target).exists()] == []
    assert [target for target in targets if target.startswith("http://")] == []
    anchored = [target.partition("#") for target in targets if "#" in target and not target.startswith("https://")]
    wrong = [
        f"{file}#{name}" for file, _, name in anchored if name not in headings(document.parent / (file or document))
    ]
    assert wrong == []


@by_document
def test_commands_and_their_options_exist(document: Path) -> None:
    assert {command: wrong for command in readme.relay_commands(document) if (wrong := misnamed(command))} == {}


@by_document
def test_options_exist_that_are_named_alone(document: Path) -> None:
    named = {word for span in readme.spans(document) for word in re.findall(r"--[a-z][a-z-]+", span)}
    every = {flag for command in commands(cli) for flag in flags(command)} | set(PROGRAM_FLAGS)
    assert named - every - NOT_OURS == set()


@by_document
def test_files_and_names_of_the_code_exist(document: Path) -> None:
    django_site.begin()  # its names are those of models
    spans = [span for span in readme.spans(document) if not span.startswith("select ")]
    text = document.read_text(encoding="utf-8")
    files = re.findall(r"(?<![\w/.])((?:outbox|relay|tests|benchmarks|examples|docs)/[\w./-]*\w)", text)
    programs = re.findall(r"python -m ((?:relay|tests|benchmarks)[\w.]*)", text)
    names = {name for span in spans for name in re.findall(r"[A-Za-z]+(?:_[A-Za-z0-9]+)+", span)} - NOT_OURS
    functions = {name for span in spans for name in re.findall(r"\boutbox\.\w+(?:\.\w+)*", span)}
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [program for program in programs if importlib.util.find_spec(program) is None] == []
    assert {name for name in names if name not in SOURCES} == set()
    assert {name for name in functions if not resolves(name)} == set()


@by_document
def test_benchmarks_exist(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in re.findall(r"python -m benchmarks([^\n`#]*)", document.read_text(encoding="utf-8")):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *shlex.split(arguments)])
        assert benchmarks.parse_arguments()


def test_every_benchmark_has_its_row_and_no_other_thing_has() -> None:
    section = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split("## What each figure means")[1]
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE))
    assert documented == set(benchmarks.BENCHMARKS)


def test_the_examples_in_the_help_of_commands_exist() -> None:
    examples = [
        line.strip().partition("  ")[0].partition(" > ")[0]
        for command in commands(cli)
        for line in (command.help or "").splitlines()
        if line.strip().startswith("relay ")
    ]
    assert len(examples) > 20
    assert {example: wrong for example in examples if (wrong := misnamed(example))} == {}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("relay deliver", ["deliver"]),
        ("relay status --colour", ["--colour"]),
        ("relay events shew evt_…", ["shew"]),
        ("relay run --processes=2 --no-allow-http", []),
        ("relay dead-letters list --since 1d", []),
    ],
)
def test_these_tests_notice_a_wrong_name(command: str, wrong: list[str]) -> None:
    assert misnamed(command) == wrong


def test_every_public_function_of_outbox_says_what_it_does() -> None:
    silent = [name for name in outbox.subscriptions.__all__ if not getattr(outbox.subscriptions, name).__doc__]
    assert outbox.subscriptions.__all__
    assert silent == []


@pytest.mark.parametrize("package", [outbox, relay], ids=["outbox", "relay"])
def test_examples_in_docstrings_run(package: object) -> None:
    django_site.begin()
    modules = [importlib.import_module(name) for name in modules_of(package)]
    assert len(modules) > 5
    assert [result for module in modules if (result := doctest.testmod(module)).failed] == []


def misnamed(command: str) -> list[str]:
    """Return the words of `relay …` that the command line does not know: a command's name, options."""
    found: click.Command = cli
    words = shlex.split(command)[1:]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(click.Context(found), words[0])
        if inner is None:
            return words[:1]
        found, words = inner, words[1:]
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in flags(found)]


def flags(command: click.Command) -> set[str]:
    """Return how the options of a command are spelled."""
    return {
        flag for option in command.get_params(click.Context(command)) for flag in option.opts + option.secondary_opts
    }


def commands(group: click.Command) -> Iterator[click.Command]:
    """Yield a command and all below it."""
    yield group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            inner = group.get_command(context, name)
            assert inner is not None
            yield from commands(inner)


def modules_of(package: object) -> list[str]:
    """Return the names of a package's modules, but for the one that runs when it is imported."""
    name = package.__name__  # type: ignore[attr-defined]
    return [info.name for info in pkgutil.walk_packages(package.__path__, f"{name}.")]  # type: ignore[attr-defined]


def resolves(name: str) -> bool:
    """Whether a dotted name is an attribute in Python, or something the schema makes."""
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return re.search(rf"\b{re.escape(name)}\b", SOURCES) is not None
    return True


SOURCES = "\n".join(
    file.read_text(encoding="utf-8")
    for package in (
        "outbox",
        "relay",
        "outbox_relay_pytest.py",
        "benchmarks",
        "examples",
        "tests/support",
        "tests/chaos",
    )
    for file in (ROOT / package, *(ROOT / package).rglob("*"))
    if file.suffix in (".py", ".sql")
)
PROGRAM_FLAGS = re.findall(r'add_argument\(\s*"(--[a-z-]+)"', SOURCES)
