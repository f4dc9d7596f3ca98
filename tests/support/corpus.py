"""The committed corpora of tests/cases, read."""

from __future__ import annotations

import re
from pathlib import Path

CASES = Path(__file__).parents[1] / "cases"


def _rows(name: str) -> list[list[str]]:
    lines = (CASES / name).read_text("utf-8").split("\n")
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def _unescaped(text: str) -> str:
    simple = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "\\": "\\"}
    pattern = r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.))"
    return re.sub(pattern, lambda m: simple[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), text)


def ssrf_cases() -> list[tuple[str, str]]:
    """Return (URL, 'allow' or 'block' under the default policy) of each row of ssrf_cases.tsv."""
    return [(_unescaped(url), expected) for url, expected, *_ in _rows("ssrf_cases.tsv")]


def dns_scenarios() -> dict[str, tuple[str, str]]:
    """Return (setup, expectation) of each row of ssrf_dns_scenarios.tsv, by its name."""
    return {name: (setup, expected) for name, setup, expected, *_ in _rows("ssrf_dns_scenarios.tsv")}
