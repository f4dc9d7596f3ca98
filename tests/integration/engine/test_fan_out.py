"""fan_out: one statement takes what is pending and matches it, so that no committed event and no match is missed."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest

from relay.store.store import Store
from tests.integration.engine.world import FarEnd, Relay, World, fan_out, stepping, uuid_of
from tests.support.waiting import await_until, wait_until

pytestmark = pytest.mark.anyio


def subscribers_of(world: World, seq: int) -> set[bytes]:
    return {
        row[0].bytes for row in world.rows("select subscription_id from outbox.deliveries where event_seq = %s", seq)
    }


async def test_every_match_becomes_one_delivery_and_pending_is_emptied(world: World, store: Store) -> None:
    first, second = world.subscribe("a.b"), world.subscribe("a.b")
    world.subscribe("a.c")
    seqs = world.record("a.b", 3)
    await fan_out(store)
    assert [subscribers_of(world, seq) for seq in seqs] == [{first, second}] * 3
    assert world.count("pending") == 0


@pytest.mark.parametrize(
    ("pattern", "event_type", "matches"),
    [
        ("order.created", "order.created", True),
        ("order.*", "order.created", True),
        ("order.*", "order.line.created", True),
        ("order.line.*", "order.line.created", True),
        ("*", "order.created", True),
        ("order.*", "order", False),
        ("order.*", "orders.created", False),
        ("order.line.*", "order.created", False),
        ("order", "order.created", False),
        ("order.create", "order.created", False),
        ("Order.created", "order.created", False),
    ],
)
async def test_a_pattern_is_a_type_or_all_below_a_prefix_or_everything(
    world: World, store: Store, pattern: str, event_type: str, matches: bool
) -> None:
    world.subscribe(pattern)
    world.record(event_type)
    assert len(await fan_out(store)) == matches


async def test_several_patterns_that_match_one_event_give_one_delivery(world: World, store: Store) -> None:
    world.subscribe("a.b", "a.*", "*")
    world.record("a.b")
    assert len(await fan_out(store)) == 1


async def test_a_subscription_sees_its_own_tenant_and_the_star_sees_all(world: World, store: Store) -> None:
    none, acme, every = (world.subscribe("*", tenant=tenant) for tenant in ("", "acme", "*"))
    seqs = [world.record("a.b", tenant=tenant)[0] for tenant in ("", "acme", "other")]
    await fan_out(store)
    assert [subscribers_of(world, seq) for seq in seqs] == [{none, every}, {acme, every}, {every}]


async def test_a_removed_subscription_gets_nothing_more_and_a_paused_one_keeps_its_due_deliveries(
    world: World, store: Store
) -> None:
    removed, paused = world.subscribe(), world.subscribe()
    world.rows("update outbox.subscriptions set removed_at = now() where id = %s", uuid_of(removed))
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(paused))
    (seq,) = world.record()
    await fan_out(store)
    assert subscribers_of(world, seq) == {paused}


async def test_an_event_without_subscriber_is_counted_as_resolved_with_none(world: World, store: Store) -> None:
    world.subscribe("a.b")
    heard, unheard = world.record("a.b")[0], world.record("a.c")[0]
    await fan_out(store)
    assert world.matches() == {heard: 1, unheard: 0}
    assert world.value("select first_seq from outbox.resolutions") == heard


async def test_a_subscription_committed_before_an_event_is_never_missed(world: World, store: Store) -> None:
    """The take waits for fan_out's lock while a subscription, then an event commit: it must see both or neither."""
    world.record("other")
    with world.open() as blocker:
        blocker.execute("lock table outbox.pending in access exclusive mode")
        births: list[object] = []
        waiting = threading.Thread(target=_fan_out_in_a_thread, args=(world.url, births))
        waiting.start()
        await await_until(lambda: world.locks("not granted"))
        subscription = world.subscribe("a.b")
        (seq,) = world.record("a.b", connection=blocker)
    waiting.join()
    await fan_out(store)
    assert subscribers_of(world, seq) == {subscription}


def _fan_out_in_a_thread(url: str, births: list[object]) -> None:

    async def run() -> None:
        store = Store(url)
        births.extend(await fan_out(store))
        await store.close()

    asyncio.run(run())


async def test_subscribing_and_recording_in_turn_never_loses_a_pair(world: World, store: Store) -> None:
    """Another connection subscribes to a type and then records it, forty times, while fan_out runs without a rest."""
    ended = threading.Event()

    def application() -> None:
        with world.open(autocommit=True) as connection:
            for number in range(40):
                world.subscribe(f"type{number}", connection=connection)
                world.record(f"type{number}", connection=connection)
        ended.set()

    thread = threading.Thread(target=application)
    thread.start()
    while not ended.is_set() or world.count("pending"):
        await fan_out(store)
    thread.join()
    assert set(world.matches().values()) == {1}
    assert world.count("deliveries") == 40


async def test_an_event_that_commits_late_is_delivered(world: World, store: Store) -> None:
    world.subscribe()
    with world.open() as writer:
        (late,) = world.record(connection=writer)
        (early,) = world.record()
        assert late < early
        assert [birth.event_seq for birth in await fan_out(store)] == [early]
    assert [birth.event_seq for birth in await fan_out(store)] == [late]


async def test_what_is_rolled_back_is_never_seen(world: World, store: Store) -> None:
    world.subscribe()
    with world.open() as writer:
        world.record(connection=writer)
        writer.execute("savepoint inner_one")
        world.record(connection=writer)
        writer.execute("rollback to inner_one")
        writer.rollback()
        (kept,) = world.record(connection=writer)
        writer.execute("savepoint inner_two")
        world.record(connection=writer)
        writer.execute("rollback to inner_two")
    assert [birth.event_seq for birth in await fan_out(store)] == [kept]
    assert world.matches() == {kept: 1}


