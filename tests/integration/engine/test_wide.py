"""One event that very many subscriptions match: the server makes its deliveries, and no id comes to the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import make_url

from relay.engine import compiled_filters
from relay.engine.filtering import Filtering
from relay.store.fan_out import TakenBatch
from relay.store.fan_out_wide import WIDE_FROM
from relay.store.filters import Answers
from tests.integration.engine.world import FarEnd, World, running, stepping
from tests.support import databases
from tests.support.waiting import await_until

if TYPE_CHECKING:
    from relay.store.fan_out_wide import WideBirths
    from relay.store.filters import Look
    from relay.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("wide")]  # they share what takes long to make

MANY = WIDE_FROM + 500
MATCHING, OTHER = '{"payload":{"a":2}}', '{"payload":{"a":3}}'
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


@pytest.mark.slow
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
        assert (await batch.resolve_wide(1800, Answers(), may_order=False)).made == MANY
    assert world.count("pending", "event_seq = %s", second) == 1
    assert world.value("select distinct boost_seconds from outbox.deliveries") == 1800
    assert world.count("deliveries", "due_at < now() - interval '29 minutes'") == MANY


SOME = "right(url, 1) = '0'"  # of MANY, a tenth


def ask_for(world: World, where: str, *filters: str) -> None:
    """Give the subscriptions these filters in turn."""
    world.rows(
        "update outbox.subscriptions s set filter = (%s::text[])[1 + n.place %% %s] from ("
        f" select id, row_number() over (order by id) as place from outbox.subscriptions where {where}) n"
        " where n.id = s.id",
        list(filters),
        len(filters),
    )


def order(world: World, where: str) -> None:
    """Let these have order, as if there had been no backlog to sort."""
    world.rows(f"update outbox.subscriptions set ordered = true where {where}")
    world.rows("update outbox.subscriptions set sorting_since = null")


def got(world: World) -> set[bytes]:
    return {row[0].bytes for row in world.rows("select subscription_id from outbox.deliveries")}


def wanting(world: World, where: str) -> set[bytes]:
    return {row[0].bytes for row in world.rows(f"select id from outbox.subscriptions where {where}")}


async def test_filters_are_asked_by_their_hash_and_the_server_picks_who_has_one(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many have a filter: never are more matches brought than tell that there are very many."""
    brought = matches_brought(monkeypatch)
    ask_for(world, SOME, MATCHING, OTHER)
    (seq,) = world.record("a.b", payload='{"a": 2}')
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
        assert got(world) == wanting(world, f"filter is null or filter = '{MATCHING}'")
        assert world.matches() == {seq: MANY - MANY // 20}
        assert len(relay.endpoints) == len(relay.feeder.due) == 0
    assert max(brought) == WIDE_FROM + 1


@pytest.mark.slow
async def test_of_filters_of_very_many_the_few_that_match_are_born_as_ever(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where few of very many get it, each event after the first is one of a batch, and the others are not told."""
    brought = matches_brought(monkeypatch)
    ask_for(world, "true", OTHER)
    ask_for(world, SOME, MATCHING)
    events = world.record("a.b", 8, payload='{"a": 2}')
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    assert world.matches() == dict.fromkeys(events, MANY // 10)
    assert got(world) == wanting(world, SOME)
    assert world.count("resolutions") < len(events), "batches of several"
    assert brought[-1] == MANY // 10


async def test_a_filter_that_is_new_between_two_takes_is_asked_too(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for(world, SOME, MATCHING)
    world.record("a.b", payload='{"a": 2}')
    real = Filtering.ask_wanted

    async def change_then_ask(self: Filtering) -> Look:
        look = await real(self)
        ask_for(world, "right(url, 1) = '3'", OTHER)
        return look

    monkeypatch.setattr(Filtering, "ask_wanted", change_then_ask)
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    assert got(world) == wanting(world, f"filter is null or filter = '{MATCHING}'")


async def test_whose_filter_came_to_no_result_is_noted(world: World, far_end: FarEnd) -> None:
    ask_for(world, SOME, '{"no": {"filter": 1}}')
    (seq,) = world.record("a.b")
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    assert world.matches() == {seq: MANY - MANY // 10}
    ((seqs, subscriptions),) = world.rows("select gave_up_seqs, gave_up_subscriptions from outbox.resolutions")
    assert seqs == [seq] * (MANY // 10)
    assert {one.bytes for one in subscriptions} == wanting(world, SOME)


@pytest.mark.slow
async def test_an_event_about_a_subscription_does_not_go_to_it(world: World, store: Store) -> None:
    about = world.value("select outbox.text_id('sub', id) from outbox.subscriptions where url = 'http://127.0.0.1/7'")
    world.rows("update outbox.subscriptions set types = '{relay.x}'")
    world.rows("insert into outbox.events (seq, type, key, payload) values (7, 'relay.x', %s, '1')", about)
    async with store.fan_out(-1, 1, 1_000_000) as batch:
        assert batch.is_wide
        await batch.resolve_wide(None, Answers(), may_order=False)
    assert got(world) == wanting(world, f"id <> outbox.uuid_of('{about}')")


async def test_order_is_kept_by_the_server_too(world: World, far_end: FarEnd) -> None:
    """The first of a key goes at once; the second waits behind it, until that is gone."""
    order(world, SOME)
    first, second = world.record("a.b", 2, key="k")
    world.record("a.b", 1)
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    ordered = f"subscription_id in (select id from outbox.subscriptions where {SOME})"
    heads, parked = "isfinite(due_at) and lane is not null", "due_at = 'infinity' and lane is not null"
    assert world.count("deliveries", f"event_seq = %s and {ordered} and {heads}", first) == MANY // 10
    assert world.count("deliveries", f"event_seq = %s and {ordered} and {parked}", second) == MANY // 10
    assert world.count("deliveries", "lane is null") == 3 * MANY - 2 * (MANY // 10)


@pytest.mark.slow
async def test_a_lane_that_was_left_while_an_event_was_parked_in_it_is_looked_at(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heads go between the statement that parks and its commit: nobody else looks at these lanes."""
    order(world, SOME)
    first, second = world.record("a.b", 2, key="k")
    resolve_wide = TakenBatch.resolve_wide
    resolved = 0

    async def resolve_then_settle(self: TakenBatch, *args: Any, **kwargs: Any) -> WideBirths:
        nonlocal resolved
        births = await resolve_wide(self, *args, **kwargs)
        resolved += births.made > 0
        if resolved == 2:
            world.rows("delete from outbox.deliveries where event_seq = %s", first)
        return births

    monkeypatch.setattr(TakenBatch, "resolve_wide", resolve_then_settle)
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    assert world.count("deliveries", "event_seq = %s and isfinite(due_at)", second) == MANY


@pytest.mark.slow
async def test_above_a_mark_nothing_is_put_into_a_lane(world: World, store: Store) -> None:
    """An earlier event of the key may lie below."""
    order(world, "url = 'http://127.0.0.1/7'")
    _, second = world.record("a.b", 2, key="k")
    async with store.fan_out(second - 1, 1, 1_000_000) as batch:
        births = await batch.resolve_wide(None, Answers(), may_order=False)
        assert births.unordered
    assert world.count("deliveries") == world.count("resolutions") == 0
    assert world.count("pending") == 2


@pytest.mark.slow
async def test_more_filters_than_are_kept_compiled_say_the_same(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_filters, "COUNT_MAX", 100)
    monkeypatch.setattr(compiled_filters, "READ_AT_ONCE", 7)
    ask_for(world, "true", *(f'{{"payload":{{"a":{n}}}}}' for n in range(150)), '{"payload":{"a":{"$gt":1}}}')
    world.record("a.b", payload='{"a": 2}')
    async with stepping(world.url, far_end) as relay:
        while world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    assert got(world) == wanting(world, """filter in ('{"payload":{"a":2}}', '{"payload":{"a":{"$gt":1}}}')""")


def matches_brought(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that takes how many matches each take brings."""
    brought: list[int] = []
    init = TakenBatch.__init__

    def count(self: TakenBatch, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        brought.extend(len(matches) for matches in self.matches.values())

    monkeypatch.setattr(TakenBatch, "__init__", count)
    return brought


async def test_a_pause_a_later_time_and_another_tenant_count_as_ever(world: World, store: Store) -> None:
    world.rows(SUBSCRIBE, "other", 10)
    world.rows("update outbox.subscriptions set paused_at = now() where url = 'http://127.0.0.1/1'")
    world.rows(
        "update outbox.subscriptions set paused_at = now(), drops_while_paused = true where url = 'http://127.0.0.1/2'"
    )
    world.record("a.b", available_at="2100-01-01Z")
    async with store.fan_out(-1, 1, 1_000_000) as batch:
        assert (await batch.resolve_wide(None, Answers(), may_order=False)).made == MANY - 1
    assert world.count("deliveries", "due_at = '2100-01-01Z'") == MANY - 1
    assert world.rows(
        "select distinct s.tenant from outbox.deliveries d join outbox.subscriptions s on s.id = d.subscription_id"
    ) == [("",)]


async def test_who_drops_what_comes_hides_from_nobody_that_an_event_is_wide(world: World, far_end: FarEnd) -> None:
    world.rows(f"update outbox.subscriptions set paused_at = now(), drops_while_paused = true where {SOME}")
    world.record("a.b")
    async with stepping(world.url, far_end) as relay:
        await relay.feeder.fan_out.run(-1)
        if world.count("pending"):
            await relay.feeder.fan_out.run(-1)
    assert got(world) == wanting(world, f"not {SOME}")


async def test_what_is_not_committed_is_taken_again(world: World, store: Store) -> None:
    (seq,) = world.record("a.b")
    async with store.fan_out(-1, 1, 1_000_000) as batch:
        assert batch.taken[0].seq == seq
    assert world.count("pending") == 1
    assert world.count("deliveries") == 0
