"""`python -m tests.chaos HUNT`: prints a table, leaves with 0 only when the promise held."""

from __future__ import annotations

import argparse
import sys

from tests.chaos import bulk, inbox, kills, order, restarts, stops

_HUNTS = {"kills": kills.run, "restarts": restarts.run, "order": order.run, "bulk": bulk.run, "inbox": inbox.run,
          "stops": stops.run}  # fmt: skip


def main() -> int:
    """Parse the options and run one hunt."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("hunt", choices=_HUNTS)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--per-second", type=float, default=300.0, help="events the application commits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-most-seconds", type=float, default=600.0, help="give up, and fail, after so long")
    parser.add_argument("--only", default="", metavar="WORD", help="stops: the steps that have it in their name")
    parser.add_argument("--cut", action="store_true", help="stops: cut the network of what stops too; needs root")
    parser.add_argument("--workers", type=int, default=4, help="stops: how many steps are tried at a time")
    return _HUNTS[(options := parser.parse_args()).hunt](options)


if __name__ == "__main__":
    sys.exit(main())
