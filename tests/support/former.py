"""The code of the former release, as its users still run it, from the history of the repository.

`OUTBOX_TEST_FORMER` names a directory with it, for a copy of the repository that has no history (.ci/run makes one).
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.support.processes import ROOT, Process, RelayProcess, WriterProcess

COMMIT = "4a968bed11b63c5eb6eb97190de1b98ea7ca2ff0"
NEWEST_MIGRATION = 9
DIRECTORY = "OUTBOX_TEST_FORMER"


class UnreachableError(Exception):
    """The former code is not to be had here; the message says why."""


def former_tree(directory: Path) -> Path:
    """Return where the former code is; write it to `directory` where it has to be taken from the history."""
    if given := os.environ.get(DIRECTORY):
        return Path(given)
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", COMMIT, "outbox", "relay", "tests"]
    try:
        archive = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnreachableError(f"no {DIRECTORY}, and commit {COMMIT[:7]} is not in a history here: {error}") from None
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    return directory


@dataclass(frozen=True)
class Former:
    """Processes of the former code. They use the packages that are installed for the code of now."""

    tree: Path
    stage_directory: Path
    database_url: str

    @property
    def environment(self) -> dict[str, str]:
        """What makes Python import the former code, wherever it is started."""
        path = os.pathsep.join([str(self.tree / "tests" / "support" / "guarded"), str(self.tree)])
        return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a command of `relay`."""
        output = self.stage_directory / f"former-{arguments[0]}.log"
        variables = {"RELAY_DATABASE_URL": self.database_url, **(environment or {}), **self.environment}
        return Process(["-m", "relay", *arguments], output, variables)

    def relay(self, incidents: Path, name: str) -> RelayProcess:
        """Start `relay run`, which may send to this machine."""
        output = self.stage_directory / f"former-{name}.log"
        return RelayProcess(incidents, output, self.database_url, environment=self.environment)

    def writer(self, *options: object) -> WriterProcess:
        """Start the application of the former tests on the former library."""
        return WriterProcess(self.stage_directory, self.database_url, *options, environment=self.environment)
