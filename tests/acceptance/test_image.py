"""The image of docs/deploy/Dockerfile, run by a Docker engine: `.ci/image` builds it and names it to these tests."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.local.embedded import free_port
from tests.support.application import Application
from tests.support.waiting import wait_until

IMAGE = os.environ.get("OUTBOX_TEST_IMAGE_OF_RELAY", "")
TOOLS = ("gcc", "cc", "c++", "clang", "ld", "as", "make", "cargo", "pip", "pip3", "git", "curl", "wget")

pytestmark = pytest.mark.skipif(
    not IMAGE, reason="no OUTBOX_TEST_IMAGE_OF_RELAY: .ci/image builds the image and sets it"
)


def docker(*arguments: str) -> str:
    """Run a command of docker and return what it printed; what a container logged goes along."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Container:
    """A container on this machine's network, with a read-only root file system and a tmpfs at /tmp."""

    def __init__(self, database_url: str, directory: Path, *command: str) -> None:
        self.name = f"outbox-relay-{secrets.token_hex(4)}"
        secret = directory / f"{self.name}.url"
        secret.write_text(database_url)
        secret.chmod(0o444)
        self.port = free_port()
        docker(
            *("run", "--detach", "--name", self.name, "--network", "host", "--read-only", "--tmpfs", "/tmp"),
            *(
                "--cap-drop",
                "ALL",
                "--security-opt",
                "no-new-privileges",
                "--health-interval",
                "1s",
                "--health-retries",
                "1",
            ),
            *("--volume", f"{secret}:/run/secrets/database_url:ro"),
            *("--env", "RELAY_DATABASE_URL_FILE=/run/secrets/database_url"),
            *("--env", f"RELAY_METRICS_LISTEN=127.0.0.1:{self.port}"),
            *(IMAGE, *command),
        )

    @property
    def state(self) -> dict[str, Any]:
        (state,) = json.loads(docker("inspect", "--format", "[{{json .State}}]", self.name))
        return state

    @property
    def text(self) -> str:
        return docker("logs", self.name)

    def wait_for(self, health: str) -> None:
        """Wait until its health check comes to this."""

        def is_so() -> bool:
            state = self.state
            assert state["Running"], self.text
            return bool(state["Health"]["Status"] == health)

        wait_until(is_so, timeout_seconds=60)

    def wait(self) -> int:
        return int(docker("wait", self.name))

    def end(self) -> None:
        docker("rm", "--force", self.name)


@pytest.fixture
def start(app: Application, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(*command: str) -> Container:
        started.append(Container(app.stage.database_url, tmp_path, *command))
        return started[-1]

    yield start
    for container in started:
        container.end()


def in_image(script: str) -> str:
    return docker("run", "--rm", "--network", "none", "--read-only", "--entrypoint", "sh", IMAGE, "-c", script)


@pytest.mark.parametrize("processes", [1, 2])
def test_it_gets_healthy_delivers_and_drains_at_sigterm(app: Application, start: Any, processes: int) -> None:
    app.subscribe("/hook", timeout_seconds=60)
    app.receiver.plan("/hook", "200")
    to_loopback = ("--allow-http", "--allow-networks", "127.0.0.0/8")
    relay = start("run", "--processes", str(processes), *to_loopback)
    relay.wait_for("healthy")
    wait_until(lambda: relay.text.count(" running, process") == processes)  # one is enough to be healthy
    app.record(10)
    app.wait_settled()
    app.receiver.plan("/hook", "hold")
    app.record(1)
    app.receiver.wait_for(11)
    docker("kill", "--signal", "TERM", relay.name)
    assert relay.state["Running"]
    app.receiver.release()
    assert relay.wait() == 0, relay.text
    assert relay.text.count(" stopped") == processes
    assert "Traceback" not in relay.text
    assert app.is_settled(), "what was under way is settled before it leaves"
    app.assert_each_once()


def test_serve_gets_healthy_by_the_same_probe_and_leaves_at_sigterm(start: Any) -> None:
    serve = start("serve", "--listen", "127.0.0.1:0")
    serve.wait_for("healthy")
    docker("stop", "--time", "45", serve.name)
    assert serve.wait() == 0, serve.text
    assert "serving ended" in serve.text
    assert "warning: " not in serve.text


def test_a_process_that_hangs_gets_unhealthy(start: Any) -> None:
    relay = start("run")
    relay.wait_for("healthy")
    docker("kill", "--signal", "STOP", relay.name)
    relay.wait_for("unhealthy")
    docker("kill", "--signal", "CONT", relay.name)
    relay.wait_for("healthy")
    docker("stop", "--time", "45", relay.name)
    assert relay.wait() == 0, relay.text


def test_migrate_runs_in_it_and_ends(start: Any) -> None:
    migrate = start("migrate")
    assert migrate.wait() == 0, migrate.text
    assert "the schema is up to date" in migrate.text


def test_it_is_not_root_and_holds_no_build_tool_no_cache_and_no_source() -> None:
    assert in_image("id -u").strip() == "10001"
    found = in_image(f"for tool in {' '.join(TOOLS)}; do command -v $tool || true; done")
    assert found == ""
    left = in_image(
        "find / -xdev \\( -path '*/.cache/*' -o -path /source -o -path /pip -o -name '*.deb' -o -name 'pip-*.dist-info'"
        " -o -path '/var/lib/apt/lists/*' \\) 2>/dev/null || true"
    )
    assert left == ""
    assert "Read-only file system" in in_image("touch /opt/relay/x 2>&1 || true")
    writable = in_image("find / -xdev -type d -writable -not -path '/proc/*' 2>/dev/null || true").split()
    assert set(writable) <= {"/tmp", "/var/tmp", "/run/lock", "/dev/shm", "/dev/mqueue"}
