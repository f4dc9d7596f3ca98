"""A guard sends its signal when whoever set it is gone, and never once it was dismissed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from relay.local.child_guard import ChildGuard

_SETS_A_GUARD_AND_DIES = """
import os, signal, sys
from relay.local.child_guard import ChildGuard
ChildGuard(int(sys.argv[1]), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with its input."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        yield process


def test_it_signals_when_its_setter_is_killed(child: subprocess.Popen[bytes]) -> None:
    setter = subprocess.run([sys.executable, "-c", _SETS_A_GUARD_AND_DIES, str(child.pid)], check=False)
    assert setter.returncode == -signal.SIGKILL
    assert child.wait(30) == -signal.SIGTERM


def test_dismissed_it_signals_nobody(child: subprocess.Popen[bytes]) -> None:
    guard = ChildGuard(child.pid, signal.SIGKILL)
    guard.dismiss()
    guard.dismiss()
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(30) == 0
