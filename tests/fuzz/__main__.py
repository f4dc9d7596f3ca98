"""`python -m tests.fuzz [TARGET…] --seconds N --seed N`: hunt each target in turn, in a process of its own.

What widens the coverage is kept in the corpus with `--keep`, what breaks an invariant is written to `found/` always.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path(__file__).parent / "found"
LONGEST = 4096  # bytes of an input


def main() -> int:
    """Hunt; return 1 when any target broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--seconds", type=int, default=60, help="in all, shared equally [60]")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    parser.add_argument("--keep", action="store_true", help="keep in the corpus what widened the coverage")
    options = parser.parse_args()
    names = options.targets or list(TARGETS)
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        parser.error(f"no target {' '.join(unknown)}; there are {', '.join(TARGETS)}")
    seconds = max(1, options.seconds // len(names))
    broken = [name for name in names if not _clean(name, seconds, options.seed, keep=options.keep)]
    print(f"{len(names)} targets, {seconds} s each, seed {options.seed}: {', '.join(broken) or 'nothing'} found")
    return 1 if broken else 0


def _clean(name: str, seconds: int, seed: int, *, keep: bool) -> bool:
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        widened = CORPUS / name if keep else Path(scratch)
        widened.mkdir(exist_ok=True)
        flags = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST}", "-timeout=10", "-verbosity=0",
                 f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1"]  # fmt: skip
        command = [sys.executable, "-m", "tests.fuzz.hunt", name, *flags, str(widened), str(CORPUS / name)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    runs = next((line.split()[-1] for line in ended.stderr.splitlines() if "executed_units" in line), "?")
    print(f"{name:16} {runs:>10} inputs  {'ok' if ended.returncode == 0 else 'BROKEN'}", flush=True)
    if ended.returncode:
        print(ended.stderr[-4000:], file=sys.stderr)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
