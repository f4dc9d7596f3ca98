"""A relay whose network is cut anywhere in a transaction holds nobody else for longer than a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.support import databases
from tests.support.application import Application, staged
from tests.support.constants import SHORT_STOP
from tests.support.namespace import Namespace, namespace, reachable_server, why_not
from tests.support.processes import ReceiverProcess

POINTS = ["TakenBatch.read_subscriptions:before:1", "TakenBatch.resolve:before:1"]


@pytest.fixture(scope="module")
def link() -> Iterator[Namespace]:
    """A namespace and its link."""
    if reason := why_not():
        pytest.skip(reason)
    with namespace() as made:
        yield made


@pytest.fixture(scope="module")
def server_url(link: Namespace) -> Iterator[str]:
    """A server that answers at the link too."""
    with reachable_server([link]) as url:
        yield url


@pytest.fixture
def cut_app(
    tmp_path: Path, link: Namespace, server_url: str, receiver_process: ReceiverProcess
) -> Iterator[Application]:
    """An application whose database answers at the link too. The link is whole again afterwards."""
    with databases.database(server_url) as url:
        databases.migrate(url)
        with staged(tmp_path, url, receiver_process) as app:
            yield app
    link.mend()


@pytest.mark.slow
@pytest.mark.field("F66")
@pytest.mark.parametrize("point", POINTS)
def test_a_relay_that_is_cut_off_in_its_transaction_does_not_stop_the_others(
    cut_app: Application, link: Namespace, point: str
) -> None:
    cut_app.stage.constants = SHORT_STOP
    cut_app.subscribe(schedule_seconds=(0,) * 5)
    there = make_url(cut_app.stage.database_url).set(host=link.outside).render_as_string(hide_password=False)
    lost = cut_app.stage.relay(trap=f"stop:{point}", database_url=there, environment=link.environment)
    cut_app.record(3)
    lost.wait_stopped()
    link.cut()
    cut_app.stage.running_relay()
    cut_app.record(3)
    cut_app.wait_settled(60)
    cut_app.assert_all_accounted()
