"""The console script `relay`, also `python -m relay`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

__all__ = ["main", "run_command"]


def main() -> None:
    """Run one command and leave with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us (>&-): they do not want to read it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    from relay.cli.streams import accept_every_character, bound_stderr

    bound_stderr()
    accept_every_character()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command as the console script does and return its exit code; failures are told on stderr."""
    try:
        return _run(arguments)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush_or_discard(stream)


def _run(arguments: list[str]) -> int:
    from relay.cli import cli
    from relay.cli.lazy import ReaderGone

    try:
        code = cli.main(arguments, prog_name="relay", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        return 0
    except Exception as error:  # noqa: BLE001 - the one place where anything becomes a line and a code
        code = _tell(error)
    return code if isinstance(code, int) else 0


def _tell(error: Exception) -> int:
    """Say on stderr why the command failed, if it can be written there, and return the exit code."""
    import click

    if isinstance(error, click.ClickException):
        with suppress(OSError):
            error.show()
        return error.exit_code
    if isinstance(error, click.Abort):
        code, line = 1, "stopped before it was done"
    else:
        from relay.cli.failures import explain  # not before: it loads what --help does not need

        code, line = explain(error)
    with suppress(OSError):
        click.echo(f"relay: {line}", err=True)
    return code


def _flush_or_discard(stream: TextIO) -> None:
    """Write out what a stream still holds; discard it where that fails.

    The interpreter flushes once more at its end. Left in the buffer, these bytes would make it print an error
    of its own and leave with 120.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
