"""`relay run --metrics-listen`: health, and metrics that add up over processes; dashboard and alerts fit them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support.application import Application
from tests.support.processes import RelayProcess
from tests.support.scrape import Scrape, address_of, get
from tests.support.waiting import wait_until

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
LISTEN = ("--metrics-listen", "127.0.0.1:0")
NAME = re.compile(r"\boutbox_relay_\w+")


def scrape(address: str) -> Scrape:
    answer = get(f"{address}/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)


Counted = tuple[str, dict[str, str], float]
ATTEMPTS = "outbox_relay_attempts_total"
COUNTED: list[Counted] = [
    (ATTEMPTS, {"outcome": "delivered"}, 50),
    (ATTEMPTS, {"outcome": "http_5xx"}, 50),
    ("outbox_relay_attempt_duration_seconds_count", {"result": "failed"}, 50),
    ("outbox_relay_delivery_delay_seconds_count", {}, 50),
    ("outbox_relay_dead_letters_made_total", {}, 50),
    ("outbox_relay_events_resolved_total", {}, 50),
    ("outbox_relay_deliveries_made_total", {}, 100),
]
"""What a process counts one after the other, from its answer of the database on: a scrape may come in between."""


def wait_counted(address: str, least: list[Counted]) -> Scrape:
    """Wait until each is counted so often; return the next scrape."""

    def is_counted() -> bool:
        found = scrape(address)
        return all(found.value(name, labels) >= value for name, labels, value in least)

    wait_until(is_counted, timeout_seconds=30)
    return scrape(address)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_was_delivered_is_counted_over_all_processes(app: Application, processes: int) -> None:
    app.switch_breakers_off()
    app.subscribe("/good")
    app.subscribe("/bad", "order.placed", schedule_seconds=())
    app.receiver.plan("/bad", "500")
    relay = app.stage.running_relay(*LISTEN, "--processes", str(processes), processes=processes)
    address = address_of(relay)
    before = scrape(address)
    assert before.value("outbox_relay_attempts_total") == 0
    for _ in range(5):
        app.record(10)
    app.wait_settled()
    found = wait_counted(address, COUNTED)
    assert [found.value(name, labels) for name, labels, _ in COUNTED] == [value for *_, value in COUNTED]
    assert found.value("outbox_relay_build_info") == 1
    assert get(f"{address}/live").json() == {"live": True}
    assert get(f"{address}/ready").json()["ready"] is True
    assert get(f"{address}/other").status_code == 404
    assert get(f"{address}/live", "POST").status_code == 400
    assert get(f"{address}/metrics", "HEAD").content == b""
    assert relay.stop() == 0


@pytest.mark.slow
def test_what_a_process_counted_stays_when_it_is_killed(app: Application) -> None:
    app.subscribe()
    relay = app.stage.running_relay(*LISTEN, "--processes", "2", processes=2)
    address = address_of(relay)
    app.record(40)
    app.wait_settled()
    before = wait_counted(address, [(ATTEMPTS, {}, 40)])
    (directory,) = {Path(psutil.Process(child.pid).environ()["PROMETHEUS_MULTIPROC_DIR"]) for child in relay.children()}
    assert directory.is_dir()
    relay.note("killed")
    for child in relay.children():
        psutil.Process(child.pid).kill()
    relay.wait_running(4)
    found = scrape(address)
    assert found.value("outbox_relay_attempts_total") >= before.value("outbox_relay_attempts_total")
    assert found.value("outbox_relay_process_restarts_total") == 2
    app.record(10)
    app.wait_settled()
    wait_counted(address, [(ATTEMPTS, {}, 50)])
    assert relay.stop() == 0
    assert not directory.exists()


def test_a_silent_client_holds_up_nobody(app: Application) -> None:
    relay = app.stage.running_relay(*LISTEN)
    address = address_of(relay)
    port = int(address.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    assert get(f"{address}/live").status_code == 200
    for one in silent:
        one.close()


def test_a_port_that_is_taken_is_told_at_the_start(app: Application) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for processes in ("1", "2"):
            relay = app.stage.relay("--metrics-listen", address, "--processes", processes)
            assert relay.wait(60) == 2
            assert f"metrics_listen: cannot listen on {address}: " in relay.text


@pytest.fixture
def scraped(app: Application) -> tuple[RelayProcess, Scrape]:
    relay = app.stage.running_relay(*LISTEN)
    return relay, scrape(address_of(relay))


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    loaded = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in loaded["panels"] for target in panel["targets"]]


def test_every_metric_of_the_dashboard_and_the_alerts_is_in_a_scrape(scraped: tuple[RelayProcess, Scrape]) -> None:
    named = {
        name for text in (*dashboard_expressions(), *(rule["expr"] for rule in rules())) for name in NAME.findall(text)
    }
    assert len(named) > 10
    assert named - scraped[1].names() == set()
    shown = {name for text in dashboard_expressions() for name in NAME.findall(text)}
    ending = {"counter": "_total", "histogram": "_bucket"}
    families = {name + ending.get(family.type, "") for name, family in scraped[1].families.items()}
    assert families - shown == set(), "what is measured is shown"


def test_labels_of_selectors_have_values_that_there_are(scraped: tuple[RelayProcess, Scrape]) -> None:
    selector = re.compile(r'(outbox_relay_\w+)\{(\w+)(=|!=)"(\w+)"\}')
    texts = [*dashboard_expressions(), *(rule["expr"] for rule in rules())]
    found = [match for text in texts for match in selector.findall(text)]
    assert found
    for name, label, _, value in found:
        assert scraped[1].value(name, {label: value}) >= 0


def test_every_alert_says_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.fixture
def promtool() -> str:
    if (found := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


GRAFANA = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


def check_expressions(promtool: str, expressions: list[str], file: Path) -> str:
    """Let Prometheus read these expressions, each as a recording rule; return what it says of them, '' if nothing."""
    written = [re.sub(r"\$\w+", lambda found: GRAFANA[found[0]], one) for one in expressions]
    rules = [{"record": f"panel:{place}", "expr": one} for place, one in enumerate(written)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    ended = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert (ended.returncode == 0) is (f"SUCCESS: {len(rules)} rules found" in ended.stdout)
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


def test_each_expression_of_the_dashboard_is_read_by_promtool(promtool: str, tmp_path: Path) -> None:
    assert check_expressions(promtool, dashboard_expressions(), tmp_path / "rules.yml") == ""
    broken = [*dashboard_expressions(), "sum by (le (rate(outbox_relay_attempts_total[$__rate_interval])))"]
    assert "could not parse expression" in check_expressions(promtool, broken, tmp_path / "broken.yml")


def test_the_rules_are_evaluated_by_promtool(promtool: str, tmp_path: Path) -> None:
    """Each alert fires where it should, and does not where all is well."""
    well = {
        "outbox_relay_build_info": "1+0x120",
        "outbox_relay_processes": "2+0x120",
        "outbox_relay_database_up": "1+0x120",
        "outbox_relay_oldest_due_age_seconds": "0+0x120",
        "outbox_relay_oldest_pending_age_seconds": "0+0x120",
        'outbox_relay_attempts_total{outcome="delivered"}': "0+60x120",
        'outbox_relay_attempts_total{outcome="timeout"}': "0+1x120",
        'outbox_relay_attempts_total{outcome="stood_still"}': "0+30x120",
        "outbox_relay_dead_letters_made_total": "0+0x120",
        "outbox_relay_process_restarts_total": "0+0x120",
        "outbox_relay_sending_paused": "0+0x120",
    }
    ill = {
        "OutboxRelayDown": {"outbox_relay_processes": "0+0x120"},
        "OutboxRelayDatabaseUnreachable": {"outbox_relay_database_up": "0+0x120"},
        "OutboxRelayDeliveriesLate": {"outbox_relay_oldest_due_age_seconds": "301+60x120"},
        "OutboxRelayEventsUnresolved": {"outbox_relay_oldest_pending_age_seconds": "61+60x120"},
        "OutboxRelayFailureRate": {'outbox_relay_attempts_total{outcome="timeout"}': "0+60x120"},
        "OutboxRelayDeadLetters": {"outbox_relay_dead_letters_made_total": "0+1x120"},
        "OutboxRelayRestarts": {"outbox_relay_process_restarts_total": "0+1x120"},
        "OutboxRelaySendingPaused": {"outbox_relay_sending_paused": "1+0x120"},
    }
    assert set(ill) == {rule["alert"] for rule in rules()}
    tests = [{"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in well.items()],
              "alert_rule_test": [{"eval_time": "110m", "alertname": name} for name in ill]}]  # fmt: skip
    for name, changed in ill.items():
        series = [{"series": one, "values": values} for one, values in (well | changed).items()]
        tests.append({"interval": "1m", "input_series": series, "promql_expr_test": [
            {"expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})', "eval_time": "110m",
             "exp_samples": [{"labels": "{}", "value": 1}]}]})  # fmt: skip
    file = tmp_path / "rules_test.yml"
    document = {"rule_files": [str(MONITORING / "alerts.yml")], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    ended = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
