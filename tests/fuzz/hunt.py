"""`python -m tests.fuzz.hunt TARGET [libFuzzer options…]`: hunt one target here until it breaks or time is up."""

from __future__ import annotations

import sys

try:
    import atheris
except ImportError:
    raise SystemExit("python -m tests.fuzz needs atheris: pip install atheris") from None

with atheris.instrument_imports(include=["outbox", "relay"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
