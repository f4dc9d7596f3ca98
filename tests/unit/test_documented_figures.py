"""The figures, numbers and names in the documents are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import outbox
import relay.operations.status
from outbox.schema.compatibility import known_version
from outbox.subscriptions.fields import DEFAULT_SCHEDULE_SECONDS
from relay.config.options import options
from relay.engine.settler import LINGER_BUSY_SECONDS
from relay.engine.window import WINDOW_START
from relay.model.decide import JITTER
from relay.store.lease import LEASE_SLACK_SECONDS
from relay.store.suspects import MAX_CRASHES
from tests.support import readme

WORDS = {3: "three", 10: "ten", 0.1: "a tenth"}
WINDOW_MAX = next(option.default for option in options() if option.name == "max_in_flight_per_endpoint")


def delay(seconds: int) -> str:
    """Return a delay of the schedule as the document spells it."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@pytest.mark.parametrize(
    "phrase",
    [
        f"the subscription's timeout and {LEASE_SLACK_SECONDS:g} s: {LEASE_SLACK_SECONDS / 2:g} to begin,",
        f"after {WORDS[MAX_CRASHES]} in a row it is a dead letter",
        f"answered in the last {LINGER_BUSY_SECONDS * 1000:g} ms",
        f"It starts at {WINDOW_START}, grows with each success to {WINDOW_MAX},",
        f"{', '.join(map(delay, DEFAULT_SCHEDULE_SECONDS))}: {WORDS[1 + len(DEFAULT_SCHEDULE_SECONDS)]} attempts",
        f"attempts over {sum(DEFAULT_SCHEDULE_SECONDS) // 3600} hours",
        f"lengthened by up to {WORDS[JITTER]}",
    ],
)
def test_the_document_says(phrase: str) -> None:
    assert phrase in " ".join(readme.prose(readme.ROOT / "docs" / "concepts.md").split())


def test_the_page_on_alembic_names_the_newest_migration() -> None:
    """A revision that is copied from the page makes the whole schema."""
    for path in ("docs/integrations.md", "outbox/alembic.py"):
        written = (readme.ROOT / path).read_text("utf-8")
        assert set(re.findall(r"upgrade\(op, to=(\d+)\)", written)) == {str(known_version())}, path
        assert set(re.findall(r"upgrade\(op, since=(\d+)", written)) == {str(known_version())}, path
        assert set(re.findall(r"since=\d+, to=(\w+)", written)) <= {str(known_version() + 1)}, path


def test_every_finding_is_on_the_page_of_troubleshooting() -> None:
    page = (readme.ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", page))
    for first, more in re.findall(r"^\| `([a-z_]+)\.[a-z_]+`((?:, `\.[a-z_]+`)+)", page, re.MULTILINE):
        named |= {f"{first}{word}" for word in re.findall(r"`(\.[a-z_]+)`", more)}
    assert codes_of_findings() - named == set()


def codes_of_findings() -> set[str]:
    """Return the codes that `relay status` may show, by the literals of its code."""
    folders = (Path(relay.operations.status.__file__).parent, Path(outbox.__file__).parent / "schema")
    trees = [ast.parse(path.read_text("utf-8")) for folder in folders for path in folder.glob("*.py")]
    keywords = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "code"
    ]
    found = {node.value.value for node in keywords if isinstance(node.value, ast.Constant)}
    assert len(found) > 20
    return {str(code) for code in found}