async def test_a_fan_out_that_does_not_end_leaves_everything_pending(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=3)
    async with store.fan_out(-1, 500, 1_000_000) as batch:
        assert len(batch.taken) == 3
    assert (world.count("pending"), world.count("deliveries"), world.count("resolutions")) == (3, 0, 0)


async def test_two_relays_share_the_events_without_a_pair_twice(world: World, store: Store, other_store: Store) -> None:

    world.subscribe()
    world.record(count=200)

    async def drain(one: Store) -> None:
        while await fan_out(one, limit=7):
            pass

    await asyncio.gather(drain(store), drain(other_store))
    assert world.count("deliveries") == world.value("select count(distinct event_seq) from outbox.deliveries") == 200


async def test_one_event_of_a_thousand_subscriptions_is_one_batch(world: World, far_end: FarEnd) -> None:
    world.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/', '{a.b}' from generate_series(1, 1000)"
    )
    world.rows(
        "insert into outbox.secrets (subscription_id, secret)"
        " select id, 'whsec_' || repeat('A', 43) || '=' from outbox.subscriptions"
    )
    (seq,) = world.record("a.b")
    async with stepping(world.url, far_end, max_in_flight=64) as relay:
        await relay.look()
        await relay.settled()
        assert world.matches() == {seq: 1000}
        assert len(far_end.requests) == 1000
        assert relay.feeder.fan_out.limit == 5, "the next batch aims at 5,000 deliveries"


async def proven(world: World, relay: Relay, subscriptions: int) -> None:
    """Let so many subscriptions get a few events, until their windows are open."""
    for number in range(subscriptions):
        world.subscribe(path=f"/{number}")
    world.record(count=100)
    while await relay.look():
        await relay.settled()
    assert world.count("attempts") == 100 * subscriptions


async def test_with_ten_subscriptions_as_many_events_are_taken_as_can_be_born_leased(
    world: World, far_end: FarEnd
) -> None:
    async with stepping(world.url, far_end) as relay:
        await proven(world, relay, 10)
        world.record(count=1000)
        assert await relay.look()
        assert world.count("pending") == 1000 - 2048 // 10
        assert world.count("deliveries", "lease is null") == 0, "nothing has to be claimed"


async def test_while_something_is_due_a_batch_leaves_most_events_pending(world: World, far_end: FarEnd) -> None:
    """What is taken then has to be claimed; a large batch would keep the backlog for ever."""
    async with stepping(world.url, far_end) as relay:
        await proven(world, relay, 10)
        world.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at)"
            " select gen_random_uuid(), 1, id, now() from outbox.subscriptions, generate_series(1, 1000)"
        )
        world.record(count=1000)
        assert await relay.look()
        assert world.count("pending") == 1000 - 512 // 10


async def test_an_event_delayed_is_fanned_out_at_once_and_due_when_it_is_available(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe()
    world.record(available_at="2199-01-01T00:00:00Z")
    world.record(available_at="2001-01-01T00:00:00Z")
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert world.count("pending") == 0
    assert world.deliveries("due_at = '2199-01-01T00:00:00Z', lease, attempts") == [(True, None, 0)]
    assert len(far_end.requests) == 1, "what became available long ago goes out"


async def test_bodies_beyond_the_byte_budget_are_not_loaded(world: World, store: Store) -> None:
    world.subscribe()
    world.record(payload='"' + "x" * 1000 + '"', count=3)
    async with store.fan_out(-1, 500, 2500) as batch:
        assert [taken.fits for taken in batch.taken] == [True, True, False]


async def test_a_pending_row_whose_event_is_gone_is_dropped_and_stops_nobody(world: World, store: Store) -> None:
    world.subscribe()
    world.rows("insert into outbox.pending values (999999999)")
    (seq,) = world.record()
    assert [birth.event_seq for birth in await fan_out(store)] == [seq]
    assert world.count("pending") == 0


async def test_a_uuid_of_the_wire_is_the_text_id_sql_shows(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record("a.b", payload='{"n": 1.10}')
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    ((_, event_id, body),) = far_end.requests
    text_id, recorded = world.rows(
        "select outbox.text_id('evt', id),"
        " to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from outbox.events"
    )[0]
    assert event_id == text_id
    assert body == f'{{"type":"a.b","timestamp":"{recorded}","data":{{"n": 1.10}}}}'.encode()


def test_the_lock_of_fan_out_is_not_held_by_an_idle_relay(world: World) -> None:
    wait_until(lambda: not world.locks("relation = 'outbox.turns'::regclass"))
    with psycopg.connect(world.url) as connection:
        taken = connection.execute("select name from outbox.turns where name = 'fan_out' for update nowait").fetchone()
        assert taken == ("fan_out",)


async def test_a_bounded_look_leaves_what_lies_below_pending(world: World, store: Store) -> None:
    world.subscribe()
    below, *above = world.record(count=3)
    assert [birth.event_seq for birth in await fan_out(store, after_seq=below)] == above
    assert world.rows("select event_seq from outbox.pending") == [(below,)]


async def test_a_pending_row_that_somebody_holds_locked_is_passed_over_and_kept(world: World, store: Store) -> None:
    world.subscribe()
    first, held, last = world.record(count=3)
    with world.open() as person:
        person.execute("select from outbox.pending where event_seq = %s for update", (held,))
        async with asyncio.timeout(20):
            assert [birth.event_seq for birth in await fan_out(store)] == [first, last]
    assert [birth.event_seq for birth in await fan_out(store)] == [held]
