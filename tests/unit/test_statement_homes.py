"""What moves an event or a delivery stands in one of two stores and says which way: read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import outbox
from tests.unit.test_imports import MODULES, within

MIGRATIONS = Path(outbox.__file__).parent / "schema" / "migrations"
# Braces stand for what an f-string fills in: a table's name that is not known here counts as one of the three.
WRITE = re.compile(
    r"\b(insert\s+into|update|delete\s+from|merge\s+into|truncate|copy)\s+(table\s+)?(only\s+)?"
    r'"?outbox"?\s*\.\s*("?(pending|deliveries|dead_letters)\b|\{)',
    re.IGNORECASE,
)
ELSEWHERE = {
    "relay.local.demo.stage",  # the demo loses an event on purpose, and shows that this is found
    "relay.operations.status.unresolved_events",  # prints what a person may run; the relay never does
}
IN_STORE = {
    *(
        "batches",
        "fan_out_births",
        "claims",
        "consequences",
        "dead_letters",
        "fan_out",
        "halving",
        "lanes",
        "lease",
        "probes",
    ),
    *("settlement", "sorting", "subscriptions", "suspects", "unresolvable", "virtual_time", "fan_out_wide"),
}
BY_PEOPLE = {"by_hand", "dead_letters", "lanes", "replay"}
STORED = {f"relay.store.{name}" for name in IN_STORE} | {f"outbox.control.store.{name}" for name in BY_PEOPLE}
IN_MIGRATIONS = {
    "0001_tables.sql: outbox.mark_pending",
    "0022_bulk.sql: outbox.restore_events",  # undoes what mark_pending did; a relay may not insert events
    "0042_metadata.sql: outbox.restore_events",  # the same, with the metadata
    # An erasure deletes what no role may, and each step with its place in one transaction.
    *(
        f"0023_erasure.sql: outbox.{name}"
        for name in ("cancel_erased", "erase_events", "erase_subscription", "erase_dead_letters")
    ),
    "0023_erasure.sql: outbox.prune_dead_letters",  # by age, where it is asked for; it notes that in the audit
    "0023_erasure.sql: outbox.prune_tenant",
    *(f"0038_erasure.sql: outbox.{name}" for name in ("erase_subscription", "erase_events", "prune_tenant")),
    "0011_pending.sql: outbox.mark_pending",
    "0010_record.sql: outbox.claim_keys",  # an event of this transaction that was another's already
    "0009_bounds.sql: outbox.dated",  # once, when it is applied: due_at beyond what a client can read
    "0009_bounds.sql: outbox.cancel_orphans",  # of deleted subscriptions; it notes in the audit what no relay may write
}


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def text_of(node: ast.AST) -> str:
    """The text of a string, however it is put together; braces where it is not known."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
        case _:
            return "{}"


def writes(tree: ast.AST) -> bool:
    return any(WRITE.search(text_of(node)) for node in ast.walk(tree))


def writing_constants(module: ast.Module) -> set[str]:
    return {
        target.id
        for node in module.body
        if isinstance(node, ast.Assign) and writes(node)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize(
    "text",
    [
        "'delete from outbox.pending where true'",
        "'with x as (INSERT INTO\\n outbox.deliveries (id)'",
        "'update only outbox.dead_letters set '",
        "f'truncate outbox.{table}'",
        "'delete from ' + 'outbox.pending'",
        "'delete from '\n'outbox.pending'",
        '\'copy "outbox"."deliveries" from stdin\'',
    ],
)
def test_a_write_is_seen_however_it_is_spelled(text: str) -> None:
    assert writes(ast.parse(f"x = ({text})"))


@pytest.mark.parametrize(
    "text", ["'select from outbox.pending for update'", "'update outbox.subscriptions set'", "'outbox.deliveries'"]
)
def test_a_look_is_no_write(text: str) -> None:
    assert not writes(ast.parse(f"x = ({text})"))


def test_only_the_stores_write_to_pending_deliveries_and_dead_letters() -> None:
    found = {module for module in MODULES if writes(tree_of(module))}
    stored = {module for module in found if within(module, "relay.store") or within(module, "outbox.control.store")}
    assert found - stored == ELSEWHERE
    assert stored == STORED


def test_in_the_database_only_what_is_named_here_writes_to_them() -> None:
    found = set()
    for file in MIGRATIONS.glob("*.sql"):
        text = file.read_text(encoding="utf-8")
        for write in WRITE.finditer(text):
            made = re.findall(r"create (?:or replace )?function ([\w.]+)", text[: write.start()])
            found.add(f"{file.name}: {made[-1] if made else 'outside of a function'}")
    assert found == IN_MIGRATIONS


@pytest.mark.parametrize("name", sorted(STORED))
def test_what_moves_a_delivery_names_its_arrow(name: str) -> None:
    module = tree_of(name)
    constants = writing_constants(module)
    movers = [one for one in functions(module) if writes(one) or names_in(one) & constants]
    assert [one.name for one in movers if "→" not in (ast.get_docstring(one) or "")] == []
    told = set().union(*map(names_in, movers)) | told_below(module)
    assert constants - told == set(), "each is used by a function here, or tells its arrow below itself"


def told_below(module: ast.Module) -> set[str]:
    """The constants that a string with an arrow follows."""
    return {
        node.targets[0].id
        for node, below in zip(module.body, module.body[1:], strict=False)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if isinstance(below, ast.Expr) and "→" in text_of(below.value)
    }


def test_the_relay_never_asks_the_database_for_a_body() -> None:
    called = re.compile(r"outbox\.body\s*\([^)]")
    assert [
        module
        for module in MODULES
        if within(module, "relay")
        if any(called.search(text_of(node)) for node in ast.walk(tree_of(module)))
    ] == []
