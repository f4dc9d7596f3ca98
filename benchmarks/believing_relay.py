"""`relay` that asks the name server on the UDP port of loopback it is given first; all else is the console script."""

from __future__ import annotations

import sys

from benchmarks.name_server import believe
from relay.http import resolver

if __name__ == "__main__":
    from relay.__main__ import main

    port, addresses = int(sys.argv.pop(1)), resolver.ask_machine

    def asking(host: str) -> list[str] | OSError:
        believe(port)
        return addresses(host)

    resolver.ask_machine = asking
    main()
