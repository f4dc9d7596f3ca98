"""The console script `relay`, also `python -m relay`."""

from __future__ import annotations

import os
import sys

__all__ = ["main", "run_command"]


def main() -> None:
    """Run one command and leave with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us (>&-): they do not want to read it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command as the console script does and return its exit code; failures are told on stderr."""
    import click

    from relay.cli import cli
    from relay.cli.lazy import ReaderGone

    try:
        code = cli.main(arguments, prog_name="relay", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        _silence_output()
        return 0
    except click.Abort:
        click.echo("relay: stopped before it was done", err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the one place where anything becomes a line and a code
        from relay.cli.failures import explain  # not before: it loads what --help does not need

        code, line = explain(error)
        click.echo(f"relay: {line}", err=True)
    return code if isinstance(code, int) else 0


def _silence_output() -> None:
    """Whoever read the output has had enough: write what is left nowhere, and say nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
