"""Filters in fan_out: who gets an event, by what is in it; no payload is read under a lock, nobody else is harmed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from outbox.subscriptions.filters import Filter, FilterSet, event, operators, parse
from relay.engine import asking, filtering, pace
from relay.store.fan_out import MAX_SEQ
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, Relay, World, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

LARGE = {"payload": {"total": {"$gte": 100}}}
SMALL = {"payload": {"total": {"$lt": 100}}}


def totals(far_end: FarEnd, path: str) -> list[int]:
    return [json.loads(body)["data"]["total"] for to, _, body in far_end.requests if to == path]


def record(world: World, *numbers: int, **more: Any) -> list[int]:
    return [seq for number in numbers for seq in world.record(payload=json.dumps({"total": number}), **more)]


@pytest.fixture
async def relay(world: World, far_end: FarEnd) -> AsyncIterator[Relay]:
    async with stepping(world.url, far_end) as relay:
        yield relay


@pytest.fixture(autouse=True, params=[256, 1], ids=["few", "many"])
def pass_over_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every test holds where the take tells all filters, and where it passes over those that match nothing."""
    monkeypatch.setattr(filtering, "PASS_OVER_FROM", request.param)
    return int(request.param)


async def resolve(relay: Relay, world: World) -> None:
    while world.count("pending"):
        await relay.look()
    await relay.settled()


async def test_a_subscription_gets_what_its_filter_lets_through_and_nothing_else(
    world: World, far_end: FarEnd, relay: Relay
) -> None:
    world.subscribe(path="/large", filter=LARGE)
    world.subscribe(path="/small", filter=SMALL)
    world.subscribe(path="/all")
    world.subscribe(path="/none", filter={"payload": {"total": "100"}})
    seqs = record(world, 1, 100, 99, 1000)
    await resolve(relay, world)
    assert totals(far_end, "/large") == [100, 1000]
    assert totals(far_end, "/small") == [1, 99]
    assert totals(far_end, "/all") == [1, 100, 99, 1000]
    assert totals(far_end, "/none") == []
    assert world.matches() == dict.fromkeys(seqs, 2), "what is left after the filters"
    assert world.count("deliveries") == 0


async def test_filters_by_type_and_key_and_of_the_operator_are_asked_too(
    world: World, far_end: FarEnd, relay: Relay
) -> None:
    world.subscribe("order.*", path="/type", filter={"type": {"$endsWith": "paid"}})
    world.subscribe("*", path="/operator", tenant="*", filter={"key": {"$in": ["k-1", "k-2"]}})
    world.rows(
        "insert into outbox.events (type, key, tenant, payload) values"
        " ('order.paid', 'k-1', '', '1'), ('order.sent', 'k-3', '', '2'), ('order.paid', 'k-2', 'acme', '3')"
    )
    await resolve(relay, world)
    assert sorted((to, json.loads(body)["data"]) for to, _, body in far_end.requests) == [
        ("/operator", 1),
        ("/operator", 3),
        ("/type", 1),
    ]


