"""What a scrape says: samples by name and labels, as Prometheus' own parser reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

__all__ = ["Scrape", "address_of", "get"]


class Scrape:
    """One scrape. `samples` is a list of (name, labels, value)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [
            (sample.name, sample.labels, sample.value) for family in self.families.values() for sample in family.samples
        ]

    def names(self) -> set[str]:
        return {name for name, _, _ in self.samples}

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """The sum of the samples of this name that have these labels."""
        found = [value for one, own, value in self.samples if one == name and (labels or {}).items() <= own.items()]
        assert found, f"no {name} {labels}"
        return sum(found)


def address_of(relay: RelayProcess) -> str:
    """Where a relay that runs with `--metrics-listen 127.0.0.1:0` answers, as its log says."""
    found: list[str] = []

    def told() -> bool:
        found[:] = re.findall(r"health and metrics on (http://\S+)/ready", relay.text)
        return bool(found)

    wait_until(told, timeout_seconds=30)
    return found[0]


def get(url: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, url, timeout=20, trust_env=False, verify=False)
