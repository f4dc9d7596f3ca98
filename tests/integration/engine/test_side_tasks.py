"""What an engine does beside poll, claim and fan_out may fail for ever: deliveries go on."""

from __future__ import annotations

import psycopg
import pytest

from relay.engine import side_tasks
from relay.engine.side_tasks import SideTasks
from tests.integration.engine.world import FarEnd, World, running
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "task"),
    [
        ("alter table outbox.bulk_operations rename to lost", "bulk operations"),
        ("alter table outbox.health rename column probe_at to lost", "the look at breakers"),
        ("alter table outbox.poller rename to lost", "the turn to poll"),
    ],
)
async def test_deliveries_go_on_where_a_side_task_finds_its_table_damaged(
    own_world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture, damage: str, task: str
) -> None:
    own_world.subscribe()
    async with running(own_world.url, far_end) as relay:
        await await_until(lambda: relay.feeder.steps > 0)
        own_world.rows(damage)
        await await_until(lambda: f"{task} failed" in caplog.text)
        own_world.record(count=3)
        await await_until(lambda: own_world.count("attempts", "verdict = 'delivered'") == 3)


async def test_one_that_failed_is_left_out_for_a_second_and_said_once_in_ten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried, now = 0, 1000.0

    async def task() -> None:
        nonlocal tried
        tried += 1
        raise psycopg.errors.InsufficientPrivilege("no right")

    async def well() -> bool:
        return True

    monkeypatch.setattr(side_tasks.time, "monotonic", lambda: now)
    side = SideTasks()
    for _ in range(100):
        assert not await side.run("one", task)
        assert await side.run("other", well)
        now += 0.1
    assert (tried, len(caplog.records)) == (10, 1)


async def test_a_database_that_is_away_is_no_matter_of_one_task() -> None:
    async def task() -> None:
        raise psycopg.errors.AdminShutdown("terminating connection")

    with pytest.raises(psycopg.errors.AdminShutdown):
        await SideTasks().run("one", task)
