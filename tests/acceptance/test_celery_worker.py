"""`celery worker` as a process of its own, with a forked pool: a task that is tried again leaves one event."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery

from tests.support import readme
from tests.support.databases import engine_on
from tests.support.processes import Process
from tests.support.waiting import wait_until

# The page's own recipe, on a broker of files, which needs no server. What a task does beside is in a file of its own.
RECIPE = next(
    block.text
    for block in readme.blocks(readme.ROOT / "docs" / "integrations.md")
    if "def forget_the_connections_of_the_parent(**_: object) -> None:" in block.text.splitlines()
)
SHOP = f"""
import json, os, signal, sys
import sqlalchemy as sa

engine = sa.create_engine(os.environ["SHOP_DATABASE"])
with engine.connect() as connection:  # the parent has one open when it forks
    connection.execute(sa.text("select 1"))

{RECIPE}

app.conf.update(json.loads(os.environ["SHOP_BROKER"]))

def note(what, order_id):
    with open(os.environ["SHOP_TRIES"], "a") as file:
        print(what, order_id, os.getpid(), file=file)

def tries_of(order_id):
    with open(os.environ["SHOP_TRIES"]) as file:
        return sum(line.split()[1] == str(order_id) for line in file)

@app.task(autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=3)
def ship_and_lose_the_carrier(order_id):
    note("ship_and_lose_the_carrier", order_id)
    ship(order_id)
    if tries_of(order_id) == 1:
        raise ConnectionError("the carrier does not answer, and the event is committed")

@app.task(acks_late=True, reject_on_worker_lost=True)
def ship_and_die(order_id):
    note("ship_and_die", order_id)
    ship(order_id)
    if tries_of(order_id) == 1:
        os.kill(os.getpid(), signal.SIGKILL)

@app.task
def fail_before_the_commit(order_id):
    note("fail_before_the_commit", order_id)
    with Session(engine) as session, session.begin():
        outbox.record(session, "order.shipped", {{"id": order_id}})
        raise ValueError("never")
"""


class Worker:
    """A worker in a directory, and what its tasks have noted there."""

    def __init__(self, directory: Path, database_url: str) -> None:
        for name in ("broker", "control"):
            (directory / name).mkdir()
        (directory / "tries").touch()
        (directory / "worker_of_the_shop.py").write_text(SHOP)
        self._tries = directory / "tries"
        self._broker: dict[str, Any] = {
            "broker_url": "filesystem://",
            "broker_transport_options": {
                "data_folder_in": str(directory / "broker"),
                "data_folder_out": str(directory / "broker"),
                "control_folder": str(directory / "control"),
            },
        }
        environment = {
            "SHOP_DATABASE": database_url.replace("postgresql://", "postgresql+psycopg://", 1),
            "SHOP_BROKER": json.dumps(self._broker),
            "SHOP_TRIES": str(self._tries),
        }
        arguments = ["-m", "celery", "--workdir", str(directory), "-A", "worker_of_the_shop", "worker"]
        more = ["--pool=prefork", "--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=info"]
        self.process = Process([*arguments, *more], directory / "worker.out", environment)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait; where it takes too long, say what the worker says."""
        try:
            wait_until(condition, timeout_seconds=90)
        except AssertionError as late:
            raise AssertionError(f"{late}:\n{self.process.text}") from None

    def ask_for(self, task: str, order_id: int) -> None:
        """Send a task by the broker, as a web process of the shop would."""
        with Celery("shop", set_as_current=False) as app:
            app.conf.update(self._broker)
            app.send_task(f"worker_of_the_shop.{task}", [order_id])

    def tries(self, order_id: int) -> list[int]:
        """The processes that tried this order, one by one."""
        lines = [line.split() for line in self._tries.read_text().splitlines()]
        return [int(process) for _, order, process in lines if order == str(order_id)]


@pytest.fixture
def worker(tmp_path: Path, database_url: str) -> Iterator[Worker]:
    worker = Worker(tmp_path, database_url)
    try:
        worker.wait_until(lambda: " ready." in worker.process.text)
        yield worker
    finally:
        worker.process.end()


def events(database_url: str) -> list[int]:
    """The orders of the events, in the order of their commit."""
    with engine_on(database_url) as engine, engine.connect() as connection:
        return [json.loads(data)["id"] for data in connection.scalars(sa.text("select payload from outbox.events"))]


@pytest.mark.timeout(180)
def test_a_task_that_is_tried_again_leaves_one_event(worker: Worker, database_url: str) -> None:
    worker.ask_for("ship_and_lose_the_carrier", 1)
    worker.ask_for("ship_and_die", 2)
    worker.ask_for("fail_before_the_commit", 3)
    worker.ask_for("ship", 4)

    def done() -> bool:
        tried = [len(worker.tries(order)) for order in (1, 2, 3)]
        return tried == [2, 2, 1] and 4 in events(database_url) and worker.process.text.count(" succeeded in ") == 3

    worker.wait_until(done)
    assert sorted(events(database_url)) == [1, 2, 4]
    first, second = worker.tries(2)
    assert first != second, "it died, and another process tried again"
    assert worker.process.pid not in (first, second), "the pool was forked"
