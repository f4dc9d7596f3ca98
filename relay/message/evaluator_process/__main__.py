"""What the process runs: read a request, answer it, until nobody asks any more. It has no network, no key, no database.

Requests come from the relay and hold what tenants wrote. Should one of them never end, or take more memory than there
is, only this process suffers: the kernel ends it, also when the relay that would kill it is gone.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from contextlib import suppress

from relay.message.evaluator_process.answering import answer
from relay.message.evaluator_process.evaluator import DEADLINE_SECONDS
from relay.message.evaluator_process.frames import read_frame, write_frame

MEMORY_BYTES = 512 * 1024 * 1024  # of address space; reading 1 MiB takes some 100 MiB, Python itself 60


def main() -> None:
    """Answer requests until the relay closes its end."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # of its whole service: the relay drains, and may need it
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with suppress(ValueError, OSError):  # not every system has it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # Whatever else would write to the standard output must not come between the frames.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    gc.freeze()
    while (request := read_frame(requests)) is not None:
        signal.setitimer(signal.ITIMER_REAL, 2 * DEADLINE_SECONDS)  # for when nobody is left to kill it
        made = answer(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(answers, made)


if __name__ == "__main__":
    main()
    sys.exit(0)
