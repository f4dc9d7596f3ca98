"""Plans of lanes: a deep lane costs no other, whatever the statistics say. Pages touched are bounded, not time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from relay.store.lanes import FIRST_LANE, find_busy
from tests.integration.engine.world import PlanWatch, World, uuid_of
from tests.support import databases

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.case("B12"),
    pytest.mark.xdist_group("lane plans"),  # its databases are filled once
]

DEEP = 50_000  # rows of one lane
LANES = 5_000  # with a head and one parked row each

INTO = "insert into outbox.deliveries (id, event_seq, subscription_id, due_at, lane)"
HEADS = f"{INTO} select outbox.uuid7(), n, %s, now() + n * interval '1 ms', n from generate_series(1, {LANES}) n"
PARKED = f"{INTO} select outbox.uuid7(), {LANES} + n, %s, 'infinity', n from generate_series(1, {LANES}) n"
DEEPER = f"{INTO} select outbox.uuid7(), {2 * LANES} + n, %s, 'infinity', 0 from generate_series(1, {DEEP}) n"


@pytest.fixture(scope="module", params=["of an empty table", "of heads only", "of today"])
def filled(request: pytest.FixtureRequest, server_url: str, migrated_template: str) -> Iterator[tuple[str, bytes]]:
    """A database with statistics of another day; autovacuum would hide what is tested, so it is off."""
    with databases.database(server_url, template=migrated_template) as url:
        world = World(url)
        world.rows("alter table outbox.deliveries set (autovacuum_enabled = off)")
        world.rows("analyze outbox.deliveries")
        subscription = world.subscribe(ordered=True)
        world.rows(HEADS, uuid_of(subscription))
        if request.param != "of an empty table":
            world.rows("analyze outbox.deliveries")
        world.rows(PARKED, uuid_of(subscription))
        world.rows(DEEPER, uuid_of(subscription))
        if request.param == "of today":
            world.rows("analyze outbox.deliveries")
        world.close()
        yield url, subscription


@pytest.fixture
async def watch(filled: tuple[str, bytes]) -> AsyncIterator[PlanWatch]:
    watch = PlanWatch(filled[0])
    await watch.begin()
    yield watch
    await watch.store.close()


async def test_a_look_at_a_hundred_lanes_and_the_deep_one(watch: PlanWatch, filled: tuple[str, bytes]) -> None:
    """The deep lane has no head."""
    _, subscription = filled
    due = await watch.store.look([(subscription, lane) for lane in range(100)])
    assert len(due) <= 1
    assert watch.seq_scans() == []
    assert watch.buffers <= 100 * 15


async def test_whether_lanes_are_busy(watch: PlanWatch, filled: tuple[str, bytes]) -> None:
    _, subscription = filled
    lanes = [(subscription, lane) for lane in (0, 1, 2, LANES + 1, LANES + 2)]
    connection = await watch.store.connect()
    async with connection.transaction():
        await connection.execute("set local enable_seqscan = off")
        busy = await find_busy(connection, lanes)
    assert busy == set(lanes[:3])
    assert watch.seq_scans() == []
    assert watch.buffers <= 5 * 20


async def test_a_slice_of_the_sweep_steps_over_the_deep_lane(watch: PlanWatch, filled: tuple[str, bytes]) -> None:
    await watch.store.sweep_lanes(FIRST_LANE, 100)
    assert watch.seq_scans() == []
    assert watch.buffers <= 100 * 20


async def test_a_claim_does_not_come_by_what_is_parked(watch: PlanWatch, filled: tuple[str, bytes]) -> None:
    _, subscription = filled
    assert await watch.store.claim([(subscription, 10)], 10, 10**9, 1) is not None
    assert watch.seq_scans() == []
    assert watch.buffers <= 10 * 40
