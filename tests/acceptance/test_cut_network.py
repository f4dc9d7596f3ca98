"""A relay whose network is cut anywhere in a transaction holds nobody else for longer than a bound."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from relay.local import embedded
from relay.local.embedded import EmbeddedServer
from tests.support import databases
from tests.support.application import Application, staged
from tests.support.constants import SHORT_STOP
from tests.support.namespace import Namespace, namespace, why_not
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
def server(link: Namespace) -> Iterator[EmbeddedServer]:
    """A server that answers at the link too."""
    directory = Path(tempfile.mkdtemp(prefix="outbox-cut-"))
    settings = {"listen_addresses": f"127.0.0.1,{link.outside}", "fsync": "off"}
    try:
        with embedded.start(directory, settings=settings) as server:
            with (directory / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {link.inside}/32 scram-sha-256\n")
            server.restart()
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cut_app(
    tmp_path: Path, link: Namespace, server: EmbeddedServer, receiver_process: ReceiverProcess
) -> Iterator[Application]:
    """An application whose database answers at the link too. The link is whole again afterwards."""
    with databases.database(server.url()) as url:
        databases.migrate(url)
        with staged(tmp_path, url, receiver_process) as app:
            yield app
    link.mend()


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