async def test_a_payload_is_parsed_once_and_only_where_somebody_asks_for_it(
    world: World, far_end: FarEnd, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    read = event.read_payload
    monkeypatch.setattr(event, "read_payload", lambda text: (parsed.append(text), read(text))[1])
    for number in range(20):
        world.subscribe("order.paid", path=f"/{number}", filter={"payload": {"total": number}})
    world.subscribe("user.made", filter={"type": "user.made"})
    world.subscribe("plain")
    record(world, 3, 4, event_type="order.paid")
    record(world, 5, event_type="user.made")
    record(world, 6, event_type="plain")
    await resolve(relay, world)
    assert parsed == ['{"total": 3}', '{"total": 4}']
    assert len(far_end.requests) == 4


async def test_a_plain_batch_asks_the_database_nothing_more(
    world: World, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> Any:
        raise AssertionError("asked")

    for verb in ("find_ahead", "read_filters", "read_bodies"):
        monkeypatch.setattr(relay.engine.feed_store, verb, refuse)
    world.subscribe()
    record(world, 1, 2)
    await resolve(relay, world)
    assert world.count("attempts") == 2


async def test_once_filters_are_known_events_are_asked_before_they_are_taken(
    world: World, far_end: FarEnd, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes: list[int] = []
    apply = filtering.Filtering.apply
    monkeypatch.setattr(filtering.Filtering, "apply", lambda self, batch: (takes.append(1), apply(self, batch))[1])
    world.subscribe(path="/large", filter=LARGE)
    record(world, 1, 100)
    await resolve(relay, world)
    assert len(takes) == 2, "the first take shows the filter"
    takes.clear()
    record(world, 2, 200)
    await resolve(relay, world)
    assert len(takes) == 1
    assert totals(far_end, "/large") == [100, 200]


async def test_a_payload_is_never_read_while_the_turn_is_held(
    world: World, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session gets the turn at once whenever payloads or filters are read."""
    reads = 0

    def watched(verb: str) -> None:
        real = getattr(relay.engine.feed_store, verb)

        async def watch(*arguments: Any) -> Any:
            nonlocal reads
            with psycopg.connect(world.url) as other:
                other.execute("select from outbox.turns where name = 'fan_out' for update nowait")
            reads += 1
            return await real(*arguments)

        monkeypatch.setattr(relay.engine.feed_store, verb, watch)

    watched("read_bodies")
    watched("read_filters")
    world.subscribe(filter=LARGE)
    record(world, 1, 100)
    await resolve(relay, world)
    record(world, 2, 200)
    await resolve(relay, world)
    assert reads == 3
    assert world.count("attempts") == 2


async def test_what_was_read_for_the_filter_is_not_read_again_to_be_sent(
    world: World, far_end: FarEnd, relay: Relay
) -> None:
    world.subscribe(path="/large", filter=LARGE)
    record(world, 100)
    known: list[Any] = []
    end = relay.feeder.fan_out.filters.end
    relay.feeder.fan_out.filters.end = lambda batch, bodies: (known.append(dict(bodies.events)), end(batch, bodies))[1]  # type: ignore[method-assign]
    await resolve(relay, world)
    assert known == [{}]
    assert totals(far_end, "/large") == [100]
    assert not relay.feeder.fan_out.filters.bodies


@pytest.mark.parametrize("change", ["filter", "removed", "added", "taken away"])
async def test_the_take_says_which_filter_a_subscription_has(
    world: World, far_end: FarEnd, relay: Relay, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What changes between the look ahead and the take counts: no answer of an old filter is used."""
    identity = world.subscribe(path="/it", filter=LARGE)
    record(world, 1)
    await resolve(relay, world)
    real = relay.feeder.fan_out.filters.look_ahead

    async def look_and_change(*arguments: Any) -> Any:
        result = await real(*arguments)
        if not changed:
            changed.append(1)
            if change == "added":
                world.subscribe(path="/new", filter=SMALL)
            else:
                value = {"filter": f"filter = '{json.dumps(SMALL)}'", "removed": "removed_at = now()"}
                of_it = value.get(change, "filter = null")
                world.rows(f"update outbox.subscriptions set {of_it} where id = %s", uuid_of(identity))
        return result

    changed: list[int] = []
    monkeypatch.setattr(relay.feeder.fan_out.filters, "look_ahead", look_and_change)
    record(world, 2, 200)
    await resolve(relay, world)
    assert changed
    expected = {"filter": [2], "removed": [], "added": [200], "taken away": [2, 200]}
    assert totals(far_end, "/it") == expected[change]
    assert totals(far_end, "/new") == ([2] if change == "added" else [])


async def test_a_filter_that_is_passed_over_counts_again_for_the_next_event_and_the_next_subscription(
    world: World, far_end: FarEnd, relay: Relay
) -> None:
    """The same filter on another kind, and on one more subscription, while it is among those passed over."""
    world.subscribe("a.b", path="/large", filter=LARGE)
    world.subscribe("a.b", path="/small", filter=SMALL)
    for number in (1, 100):
        record(world, number)
        await resolve(relay, world)
    world.subscribe("a.b", path="/large-too", filter=LARGE)
    world.subscribe("c.d", path="/other", filter=LARGE)
    record(world, 2, 3)
    record(world, 200, event_type="c.d")
    await resolve(relay, world)
    record(world, 300)
    await resolve(relay, world)
    assert totals(far_end, "/large") == [100, 300]
    assert totals(far_end, "/large-too") == [300]
    assert totals(far_end, "/small") == [1, 2, 3]
    assert totals(far_end, "/other") == [200]


async def test_rows_of_filters_that_match_nothing_are_not_told(
    world: World, relay: Relay, monkeypatch: pytest.MonkeyPatch, pass_over_from: int
) -> None:
    told: list[int] = []
    apply = filtering.Filtering.apply

    def count(self: filtering.Filtering, batch: Any) -> bool:
        told.append(sum(map(len, batch.matches.values())))
        return apply(self, batch)

    monkeypatch.setattr(filtering.Filtering, "apply", count)
    for number in range(20):
        world.subscribe(filter={"payload": {"total": number}})
    record(world, 1)
    await resolve(relay, world)
    record(world, 2, 3)
    await resolve(relay, world)
    assert told == [20, 20, 20 if pass_over_from > 20 else 2]
    assert world.count("attempts") == 3


async def test_an_event_that_commits_between_look_and_take_is_asked_too(
    world: World, far_end: FarEnd, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.subscribe(path="/large", filter=LARGE)
    record(world, 1)
    await resolve(relay, world)
    real = relay.feeder.fan_out.filters.look_ahead
    with world.open() as writer:
        record(world, 300, connection=writer)  # a lower number, committed late

        async def look_and_commit(*arguments: Any) -> Any:
            result = await real(*arguments)
            writer.commit()
            return result

        monkeypatch.setattr(relay.feeder.fan_out.filters, "look_ahead", look_and_commit)
        record(world, 2, 200)
        await resolve(relay, world)
    assert sorted(totals(far_end, "/large")) == [200, 300]


async def test_behind_a_backlog_each_tenant_and_each_urgent_event_is_asked_too(
    world: World, far_end: FarEnd, relay: Relay
) -> None:
    """A take that is shared out between tenants and priorities finds other events than the oldest."""
    for tenant in ("", "acme", "globex"):
        world.subscribe(path=f"/large{tenant}", filter=LARGE, tenant=tenant)
        world.subscribe(path=f"/small{tenant}", filter=SMALL, tenant=tenant)
    for tenant in ("", "acme", "globex"):
        record(world, *range(50, 150), tenant=tenant)
    world.rows(
        "insert into outbox.events (type, priority, payload)"
        " select 'a.b', 3, json_build_object('total', n)::text from generate_series(150, 169) n"
    )
    await resolve(relay, world)
    while world.count("deliveries"):  # those that were not born leased
        await relay.look()
        await relay.settled()
    for tenant in ("", "acme", "globex"):
        assert sorted(totals(far_end, f"/large{tenant}")) == list(range(100, 150 if tenant else 170))
        assert sorted(totals(far_end, f"/small{tenant}")) == list(range(50, 100))


async def test_after_a_move_to_another_server_no_answer_is_believed(
    world: World, far_end: FarEnd, relay: Relay
) -> None:
    """The same number may be another event there."""
    world.subscribe(path="/large", filter=LARGE)
    record(world, 1)
    await resolve(relay, world)
    (seq,) = record(world, 2)
    await relay.feeder.fan_out.filters.look_ahead(-1, 500, MAX_SEQ, None)
    world.rows("update outbox.events set payload = '{\"total\": 200}' where seq = %s", seq)
    relay.engine.feed_store.origin = ("another",)
    relay.engine.feed_store.may_ask_origin = False
    await resolve(relay, world)
    assert totals(far_end, "/large") == [200]


async def test_large_payloads_are_read_within_the_bytes_that_an_answer_may_bring(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "BYTES_FIRST", 300_000)
    monkeypatch.setattr(pace, "BYTES_MAX", 300_000)
    world.subscribe(path="/large", filter=LARGE)
    for number in range(12):
        world.record(payload=json.dumps({"total": 90 + 2 * number, "note": "x" * 100_000}))
    sizes: list[int] = []
    async with stepping(world.url, far_end) as relay:
        real = relay.engine.feed_store.read_bodies

        async def measured(seqs: Any) -> Any:
            bodies = await real(seqs)
            sizes.append(sum(len(one.payload) for one in bodies.events.values()))
            return bodies

        monkeypatch.setattr(relay.engine.feed_store, "read_bodies", measured)
        await resolve(relay, world)
    assert sorted(totals(far_end, "/large")) == [100, 102, 104, 106, 108, 110, 112]
    assert len(sizes) == 6
    assert max(sizes) <= 300_000


@pytest.mark.case("B31")
@pytest.mark.parametrize("fault", ["raises", "over budget", "no filter"])
async def test_a_filter_that_fails_on_an_event_harms_no_other_subscription(
    world: World, far_end: FarEnd, relay: Relay, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    alternatives = [{"a": number} for number in range(60)]
    bad: Any = {"payload": {"items": {"$or": alternatives}}}
    if fault == "raises":
        bad = {"payload": {"items": {"$contains": "x"}}}

        def fail(*_: Any) -> bool:
            raise RuntimeError

        monkeypatch.setattr(operators.Contains, "holds", fail)
    if fault == "no filter":
        bad = '{"payload": {"items": {"$like": "x"}}}'
    failing = world.subscribe(path="/bad", filter=bad)
    world.subscribe(path="/good", filter=LARGE)
    world.subscribe(path="/plain")
    count = 20_000 if fault == "over budget" else 100  # where it is large, it is asked in another process
    (seq,) = world.record(payload=json.dumps({"total": 100, "items": [{"b": 0}] * count}))
    await resolve(relay, world)
    assert far_end.paths() == ["/plain", "/good"]
    assert world.matches() == {seq: 2}
    pairs = world.rows("select gave_up_seqs, gave_up_subscriptions from outbox.resolutions")
    assert [(seqs, [one.bytes for one in ids]) for seqs, ids in pairs] == [([seq], [failing])]
    record(world, 100)
    await resolve(relay, world)
    assert far_end.paths()[2:] == ["/plain", "/good"], "and the next event goes its way"


async def test_where_nothing_gave_up_the_record_of_it_is_null(world: World, relay: Relay) -> None:
    world.subscribe(filter=LARGE)
    record(world, 1, 100)
    await resolve(relay, world)
    assert world.rows("select gave_up_seqs, gave_up_subscriptions from outbox.resolutions") == [(None, None)]


async def test_an_event_whose_row_is_gone_stops_nobody(world: World, far_end: FarEnd, relay: Relay) -> None:
    world.subscribe(path="/large", filter=LARGE)
    gone, *_ = record(world, 100, 200)
    world.rows("delete from outbox.events where seq = %s", gone)
    await resolve(relay, world)
    assert totals(far_end, "/large") == [200]


async def test_an_event_that_the_database_refuses_to_resolve_is_buried_alone(own_world: World, far_end: FarEnd) -> None:
    """Halving finds it although every batch has filters."""
    own_world.rows("create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$")
    own_world.subscribe(path="/large", filter=LARGE)
    seqs = record(own_world, *range(95, 111))
    refused = seqs[8]
    own_world.rows(
        f"create trigger refuse before insert on outbox.deliveries for each row"
        f" when (new.event_seq = {refused}) execute function refuse()"
    )
    async with stepping(own_world.url, far_end) as relay:
        await resolve(relay, own_world)
    assert sorted(totals(far_end, "/large")) == [total for total in range(100, 111) if total != 103]
    assert own_world.rows("select event_seq, reason from outbox.dead_letters") == [(refused, "unresolvable")]


async def test_a_filter_that_its_first_owner_gives_up_counts_for_the_others(
    world: World, far_end: FarEnd, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the take, which names one subscription for each filter, and the reading of its text."""
    owners = [world.subscribe(path=path, filter=LARGE) for path in ("/one", "/other")]
    real, asked = Store.read_filters, []

    async def give_up_then_read(self: Store, ids: Any) -> dict[bytes, str]:
        if not asked:
            asked.extend(ids)
            world.rows(
                "update outbox.subscriptions set filter = %s where id = %s", json.dumps(SMALL), UUID(bytes=ids[0])
            )
        return await real(self, ids)

    monkeypatch.setattr(Store, "read_filters", give_up_then_read)
    record(world, 500)
    await resolve(relay, world)
    record(world, 600)
    await resolve(relay, world)
    (given_up,) = asked
    kept = "/one" if given_up == owners[1] else "/other"
    assert totals(far_end, kept) == [500, 600]
    assert world.count("resolutions", "gave_up_seqs is not null") == 0


async def test_two_relays_with_filters_send_each_pair_once(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/large", filter=LARGE)
    world.subscribe(path="/small", filter=SMALL)
    async with running(world.url, far_end), running(world.url, far_end):
        for start in range(0, 200, 20):
            record(world, *range(start, start + 20))
            await asyncio.sleep(0)
        await await_until(lambda: world.count("attempts") == 200)
    assert sorted(totals(far_end, "/large")) == list(range(100, 200))
    assert sorted(totals(far_end, "/small")) == list(range(100))


async def test_a_long_question_lets_the_loop_go(world: World, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters that cannot be looked up are tried one by one; requests go on meanwhile."""
    monkeypatch.setattr(asking, "HOLD_SECONDS", 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    filters = FilterSet({bytes([n // 256, n % 256]): at_least(n) for n in range(1000)})
    parts = await one_event(world, relay.engine.feed_store)
    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    before = turns
    answers = await relay.feeder.fan_out.filters.asking.ask(parts, filters)
    counting.cancel()
    assert len(answers.matched) == 101
    assert turns - before >= 1000 // 64


def at_least(number: int) -> Filter:
    return parse({"payload": {"total": {"$gte": number}}})


async def one_event(world: World, store: Store) -> Any:
    (seq,) = record(world, 100)
    return (await store.read_bodies([seq])).events[seq]
