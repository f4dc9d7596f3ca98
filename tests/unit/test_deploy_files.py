"""docs/deploy: what its files run, probe, mount and allow is what the code has, and nothing needs root."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from outbox._version import __version__
from relay.cli import cli
from relay.config.options import Config, options
from relay.config.sources import load
from relay.engine.engine import SETTLE_AFTER_DRAIN_SECONDS
from relay.process.daemon import HURRY_SECONDS
from relay.telemetry.gauges import Reading
from relay.telemetry.health import Health

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = {
    f"{path.stem} {document['kind']}": document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
PODS = {
    name: document["spec"]["template"]["spec"] for name, document in MANIFESTS.items() if "template" in document["spec"]
}
UNITS = sorted(DEPLOY.glob("*.service"))
LEAVES_WITHIN = SETTLE_AFTER_DRAIN_SECONDS + HURRY_SECONDS
"""How long after `drain_seconds` a process is gone at the latest."""
VARIABLES = {option.env for option in options()} | {f"{option.env}_FILE" for option in options() if option.secret}


def unit(path: Path) -> dict[str, list[str]]:
    """The keys of [Service] with all their values."""
    found: dict[str, list[str]] = {}
    section = path.read_text(encoding="utf-8").partition("[Service]\n")[2].partition("\n[")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def image_lines(word: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", "")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


def command_lines() -> dict[str, list[str]]:
    """Every command line of `relay` in these files, by where it stands."""
    found = {"Dockerfile": json.loads(image_lines("ENTRYPOINT")[-1])[1:] + json.loads(image_lines("CMD")[-1])}
    found |= {f"compose {n}": s["command"] for n, s in COMPOSE["services"].items() if s["image"] == "outbox-relay"}
    found |= {f"{name} {c['name']}": c["args"] for name, pod in PODS.items() for c in containers(pod)}
    found |= {path.name: shlex.split(unit(path)["ExecStart"][0])[1:] for path in UNITS}
    return found


@pytest.mark.parametrize("where", command_lines())
def test_every_command_line_is_one_of_relay_with_values_that_are_taken(where: str) -> None:
    arguments = command_lines()[where]
    name, command, rest = cli.resolve_command(click.Context(cli), list(arguments))
    assert name in ("run", "serve", "migrate")
    context = command.make_context(name, list(rest))  # raises UsageError at an option that there is not
    given = {key: value for key, value in context.params.items() if value is not None}
    known = {option.name for option in options()}
    load({key: value for key, value in given.items() if key in known}, {"DATABASE_URL": "postgresql://h/d"}, None)


def variables() -> dict[str, dict[str, str]]:
    """The variables that each file gives to `relay`."""
    image = dict(pair.split("=", 1) for line in image_lines("ENV") for pair in shlex.split(line))
    found = {"Dockerfile": image}
    found |= {f"compose {n}": s.get("environment", {}) for n, s in COMPOSE["services"].items()}
    found |= {
        f"{name} {c['name']}": {v["name"]: v["value"] for v in c.get("env", [])}
        for name, pod in PODS.items()
        for c in containers(pod)
    }
    found |= {path.name: dict(v.split("=", 1) for v in unit(path).get("Environment", [])) for path in UNITS}
    return found


@pytest.mark.parametrize("where", variables())
def test_every_variable_is_one_that_relay_reads_and_no_secret_stands_in_it(where: str) -> None:
    ours = {name: value for name, value in variables()[where].items() if name.startswith("RELAY_")}
    assert set(ours) <= VARIABLES
    for option in options():
        assert not (option.secret and option.env in ours), "a secret comes from a file"
    assert not any("://" in value for value in variables()[where].values())


def test_the_image_does_not_run_as_root_and_stops_by_a_drain() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert image_lines("STOPSIGNAL") == ["SIGTERM"]
    assert "pip" not in re.sub(r"#.*", "", final)
    assert set(image_lines("EXPOSE")[0].split()) == {"8080", "9464"}
    assert Config().listen[1] == 8080
    assert load(
        {}, {"RELAY_METRICS_LISTEN": variables()["Dockerfile"]["RELAY_METRICS_LISTEN"]}, None
    ).config.metrics_listen == ("0.0.0.0", 9464)


def test_the_build_takes_what_the_package_is_made_of_and_nothing_else() -> None:
    ignored = (DEPLOY.parents[1] / ".dockerignore").read_text(encoding="utf-8").split()
    taken = {line[1:] for line in ignored if line.startswith("!")}
    assert taken == {"outbox", "relay", "pyproject.toml", "README.md", "LICENSE"}
    assert ignored.index("*") < min(ignored.index(f"!{name}") for name in taken)


def test_the_health_check_asks_for_a_path_that_is_answered_and_names_the_port_of_the_image() -> None:
    check = image_lines("HEALTHCHECK")[0]
    program = json.loads(check.partition("CMD ")[2])
    assert program[:2] == ["python3", "-c"]
    (path,) = re.findall(r"'GET', '(/\w+)'", program[2])
    assert path == "/live"
    assert "RELAY_METRICS_LISTEN" in program[2]
    compile(program[2], "HEALTHCHECK", "exec")


def answered(path: str) -> int:
    return Health(lambda: Reading(0.0, None, "no database"), lambda: b"").answer(path).status


@pytest.mark.parametrize("where", [name for name in PODS if "Deployment" in name])
def test_probes_ask_paths_and_ports_that_the_process_answers(where: str) -> None:
    (container,) = PODS[where]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    flags = dict(zip(container["args"], container["args"][1:], strict=False))
    assert flags["--metrics-listen"] == f"0.0.0.0:{ports['health']}"
    if "http" in ports:
        assert flags["--listen"] == f"0.0.0.0:{ports['http']}"
    for probe, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, "health")
        assert answered(asked["path"]) != 404
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 30 + 10, "it waits for the database for 30 s"
    annotations = MANIFESTS[where]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["health"])
    assert answered(annotations["prometheus.io/path"]) == 200


@pytest.mark.parametrize("where", [name for name in PODS if "Deployment" in name])
def test_the_grace_of_a_pod_is_longer_than_its_drain(where: str) -> None:
    (container,) = PODS[where]["containers"]
    flags = dict(zip(container["args"], container["args"][1:], strict=False))
    pause = int(
        container.get("lifecycle", {"preStop": {"exec": {"command": ["sleep", "0"]}}})["preStop"]["exec"]["command"][1]
    )
    leaves_within = LEAVES_WITHIN if container["args"][0] == "run" else 0
    assert PODS[where]["terminationGracePeriodSeconds"] > pause + int(flags["--drain-seconds"]) + leaves_within


@pytest.mark.parametrize("where", PODS)
def test_a_pod_has_no_right_that_it_does_not_need_and_its_secrets_by_reference(where: str) -> None:
    pod = PODS[where]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "a service named relay would inject RELAY_PORT"
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    assert "emptyDir" in volumes["tmp"]
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert set(mounts) == set(volumes)
        assert mounts["tmp"]["mountPath"] == "/tmp"
        for variable in container["env"]:
            assert Path(variable["value"]).parent == Path(mounts["secrets"]["mountPath"])
        assert container["image"].endswith(f":{__version__}")
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_every_manifest_names_what_the_api_server_demands() -> None:
    kinds = {"Job": "batch/v1", "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1", "Service": "v1"}
    assert {document["kind"] for document in MANIFESTS.values()} == set(kinds)
    for document in MANIFESTS.values():
        assert document["apiVersion"] == kinds[document["kind"]]
        assert re.fullmatch(
            r"[a-z][a-z0-9-]{1,50}", document["metadata"].get("name") or document["metadata"]["generateName"]
        )
    for where in (name for name in PODS if "Deployment" in name):
        spec = MANIFESTS[where]["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    serve = MANIFESTS["serve Deployment"]["spec"]["template"]
    service = MANIFESTS["serve Service"]["spec"]
    assert service["selector"].items() <= serve["metadata"]["labels"].items()
    named = {port["name"] for container in serve["spec"]["containers"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= named
    budget = MANIFESTS["relay PodDisruptionBudget"]["spec"]
    assert budget["selector"] == MANIFESTS["relay Deployment"]["spec"]["selector"]
    assert budget["minAvailable"] < MANIFESTS["relay Deployment"]["spec"]["replicas"]
    assert PODS["migrate Job"]["restartPolicy"] == "Never"


def test_compose_waits_for_the_schema_and_leaves_time_for_the_drain() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"postgres", "migrate", "relay", "serve"}
    for name in ("relay", "serve"):
        assert services[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > Config().drain_seconds + LEAVES_WITHIN
    for name in ("migrate", "relay", "serve"):
        service = services[name]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        (secret,) = service["secrets"]
        assert service["environment"] == {"RELAY_DATABASE_URL_FILE": f"/run/secrets/{secret}"}
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    assert services["serve"]["ports"] == [f"127.0.0.1:8080:{Config().listen[1]}"]
    for volume in services["postgres"]["volumes"]:
        source = volume.partition(":")[0]
        assert (DEPLOY / source).is_file() or source in COMPOSE["volumes"]


def test_the_secrets_of_compose_are_those_that_its_script_makes(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    for _ in range(2):  # the second time it changes nothing
        subprocess.run(["sh", script], check=True, timeout=30)
        made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert wanted <= set(made)
    used = {secret for service in COMPOSE["services"].values() for secret in service["secrets"]}
    assert used == set(COMPOSE["secrets"])
    for name, text in made.items():
        if name.endswith("_url"):
            role = name.removesuffix("_url")
            assert text == f"postgresql://{role}:{made[f'{role}_password']}@postgres/shop"
            assert len(made[f"{role}_password"]) == 48
            load({"database_url": text}, {}, None)
    again = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}
    assert again == made


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="no docker-compose (Debian: apt-get install docker-compose)"
)
def test_docker_compose_reads_the_file() -> None:
    command = ["docker-compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_drains_and_restarts_and_takes_secrets_as_credentials(path: Path) -> None:
    service = unit(path)
    assert int(service["TimeoutStopSec"][0]) > Config().drain_seconds + LEAVES_WITHIN
    assert service["KillMode"] == ["mixed"], "a signal to every process would reach the children twice"
    assert service["Restart"] == ["always"]
    assert "StartLimitIntervalSec=0" in path.read_text(encoding="utf-8")
    names = {value.partition(":")[0] for value in service["LoadCredential"]}
    files = {value.partition("=")[2] for value in service["Environment"]}
    assert files == {f"%d/{name}" for name in names}
    assert service["DynamicUser"] == service["NoNewPrivileges"] == ["yes"]
    assert service["ProtectSystem"] == ["strict"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze (Debian: apt-get install systemd)"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_knows_every_line_of_a_unit_and_finds_it_hardly_exposed(path: Path, tmp_path: Path) -> None:
    """`verify` wants the program to be there: another one stands in for it."""
    here = tmp_path / path.name
    here.write_text(path.read_text(encoding="utf-8").replace("/opt/relay/bin/relay", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", here]
    judged = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert judged.returncode == 0, judged.stdout
