"""docs/security.md: the tests it names exist, and its firewall refuses the networks that the relay refuses."""

from __future__ import annotations

import ast
import re
from functools import cache
from ipaddress import ip_network
from pathlib import Path

from outbox.subscriptions import addresses
from tests.support import readme

DOCUMENT = readme.ROOT / "docs" / "security.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
NAMED = re.findall(r"(tests/[\w/]+\.py)::(\w+)", TEXT)
(FIREWALL,) = [block.text for block in readme.blocks(DOCUMENT) if block.language == "nft"]


@cache
def defined_in(path: str) -> set[str]:
    """The names of the tests in a file, those of its classes too."""
    tree = ast.parse((readme.ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def rows() -> list[list[str]]:
    """The cells of every table whose last column is the proof."""
    tables = re.findall(r"^\| threat \| what we do \| proof \|\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]


def test_every_test_that_is_named_exists() -> None:
    assert [path for path, _ in NAMED if not (readme.ROOT / path).is_file()] == []
    assert [name for path, name in NAMED if name not in defined_in(path)] == []


def test_every_threat_has_its_proof() -> None:
    assert len(rows()) > 30
    for threat, _, proof in rows():
        parts = proof.split("<br>")
        assert [part for part in parts if not re.fullmatch(r"tests/[\w/]+\.py::test_\w+", part)] == [], threat
        assert len(parts) == len(set(parts)), threat


def test_the_firewall_refuses_the_networks_of_the_policy() -> None:
    listed = [ip_network(word) for word in re.findall(r"[0-9a-f.:]+/[0-9]+", FIREWALL)]
    assert len(listed) == len(set(listed))
    assert set(listed) - {addresses.GLOBAL_UNICAST_V6} == {network for network, _ in addresses.TABLE}
    assert "ip6 daddr != 2000::/3 counter reject" in FIREWALL


def test_the_firewall_knows_the_addresses_that_carry_another_one() -> None:
    mask, value = re.findall(r"ip6 daddr & (\S+) == (\S+) counter reject", FIREWALL)[0]
    mask_bits, value_bits = (int(ip_network(text).network_address) for text in (mask, value))
    for upper in addresses.ISATAP:
        assert (upper << 32 | 0x0A00_0001) & mask_bits == value_bits


def test_the_firewall_concerns_the_relay_alone_and_refuses_before_it_allows() -> None:
    output, relay = (FIREWALL.partition(f"chain {name} {{")[2].partition("}\n    ")[0] for name in ("output", "relay"))
    assert "policy accept;" in output
    assert re.findall(r"^ +(meta .*)$", output, re.MULTILINE) == ["meta skuid $relay goto relay"]
    verdicts = [line.split()[-1] for line in relay.splitlines() if line.strip() and line.strip() != "}"]
    assert verdicts == ["accept"] * 3 + ["reject"] * 4 + ["accept", "reject"]


def test_only_the_roles_that_there_are_are_named() -> None:
    made = re.findall(
        r"\['(outbox_\w+)',", Path(readme.ROOT / "outbox/schema/migrations/grants.sql").read_text("utf-8")
    )
    assert set(re.findall(r"`(outbox_\w+)`", TEXT)) == set(made)
