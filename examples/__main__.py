"""`python -m examples NAME`: run an example on a PostgreSQL of its own, until Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path

from examples.running import Example
from relay.local import embedded

EXAMPLES = tuple(sorted(file.parent.name for file in Path(__file__).parent.glob("*/app.py")))

ENDS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in EXAMPLES:
        print(f"python -m examples NAME: NAME is one of {', '.join(EXAMPLES)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="outbox-example-"))
    try:
        with embedded.start(directory) as server, Example(arguments[0], server.url(), directory) as example:
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # one that came just before a pause would be slept through
            print(f"{example.name}: {example.url}/docs\nits customer's receiver: {example.receiver}/docs", flush=True)
            signal.sigwait(ENDS)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    except KeyboardInterrupt:
        return 0
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
