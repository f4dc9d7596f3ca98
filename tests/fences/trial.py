"""Take fences away, one at a time, in a copy of the project, and run the tests that should fail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path

from tests.fences.fence import Fence

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "node_modules")
# What a fence's `without` may not cause: then the test fails for the wrong reason.
_BROKEN = re.compile(r"SyntaxError|Undefined(Column|Table|Function)|IndeterminateDatatype|ImportError|NameError")
_ENDED = re.compile(r"^(PASSED|FAILED|ERROR) (\S+::[^\[\s]+)(?:\[.*?\](?= |$))?(?: - (.*))?$", re.MULTILINE)


class Copy:
    """A copy of the project, which the tests and all processes that they start import instead of this one."""

    def __init__(self, place: Path, database_url: str) -> None:
        self._place = place
        shutil.copytree(ROOT, place, ignore=_LEFT_OUT)
        self._environment = os.environ | {
            "PYTHONPATH": str(place), "OUTBOX_TEST_DATABASE_URL": database_url,
        }  # fmt: skip
        self._check()

    def _check(self) -> None:
        asked = [sys.executable, "-c", "import outbox, relay; print(outbox.__file__, relay.__file__)"]
        found = subprocess.run(asked, env=self._environment, cwd="/", capture_output=True, text=True, check=True)
        if found.stdout.count(str(self._place)) != 2:
            raise RuntimeError(f"the copy is not what is imported: {found.stdout}")

    def run(self, tests: Sequence[str], at_most_seconds: float = 1800) -> dict[str, str]:
        """Run these tests; return why each failed that did ("" where it gave no reason). A setup that fails raises.

        Where they still run after so long, all have failed: most fences keep somebody from waiting.
        """
        options = ["-q", "-n0", "-rA", "--tb=line", "--timeout=60", "-m", "slow or not slow"]
        options += [f"-pno:{name}" for name in ("cacheprovider", "randomly", "schemathesis")]
        asked = [sys.executable, "-m", "pytest", *options, *tests]
        try:
            code, told = self._run(asked, at_most_seconds)
        except subprocess.TimeoutExpired:
            return dict.fromkeys(tests, f"still runs after {at_most_seconds:.0f} s")
        ended = _ENDED.findall(told)
        if code not in (0, 1) or {name for _, name, _ in ended} != set(tests):
            raise RuntimeError(f"pytest did not run {', '.join(tests)}:\n{told[-3000:]}")
        if broken := [name for how, name, _ in ended if how == "ERROR"]:
            raise RuntimeError(f"{', '.join(broken)} did not begin:\n{told[-3000:]}")
        return {name: why for how, name, why in ended if how == "FAILED"}

    def _run(self, asked: Sequence[str], at_most_seconds: float) -> tuple[int, str]:
        """Run a command in the copy, and end all that it started; return its code and what it said."""
        started = subprocess.Popen(
            asked, env=self._environment, cwd=self._place, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            told, _ = started.communicate(timeout=at_most_seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        return started.returncode, told

    def without(self, fence: Fence) -> list[str]:
        """Take a fence away for a moment; return what is wrong with its tests, mostly nothing."""
        module = self._place / fence.module
        whole = module.read_text(encoding="utf-8")
        _write(module, whole.replace(fence.fragment, fence.without))
        try:
            failed = self.run(fence.tests, at_most_seconds=75)
        finally:
            _write(module, whole)
        passed = [f"{test} passes without it" for test in fence.tests if test not in failed]
        broken = [f"{test} fails for another reason: {why}" for test, why in failed.items() if _BROKEN.search(why)]
        return passed + broken


def _write(module: Path, text: str) -> None:
    """Write a module and forget what was compiled of it: times of files are too coarse to tell that it changed."""
    module.write_text(text, encoding="utf-8")
    Path(cache_from_source(str(module))).unlink(missing_ok=True)
