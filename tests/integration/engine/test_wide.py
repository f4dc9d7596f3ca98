"""One event that very many subscriptions match: the server makes its deliveries, and no id comes to the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from relay.store.wide import WIDE_FROM
from tests.integration.engine.world import FarEnd, World, running, stepping
from tests.support import databases
from tests.support.waiting import await_until

if TYPE_CHECKING:
    from relay.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("wide")]  # they share what takes long to make

MANY = WIDE_FROM + 500
SUBSCRIBE = """
with made as (
    insert into outbox.subscriptions (url, types, tenant)
    select 'http://127.0.0.1/' || i, '{a.b}', %s from generate_series(1, %s) i returning id)
insert into outbox.secrets (subscription_id, secret)
select id, 'whsec_' || encode(sha256(id::text::bytea), 'base64') from made
"""


@pytest.fixture(scope="module")
def crowded(server_url: str, migrated_template: str) -> Iterator[str]:
    """The name of a database with MANY subscriptions to a.b that nobody is connected to."""
    with databases.database(server_url, template=migrated_template) as url:
        world = World(url)
        world.rows(SUBSCRIBE, "", MANY)
        world.close()
        yield str(make_url(url).database)


@pytest.fixture
def world(server_url: str, crowded: str) -> Iterator[World]:
    """A copy of it."""
    with databases.database(server_url, template=crowded) as url:
        world = World(url)
        yield world
        world.close()


@pytest.mark.field("F10")
@pytest.mark.field("F78")
async def test_an_event_for_very_many_reaches_each_of_them_once(world: World, far_end: FarEnd) -> None:
    world.subscribe("other")
    (seq,) = world.record("a.b")
    others = world.record("other", 3)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: world.count("attempts") == MANY + 3)
        await relay.settled()
    assert len(far_end.requests) == MANY + 3
    assert world.count("deliveries") == 0
    assert world.matches() == {seq: MANY} | dict.fromkeys(others, 1)


async def test_no_match_is_brought_to_the_process(world: World, far_end: FarEnd) -> None:
    world.record("a.b")
    async with stepping(world.url, far_end) as relay:
        await relay.feeder.fan_out.run(-1)
        if world.count("pending"):  # the first take only told that it is wide
            await relay.feeder.fan_out.run(-1)
        assert world.count("deliveries", "lease is null") == MANY
        assert len(relay.endpoints) == 0
        assert len(relay.feeder.due) == 0


async def test_two_events_for_very_many_are_resolved_one_after_the_other(world: World, store: Store) -> None:
    first, second = world.record("a.b", 2)
    async with store.fan_out(-1, 500, 1_000_000) as batch:
        assert batch.is_wide
        assert [len(batch.matches_of(taken)) for taken in batch.taken] == [WIDE_FROM + 1] * 2, "and no more"
    async with store.fan_out(-1, 500, 1_000_000, up_to_seq=first) as batch:
        assert await batch.resolve_wide(1800) == MANY
    assert world.count("pending", "event_seq = %s", second) == 1
    assert world.value("select distinct boost_seconds from outbox.deliveries") == 1800
    assert world.count("deliveries", "due_at < now() - interval '29 minutes'") == MANY


@pytest.mark.parametrize("special", ["ordered = true", """filter = '{"payload":{"a":1}}'"""])
async def test_where_one_has_a_filter_or_order_each_match_is_looked_at(
    world: World, far_end: FarEnd, special: str
) -> None:
    world.rows(f"update outbox.subscriptions set {special} where url = 'http://127.0.0.1/7'")
    matches = MANY - special.startswith("filter")
    (seq,) = world.record("a.b", key="k", payload='{"a": 2}')
    async with running(world.url, far_end):
        await await_until(lambda: world.matches() == {seq: matches})
    assert world.count("deliveries", "lane is not null") <= 1


async def test_where_all_are_looked_at_the_next_events_are_taken_together(world: World, far_end: FarEnd) -> None:
    world.rows("update outbox.subscriptions set ordered = true where url = 'http://127.0.0.1/7'")
    events = world.record("a.b", 4)
    async with stepping(world.url, far_end) as relay:
        for _ in range(4):
            await relay.feeder.fan_out.run(-1)
    assert world.matches() == dict.fromkeys(events, MANY)
    assert world.count("resolutions") < len(events), "one batch of several"


async def test_a_pause_a_later_time_and_another_tenant_count_as_ever(world: World, store: Store) -> None:
    world.rows(SUBSCRIBE, "other", 10)
    world.rows("update outbox.subscriptions set paused_at = now() where url = 'http://127.0.0.1/1'")
    world.rows(
        "update outbox.subscriptions set paused_at = now(), drops_while_paused = true where url = 'http://127.0.0.1/2'"
    )
    world.record("a.b", available_at="2100-01-01Z")
    async with store.fan_out(-1, 1, 1_000_000) as batch:
        assert await batch.resolve_wide(None) == MANY - 1
    assert world.count("deliveries", "due_at = '2100-01-01Z'") == MANY - 1
    assert world.rows(
        "select distinct s.tenant from outbox.deliveries d join outbox.subscriptions s on s.id = d.subscription_id"
    ) == [("",)]


async def test_what_is_not_committed_is_taken_again(world: World, store: Store) -> None:
    (seq,) = world.record("a.b")
    async with store.fan_out(-1, 1, 1_000_000) as batch:
        assert batch.taken[0].seq == seq
    assert world.count("pending") == 1
    assert world.count("deliveries") == 0
