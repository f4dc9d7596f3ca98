"""Plans of bulk operations: each step touches a bounded number of pages, whatever the statistics say."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from relay.store.bulk_pages import BATCH, PHASES
from tests.integration.engine.test_plans import full_url, unharmed  # noqa: F401 - a fixture
from tests.integration.engine.world import PlanWatch, World, uuid_of

pytestmark = [pytest.mark.anyio, pytest.mark.case("D5")]

ME = uuid.uuid4()


@pytest.fixture
def full(full_url: str) -> Iterator[World]:  # noqa: F811
    world = World(full_url)
    world.rows("truncate outbox.bulk_operations")
    yield world
    world.close()


@pytest.fixture
async def watch(full: World) -> AsyncIterator[PlanWatch]:
    watch = PlanWatch(full.url)
    yield watch
    await watch.store.close()


def start(world: World, kind: str, subscription: bytes | None, phase: str = "", **parameters: Any) -> None:
    world.rows(
        "insert into outbox.bulk_operations (kind, subscription_id, parameters, phase, rate, after_seq)"
        " values (%s, %s, %s, %s, %s, 20000)",  # the first 20,000 events are pending
        kind, None if subscription is None else uuid_of(subscription), json.dumps(parameters),
        phase or PHASES[kind][0], 100_000,
    )  # fmt: skip
    world.rows("update outbox.bulk_operations set state = 'running'")


async def test_to_look_whether_an_operation_runs(full: World, watch: PlanWatch) -> None:
    full.rows(
        "insert into outbox.bulk_operations (kind, phase, state)"
        " select 'redrive', 'dead', 'done' from generate_series(1, 5000)"
    )
    await watch.begin()
    assert await watch.store.claim_bulk(ME) is None
    unharmed(watch, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "phase", "looked", "made"),
    [("redrive", "dead", 2_000, BATCH), ("recover", "waiting", 2_000, BATCH), ("backfill", "events", 2_000, BATCH)],
)
async def test_a_batch_of_each_phase(
    full: World, watch: PlanWatch, kind: str, phase: str, looked: int, made: int
) -> None:
    """Of 30,000 dead letters, 300,000 deliveries, 30,000 events with an attempt each."""
    mine = full.subscribe("*") if phase == "events" else None
    if phase == "waiting":
        mine = bytes(full.value("select subscription_id from outbox.deliveries where lease is null limit 1").bytes)
    if phase == "dead":
        full.rows("update outbox.dead_letters set subscription_id = (select id from outbox.subscriptions limit 1)")
        full.rows("vacuum outbox.dead_letters")
    start(full, kind, mine, phase)
    if phase == "waiting":
        full.rows("delete from outbox.attempts where at > now() + interval '1 hour'")
    await watch.begin()
    work = await watch.store.claim_bulk(ME)
    assert work is not None
    unharmed(watch, 10_100 if phase == "waiting" else 200, 10_100)  # it counts the first 10,000 that wait
    await watch.begin()
    page = await watch.store.read_bulk(work, looked)
    assert len(page.to_put_back) == made
    unharmed(watch, looked * 20, 30_000)  # by such statistics it may sort all that the operation has left
    await watch.begin()
    moved = await watch.store.put_back_bulk(ME, work, page.to_put_back, 0, page.left)
    assert moved.made == made
    unharmed(watch, made * 100)
