"""Expressions that would hold a relay up if they could, each with the data of an event it does its worst on.

The data have up to a mebibyte, four times what an event may have by default.
"""

from __future__ import annotations

import json

__all__ = ["DEFAULT_BYTES", "HOSTILE", "READ_SLOWLY", "filled"]

MIB = 1 << 20
NUMBERS = b"[" + b",".join(b"0" for _ in range(MIB // 2 - 20)) + b"]"
DECIMALS = b"[" + b",".join(b"%d.%d" % (n * 7919 % 1000, n % 97) for n in range(100_000)) + b"]"
STRINGS = b"[" + b",".join(b'"s%d"' % (n * 7919 % 100_003) for n in range(80_000)) + b"]"
ALIKE = b"[" + b",".join(b'"%bx%d"' % (b"p" * 1000, n * 7919 % 1003) for n in range(1000)) + b"]"
PAIRS = b"[" + b",".join(b"[[0],[1]]" for _ in range(100_000)) + b"]"
LONG_NUMBERS = b"[" + b",".join([b"1." + b"7" * 4000] * 250) + b"]"
MEMBERS = b"{" + b",".join(b'"k%d":0' % n for n in range(80_000)) + b"}"
TEXTS = b'{"a":"%b","n":"%bb%b","t":[%b]}' % (
    b"a" * 29_000,
    b"a" * 50,
    b"a" * 49,
    b",".join([b'"%b"' % (b"y" * 900)] * 900),
)
ROWS = json.dumps([{"p": n / 10, "s": f"x{n}", "t": ["u", "v"]} for n in range(600)]).encode()
HOSTILE: dict[str, tuple[str, bytes]] = {
    "nested projections": ("data[*][*][*]", PAIRS),
    "flatten of flatten": ("data[][][]", PAIRS),
    "a projection of a list of ones": ("data[*]", NUMBERS),
    "a slice": ("data[:200000] | length(@)", NUMBERS),
    "sort numbers": ("sort(data)", NUMBERS),
    "sort decimals": ("sort(data)", DECIMALS),
    "sort strings": ("sort(data)", STRINGS),
    "sort strings that are long alike": ("sort(data)", ALIKE),
    "sum long numbers": ("sum(data)", LONG_NUMBERS),
    "compare long numbers": ("data[*].[@ == `1.5`, @ < `1.5`, @ > `1.5`]", LONG_NUMBERS),
    "average": ("avg(data)", DECIMALS),
    "sort_by": ("sort_by(data, &p)[*].[s, p, t, sort(t), length(s)]", ROWS),
    "an object for each": ("data[*].{a: p, b: s, c: t}", ROWS),
    "a filter, an object for each": ("data[?p > `5.5`].{a: p, b: s, c: t}", ROWS),
    "text of each": ("data[*].to_string(@)", ROWS),
    "an equal to itself": ("data == data", NUMBERS),
    "contains, array": ("contains(data, `[1]`)", PAIRS),
    "contains, text": ("contains(data.a, data.n)", TEXTS),
    "join": ("join(data.a, data.t)", TEXTS),
    "join of join": ("|".join(["data.a"] + ["join(@, [@, @, @])"] * 30), TEXTS),
    "double by pairs": ("|".join(["[@, @]"] * 60), ROWS),
    "double by flatten": ("|".join(["data"] + ["[@, @][]"] * 60), ROWS),
    "double by objects": ("|".join(["{a: @, b: @}"] * 40), ROWS),
    "text of text of text": ("|".join(["data"] + ["to_string([@])"] * 60), ROWS),
    "text again and again": (f"[{', '.join(['to_string(data)'] * 200)}]", ROWS),
    "sort again and again": (f"[{', '.join(['sort(data[*].p)'] * 60)}]", ROWS),
    "members": ("data.*", MEMBERS),
    "merge": (f"merge({', '.join(['data'] * 60)})", MEMBERS),
    "all parts of a large one": ("data[*].[@, @]", PAIRS),
    "map in map": ("map(&map(&[@, @, @], @), data)", PAIRS),
    "reverse": ("|".join(["data"] + ["reverse(@)"] * 100), STRINGS),
}
"""By name: the expression, and the data as JSON text."""

DEFAULT_BYTES = 256 * 1024  # of an event's data at most, by default


def filled(value: bytes, size: int = DEFAULT_BYTES) -> bytes:
    """Return an array of this value over and over, of at most so many bytes."""
    return b"[" + b",".join([value] * ((size - 2) // (len(value) + 1))) + b"]"


READ_SLOWLY: dict[str, tuple[str, bytes]] = {
    name: ("type(data)", filled(value))
    for name, value in {
        "decimals": b"1.5",
        "integers": b"1",
        "objects": b'{"a":1,"b":"x","c":2.5}',
        "empty objects": b"{}",
        "texts": b'"a"',
    }.items()
}
"""Data as large as they may be by default that are slow to read, each with an expression that costs nothing."""
