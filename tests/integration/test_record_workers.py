"""record() in workers: a task that is tried again records one event, and forked processes share nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import dramatiq
import pytest
import sqlalchemy as sa
from celery import Celery
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Retries
from sqlalchemy.orm import Session

import outbox
from tests.support.recording import Order, emptied, engine_of, recorded, shop_database

FORKING = """
import os, sys, uuid
import sqlalchemy as sa
from celery import signals
from sqlalchemy.orm import Session
import outbox

engine = sa.create_engine(sys.argv[1])

@signals.worker_process_init.connect
def forget_the_parents_connections(**_):
    engine.dispose(close=False)

def place_orders(who, count):
    for number in range(count):
        with Session(engine) as session:
            outbox.record(session, "order.placed", {"who": who, "number": number})
            session.commit()

place_orders("parent", 1)
children = []
for child in range(2):
    if not (pid := os.fork()):
        signals.worker_process_init.send(sender=None)  # as Celery does in each process of its pool
        place_orders(f"child {child}", 3)
        os._exit(0)
    children.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
place_orders("parent", 1)
engine.dispose()
"""


@pytest.fixture(scope="module")
def shared_url(server_url: str, migrated_template: str) -> Iterator[str]:
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url: str) -> str:
    return emptied(shared_url)


@pytest.fixture
def shop(database_url: str) -> Iterator[sa.Engine]:
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


class Tries:
    """Ships an order, and dies after the commit of its first try: the worker then tries the whole task again."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine, self.made = engine, 0

    def ship(self, order: int) -> None:
        self.made += 1
        with Session(self._engine) as session, session.begin():
            session.add(Order())
            outbox.record(session, "order.shipped", {"id": order}, idempotency_key=f"ship-{order}")
        if self.made == 1:
            raise ConnectionError("the broker went away")


def test_a_celery_task_that_is_tried_again_records_once(shop: sa.Engine, database_url: str) -> None:
    app, tries = Celery("shop", broker="memory://", backend="cache+memory://"), Tries(shop)
    app.conf.update(task_always_eager=True)

    @app.task(name="ship", autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=3)
    def ship(order: int) -> None:
        tries.ship(order)

    ship.delay(7).get()
    ship.delay(8).get()
    app.close()
    assert tries.made == 3
    assert [row.payload for row in recorded(database_url)] == ['{"id":7}', '{"id":8}']


def test_a_dramatiq_actor_that_is_tried_again_records_once(shop: sa.Engine, database_url: str) -> None:
    broker, tries = StubBroker(middleware=[Retries(min_backoff=1, max_backoff=1)]), Tries(shop)

    @dramatiq.actor(broker=broker, max_retries=3)
    def ship(order: int) -> None:
        tries.ship(order)

    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    try:
        ship.send(9)
        broker.join(ship.queue_name, timeout=20_000)
        worker.join()
    finally:
        worker.stop()
        broker.close()
    assert tries.made == 2
    assert [row.payload for row in recorded(database_url)] == ['{"id":9}']


def test_a_task_that_fails_before_its_commit_records_nothing(shop: sa.Engine, database_url: str) -> None:
    app = Celery("shop", broker="memory://")
    app.conf.update(task_always_eager=True)

    @app.task(name="fail")
    def fail() -> None:
        with Session(shop) as session, session.begin():
            outbox.record(session, "order.shipped", {"id": 1})
            raise ValueError

    assert fail.delay().failed()
    app.close()
    assert recorded(database_url) == []


def test_forked_processes_record_with_connections_and_ids_of_their_own(database_url: str) -> None:
    url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, url], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    rows = recorded(database_url)
    assert len({row.id for row in rows}) == len(rows) == 8
    wanted = [f'{{"who":"child {child}","number":{number}}}' for child in range(2) for number in range(3)]
    assert sorted(row.payload for row in rows[1:-1]) == wanted
