"""Is there a known advisory about anything that outbox-relay[all] installs? Asks through pip-audit.

    .venv/bin/python .ci/advisories.py path/to/pip-audit

Run by the environment whose packages are meant. Exit code 0: none is known, or no service could be asked, which one
line says; 1: there is one, or pip-audit failed for another reason than the network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SERVICES = ("pypi", "osv")
SECONDS = 120
_UNREACHABLE = re.compile(
    r"Could not connect|is not redirecting|requests\.exceptions\.(?:\w*Timeout|\w*ConnectionError|SSLError|ProxyError)"
    r"|HTTPError: [45]\d\d|NameResolutionError|JSONDecodeError"
)


@dataclass(frozen=True)
class Answer:
    """What came of asking one service: `asked` is False when it could not be; `fails` when CI must."""

    asked: bool
    fails: bool
    text: str


def installed(requirement: str) -> dict[str, str]:
    """Return what a requirement brings into this environment, itself left out: versions by name."""
    found: dict[str, str] = {}
    todo, seen = [Requirement(requirement)], set()
    while todo:
        wanted = todo.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        package = distribution(wanted.name)
        found[canonicalize_name(wanted.name)] = package.version
        needed = [Requirement(text) for text in package.requires or ()]
        environments = [{"extra": extra} for extra in wanted.extras or {""}]
        todo += [need for need in needed if not need.marker or any(map(need.marker.evaluate, environments))]
    del found[canonicalize_name(Requirement(requirement).name)]
    return found


def conclude(printed: str, errors: str) -> Answer:
    """Read what pip-audit printed as JSON, and what it wrote to standard error."""
    try:
        packages = json.loads(printed)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (errors.strip().splitlines() or ["it said nothing"])[-1][:120]
        unreachable = _UNREACHABLE.search(errors) is not None
        return Answer(asked=False, fails=not unreachable, text=last)
    known = [package for package in packages if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}, "
        f"mended in {', '.join(advisory['fix_versions']) or 'no version yet'}"
        for package in known
        for advisory in package["vulns"]
    ]
    if not known:
        return Answer(asked=False, fails=False, text=f"it knows none of {len(packages)} packages")
    unknown = [package["name"] for package in packages if "vulns" not in package]
    lines += [f"packages asked about: {len(known)}, advisories: {len(lines)}"]
    lines += [f"not known there: {', '.join(unknown)}"] if unknown else []
    return Answer(asked=True, fails=any(package["vulns"] for package in known), text="\n".join(lines))


def ask(program: str, requirements: Path, service: str) -> Answer:
    """Ask one service about pinned requirements."""
    command = [program, "-r", requirements, "--no-deps", "--disable-pip", "-s", service]
    command += ["-f", "json", "--progress-spinner", "off", "--timeout", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Answer(asked=False, fails=False, text=f"no answer within {SECONDS} s")
    return conclude(done.stdout, done.stderr)


def main() -> int:
    """Ask the services in turn until one can be asked."""
    (program,) = sys.argv[1:]
    unasked = []
    with tempfile.TemporaryDirectory() as directory:
        requirements = Path(directory) / "requirements.txt"
        pins = [f"{name}=={version}\n" for name, version in sorted(installed("outbox-relay[all]").items())]
        requirements.write_text("".join(pins))
        for service in SERVICES:
            answer = ask(program, requirements, service)
            if answer.asked or answer.fails:
                print(f"{service}: {answer.text}")
                return int(answer.fails)
            unasked.append(f"{service}: {answer.text}")
    print(f"advisories: NOT CHECKED, no service could be asked ({'; '.join(unasked)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
