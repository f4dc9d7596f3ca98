"""`python -m tests.fences [WORD …]`: take each fence away and run its tests; leaves with 0 only when all of them fail.

With words, only the fences whose name, module or mended report has one of them. All of it takes a quarter of an hour.
`--part NUMBER/COUNT` takes one part of so many, by a number that counts on: .ci/run does, with the number of commits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fences.fence import Fence
from tests.fences.rows import FENCES
from tests.fences.trial import Copy
from tests.support import databases


def main() -> int:
    """Parse the options and try the fences."""
    parser = argparse.ArgumentParser(prog="python -m tests.fences")
    parser.add_argument("words", nargs="*", help="only fences that have one of these in name, module or report")
    parser.add_argument("--part", type=part_of, default=(0, 1), metavar="NUMBER/COUNT", help="one part of so many")
    asked = parser.parse_args()
    with databases.server() as url, tempfile.TemporaryDirectory(prefix="outbox-fences-") as directory:
        return _try(Copy(Path(directory, "copy"), url), chosen_of(asked.words, asked.part))


def chosen_of(words: Sequence[str], part: tuple[int, int]) -> list[Fence]:
    """Return the fences that have one of the words, all without any; of these, one part of so many."""
    found = [fence for fence in FENCES if not words or any(word in _about(fence) for word in words)]
    number, count = part
    return found[number % count :: count]


def part_of(text: str) -> tuple[int, int]:
    """Read NUMBER/COUNT; a number above the count begins again with the first part."""
    number, _, count = text.partition("/")
    if int(count) < 1 or int(number) < 0:
        raise ValueError(text)
    return int(number), int(count)


def _about(fence: Fence) -> str:
    return f"{fence.name} {fence.module} {fence.mends}"


def _try(copy: Copy, fences: Sequence[Fence]) -> int:
    """Run the tests as they are, then without each fence; print a line a fence, and return how the process ends."""
    whole = copy.run(sorted({test for fence in fences for test in fence.tests}))
    for test, why in whole.items():
        print(f"fails with its fence too: {test}: {why}")
    unproven = 0
    for fence in fences:
        wrong = copy.without(fence)
        unproven += bool(wrong)
        print(f"{'NOT PROVEN' if wrong else 'proven':<11} {fence.name} ({fence.module})", flush=True)
        for line in wrong:
            print(f"            {line}")
    print(f"{len(fences) - unproven} of {len(fences)} fences have a test that fails without them")
    return 1 if unproven or whole else 0


if __name__ == "__main__":
    sys.exit(main())
