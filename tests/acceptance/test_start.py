"""docs/start.md, step by step: its files, its commands and its servers, as a newcomer runs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from relay.local.embedded import free_port
from tests.support.readme import ROOT, blocks
from tests.support.waiting import wait_until

PAGE = ROOT / "docs" / "start.md"
SCRIPTS = Path(sysconfig.get_path("scripts"))
READY = {"relay dev": "Ctrl-C stops everything", "uvicorn shop:app": "running on", "uvicorn customer:app": "running on"}
INSTALLED = {"python3 -m venv .venv", ". .venv/bin/activate"}
COPIED = {"DATABASE_URL": r"export DATABASE_URL=(\S+)", "WEBHOOK_SECRET": r"\b(whsec_\S+)"}


class Newcomer:
    """Does what the page says, in one directory. Servers are left running; what is to be copied is copied."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        self.environment["PATH"] = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        self.seen = ""
        self.outputs: dict[str, str] = {}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.installs: list[str] = []

    def run(self, line: str) -> None:
        server = next((name for name in READY if line.startswith(name)), "")
        if line.startswith("export "):
            self._export(line)
        elif line.startswith("pip install "):
            self.installs.append(line)
        elif server:
            self._serve(server, line)
        elif line not in INSTALLED:
            self._finish(line)

    def text_of(self, server: str) -> str:
        return (self.directory / f"{server.split()[1]}.log").read_text()

    def _export(self, line: str) -> None:
        for word in shlex.split(line)[1:]:
            name, _, value = word.partition("=")
            if value.endswith("…"):
                found = re.search(COPIED[name], self.seen)
                assert found, f"nothing to copy for {name} in:\n{self.seen}"
                assert found[1].startswith(value[:-1])
                value = found[1]
            self.environment[name] = value

    def _serve(self, server: str, line: str) -> None:
        log = self.directory / f"{server.split()[1]}.log"
        with log.open("wb") as output:
            self.servers[server] = subprocess.Popen(
                shlex.split(line), cwd=self.directory, env=self.environment, stdout=output, stderr=output
            )
        process = self.servers[server]
        wait_until(lambda: READY[server] in log.read_text() or process.poll() is not None, timeout_seconds=60)
        assert process.poll() is None, log.read_text()
        self.seen += log.read_text()

    def _finish(self, line: str) -> None:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        self.outputs[line] = done.stdout
        self.seen += done.stdout

    def stop(self) -> None:
        started = [psutil.Process(server.pid) for server in self.servers.values() if server.poll() is None]
        below = [child for process in started for child in process.children(recursive=True)]
        for server in reversed(self.servers.values()):
            server.send_signal(signal.SIGINT)
        for server in self.servers.values():
            server.wait(30)
        assert psutil.wait_procs(below, timeout=30)[1] == []


@pytest.fixture
def newcomer() -> Iterator[Newcomer]:
    directory = Path(tempfile.mkdtemp(prefix="start-"))
    directory.chmod(0o755)  # root's embedded server runs as a user who must get in
    newcomer = Newcomer(directory)
    yield newcomer
    newcomer.stop()
    shutil.rmtree(directory)


def free_ports() -> dict[str, str]:
    """A free port for each that the page names."""
    first = second = free_port()
    while second == first:
        second = free_port()
    return {"8000": str(first), "8001": str(second)}


@pytest.mark.slow
@pytest.mark.field("F56")
def test_every_step_of_the_page_works(newcomer: Newcomer) -> None:
    ports = free_ports()
    shown: list[tuple[str, str]] = []
    for block in blocks(PAGE):
        text = re.sub(r"\b800[01]\b", lambda match: ports[match[0]], block.text)
        if block.language == "python":
            (newcomer.directory / text.split()[1]).write_text(text)
            continue
        assert block.language == "console"
        for line in text.splitlines():
            assert line.startswith("$ "), "what a command prints is not part of a block"
            newcomer.run(line[2:])
            shown.append((line[2:], newcomer.outputs.get(line[2:], "")))
    said = {line.split(ports["8000"])[0]: output for line, output in shown}
    wait_until(lambda: "received evt_" in newcomer.text_of("uvicorn customer:app"), timeout_seconds=30)
    assert "'cents': 1500" in newcomer.text_of("uvicorn customer:app")
    wait_until(lambda: newcomer.text_of("relay dev").count("signature verified") == 2, timeout_seconds=30)
    assert "waiting" in said["relay deliveries list"]
    assert "refused" in said["relay deliveries attempts --since 1h --outcome failed"]
    assert " is failing" in said["relay status"]
    assert said["relay events list"].count("order.placed") == 2
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (install,) = newcomer.installs
    assert set(re.findall(r"\w+", install.partition("[")[2])) <= set(extras)
