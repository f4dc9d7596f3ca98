"""Bulk operations, as a relay carries them out: what each kind puts back, once, at its rate, and who is in the way."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from outbox import subscriptions
from outbox.ids import SubscriptionId
from relay.engine import bulk as engine_bulk
from relay.operations.bulk import operations
from relay.operations.bulk.became import Became
from relay.operations.bulk.request import BulkRequest
from relay.store import bulk as store_bulk
from relay.store.store import Store
from tests.integration.engine.world import ERROR_500, FarEnd, Relay, World, running, stepping, uuid_of
from tests.support import databases

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@pytest.fixture
def connection(shared_url: str) -> Iterator[sa.Connection]:
    with databases.engine_on(shared_url) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@pytest.fixture
async def relay(world: World, far_end: FarEnd) -> AsyncIterator[Relay]:
    world.break_at(0)
    async with stepping(world.url, far_end) as relay:
        yield relay


def start(connection: sa.Connection, kind: Any, subscription: bytes | None = None, **asked: Any) -> uuid.UUID:
    """Start an operation; return its id."""
    rate = asked.pop("rate", 100_000)
    named = None if subscription is None else SubscriptionId.of(uuid_of(subscription))
    request = BulkRequest(kind=kind, subscription=named, **asked)
    made = operations.add_bulk(connection, None, request, rate=rate)
    operations.start_bulk(connection, None, made.id)
    return made.id


async def until_done(relay: Relay, connection: sa.Connection, operation: uuid.UUID) -> operations.BulkOperation:
    """Take steps until the operation has ended, and everything that is due has been sent."""
    for _ in range(60):
        relay.feeder.bulk.look_soon()
        await relay.look()
        await relay.settled()
        found = operations.show_bulk(connection, None, operation)
        if found.state in ("done", "failed"):
            break
    while await relay.look():
        await relay.settled()
    return found


async def deliver(relay: Relay) -> None:
    while await relay.look():
        await relay.settled()


async def die(relay: Relay, world: World, far_end: FarEnd, path: str, count: int) -> None:
    """Let so many deliveries to a path die."""
    far_end.script[path] = ERROR_500
    world.record(count=count)
    await deliver(relay)
    del far_end.script[path]
    far_end.requests.clear()


def sent(far_end: FarEnd) -> list[str]:
    """The events that were sent, each as often as it was."""
    return sorted(name for _, name, _ in far_end.requests)


async def put_back_of_three(relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection) -> uuid.UUID:
    """Put back seven dead letters: three arrive, two die once more, two wait for a paused endpoint."""
    for path, count in (("/good", 3), ("/bad", 2), ("/still", 2)):
        subscription = world.subscribe(path[1:], path=path, schedule=[])
        far_end.script[path] = ERROR_500
        world.record(path[1:], count=count)
        await deliver(relay)
    del far_end.script["/good"]
    subscriptions.pause(connection, str(SubscriptionId.of(uuid_of(subscription))))
    world.record("good", count=5)  # of others, made meanwhile
    operation = start(connection, "redrive", reason="http_5xx")
    await until_done(relay, connection, operation)
    return operation


async def test_what_became_of_what_was_put_back_is_told_and_nothing_of_others(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    operation = await put_back_of_three(relay, world, far_end, connection)
    found = operations.show_bulk(connection, None, operation)
    assert found.became == Became(delivered=3, outstanding=2, dead=2, cancelled=0, others=0, exact=True)
    bad = "(select id from outbox.subscriptions where types = '{bad}')"
    connection.execute(sa.text(f"update outbox.bulk_operations set subscription_id = {bad}"))
    of_one = operations.show_bulk(connection, None, operation).became
    assert of_one == Became(delivered=0, outstanding=0, dead=2, cancelled=0, others=5, exact=True)
    (listed,) = operations.list_bulk(connection, None)
    assert listed.became is None


async def test_where_much_would_have_to_be_looked_at_it_is_so_many_or_more(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = await put_back_of_three(relay, world, far_end, connection)
    monkeypatch.setattr("relay.operations.bulk.became.LOOKED_AT", 2)
    found = operations.show_bulk(connection, None, operation).became
    assert found is not None
    assert (found.exact, found.others, found.outstanding, found.dead) == (False, None, 2, 2)


async def test_a_retry_that_was_made_due_keeps_its_delivery_and_counts_as_another(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    subscription = world.subscribe(schedule=[3600])
    await die(relay, world, far_end, "/", 3)
    done = await until_done(relay, connection, start(connection, "recover", subscription, since=HOUR))
    await deliver(relay)
    found = operations.show_bulk(connection, None, done.id).became
    assert found == Became(delivered=0, outstanding=0, dead=0, cancelled=0, others=3, exact=True)


async def test_dead_letters_are_put_back_once_each(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(schedule=[])
    await die(relay, world, far_end, "/", 7)
    assert world.count("dead_letters") == 7
    done = await until_done(relay, connection, start(connection, "redrive", reason="http_5xx"))
    assert (done.state, done.done, done.planned, done.planned_exactly) == ("done", 7, 7, True)
    assert len(far_end.requests) == len(set(sent(far_end))) == 7
    assert world.count("dead_letters") == world.count("deliveries") == 0


async def test_only_what_passes_the_filter_is_put_back(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    """By subscription, type, tenant, class of error and time, each."""
    one = world.subscribe(path="/one", schedule=[])
    world.subscribe(path="/two", schedule=[], tenant="acme")
    await die(relay, world, far_end, "/one", 2)
    far_end.script["/two"] = ERROR_500
    world.record("c.d", tenant="acme")
    await deliver(relay)
    world.rows("update outbox.dead_letters set died_at = died_at - interval '1 day' where event_seq = 1")
    for asked, count in (
        ({"since": HOUR}, 2), ({"until": HOUR}, 1), ({"type": "c.*"}, 1), ({"type": "*"}, 3), ({"tenant": "acme"}, 1),
        ({"reason": "timeout"}, 0), ({"reason": "http_5xx", "since": HOUR, "type": "a.b"}, 1),
    ):  # fmt: skip
        made = operations.add_bulk(connection, None, BulkRequest(kind="redrive", **asked))  # type: ignore[arg-type]
        assert (made.planned, len(made.sample)) == (count, count), asked
    done = await until_done(relay, connection, start(connection, "redrive", one, since=HOUR))
    assert (done.done, world.count("dead_letters")) == (1, 2)


async def test_what_cannot_be_put_back_is_passed_over(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    """Dead letters without a payload, of no subscription, or of one that is removed."""
    world.subscribe(schedule=[])
    await die(relay, world, far_end, "/", 3)
    world.rows("update outbox.dead_letters set payload = null where event_seq = 1")
    world.rows("update outbox.dead_letters set subscription_id = null where event_seq = 2")
    done = await until_done(relay, connection, start(connection, "redrive", since=HOUR))
    assert (done.state, done.done, done.passed_over) == ("done", 1, 2)
    assert world.rows("select event_seq from outbox.dead_letters order by 1") == [(1,), (2,)]


async def test_a_dead_letter_whose_event_is_pruned_brings_it_back(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(schedule=[])
    await die(relay, world, far_end, "/", 2)
    world.rows("delete from outbox.events where seq = 1")
    done = await until_done(relay, connection, start(connection, "redrive", since=HOUR))
    assert (done.done, len(far_end.requests), world.count("pending")) == (2, 2, 0)


async def test_recover_puts_back_what_died_and_hastens_what_waits(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    """Of one subscription; what has waited without a failure is left alone, and what fails again is not met twice."""
    one, two = world.subscribe("a.*", path="/one"), world.subscribe("a.*", path="/two")
    far_end.script |= {"/one": ERROR_500, "/two": ERROR_500}
    world.record(count=5)
    await deliver(relay)
    world.rows("update outbox.subscriptions set schedule_seconds = '{}' where id = %s", uuid_of(one))
    await relay.look()
    world.record("a.late", available_at="2100-01-01")
    await deliver(relay)
    assert world.count("deliveries") == 12
    far_end.requests.clear()
    done = await until_done(relay, connection, start(connection, "recover", one, since=HOUR))
    assert (done.state, done.done) == ("done", 5)
    assert far_end.paths() == ["/one"] * 5
    assert world.count("dead_letters") == 5  # they had no try left, and failed again after the operation began
    far_end.script["/one"] = ERROR_500
    far_end.requests.clear()
    done = await until_done(relay, connection, start(connection, "recover", one, since=HOUR))
    assert (done.done, len(far_end.requests)) == (5, 5)
    assert world.count("deliveries", "subscription_id = %s", uuid_of(two)) == 6


async def test_replay_sends_a_window_again(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    """What ended for the subscription; not what it never got, what is on its way, or is of another type."""
    one = world.subscribe("a.*", path="/one")
    world.subscribe("*", path="/two")
    world.rows("update outbox.subscriptions set schedule_seconds = '{}' where id = %s", uuid_of(one))
    world.record("a.before")
    await deliver(relay)
    world.rows("update outbox.events set recorded_at = now() - interval '2 hours'")
    world.record("a.b", count=3)
    world.record("x.y")
    await deliver(relay)
    await die(relay, world, far_end, "/one", 1)
    world.record("a.later", available_at="2100-01-01")
    await deliver(relay)
    far_end.requests.clear()
    done = await until_done(relay, connection, start(connection, "replay", one, since=HOUR))
    assert (done.state, done.done, done.planned) == ("done", 4, 4)
    assert far_end.paths() == ["/one"] * 4
    assert world.count("dead_letters") == 0
    far_end.requests.clear()
    done = await until_done(relay, connection, start(connection, "replay", one, since=3 * HOUR, until=HOUR))
    assert (done.done, len(far_end.requests)) == (1, 1)


async def test_backfill_sends_a_new_subscription_what_it_missed(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    """What matches its types and its filter, of its tenant; never twice, whatever it had before."""
    world.subscribe(path="/old")
    for n in range(6):
        world.record("a.b", payload=f'{{"n": {n}}}')
    world.record("x.y", payload='{"n": 1}')
    world.record("a.b", payload='{"n": 1}', tenant="acme")
    await deliver(relay)
    new = world.subscribe("a.*", path="/new", filter={"payload": {"n": {"$gte": 2}}})
    world.record("a.b", payload='{"n": 7}')
    await deliver(relay)
    far_end.requests.clear()
    operation = start(connection, "backfill", new)
    world.record("a.b", payload='{"n": 8}')
    done = await until_done(relay, connection, operation)
    assert (done.state, done.done, done.planned) == ("done", 4, 4)
    assert far_end.paths().count("/new") == 5
    again = await until_done(relay, connection, start(connection, "backfill", new))
    assert (again.state, again.done, again.planned) == ("done", 0, 0)


async def test_an_event_that_is_not_available_yet_waits_for_its_time(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(path="/old")
    world.record(available_at="2100-01-01")
    await deliver(relay)
    new = world.subscribe(path="/new")
    assert (await until_done(relay, connection, start(connection, "backfill", new))).done == 1
    ((due,),) = world.rows("select due_at from outbox.deliveries where subscription_id = %s", uuid_of(new))
    assert due.year == 2100
    assert far_end.requests == []


async def test_what_is_put_back_keeps_the_order_of_its_key(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(path="/old")
    world.record(count=20, key="k")
    await deliver(relay)
    new = world.subscribe(path="/new", ordered=True)
    far_end.requests.clear()
    assert (await until_done(relay, connection, start(connection, "backfill", new))).done == 20
    order = [name for _, name, _ in far_end.requests]
    assert order == [f for (f,) in world.rows("select outbox.text_id('evt', id) from outbox.events order by seq")]
    assert far_end.most_in_flight["/new"] == 1


async def test_no_more_than_its_rate_is_put_back(relay: Relay, world: World, connection: sa.Connection) -> None:
    """What is not used is kept for a second; then so long must pass as the last ones took of the rate."""
    world.subscribe(path="/old")
    world.record(count=50)
    await deliver(relay)
    operation = start(connection, "backfill", world.subscribe(path="/new"), rate=10)

    async def step(after: str) -> int:
        world.rows(f"update outbox.bulk_operations set allowed_at = clock_timestamp() - interval '{after}'")
        relay.feeder.bulk.look_soon()
        await relay.feeder.bulk.run()
        return operations.show_bulk(connection, None, operation).done

    assert await step("1 hour") == 10
    assert world.value("select allowed_at > clock_timestamp() - interval '0.5 s' from outbox.bulk_operations")
    assert await step("-5 s") == 10
    assert await step("350 ms") in (13, 14)
    assert await step("20 ms") in (13, 14)


async def test_nothing_is_added_to_a_large_backlog(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.subscribe(path="/old")
    world.record(count=4)
    await deliver(relay)
    new = world.subscribe(path="/new")
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(new))
    world.record(count=3)
    await deliver(relay)
    monkeypatch.setattr(store_bulk, "BACKLOG", 3)
    operation = start(connection, "backfill", new)
    for _ in range(3):
        relay.feeder.bulk.look_soon()
        await relay.look()
    waiting = operations.show_bulk(connection, None, operation)
    assert (waiting.state, waiting.done) == ("running", 0)
    assert "waits: 10,000 deliveries or more" in (waiting.last_error or "")
    assert not await relay.engine.feed_store.is_bulk_running()  # a relay can be drained meanwhile
    world.rows("update outbox.subscriptions set paused_at = null")
    await deliver(relay)
    world.rows("update outbox.bulk_operations set allowed_at = clock_timestamp() - interval '1 s'")
    assert (await until_done(relay, connection, operation)).done == 4


async def test_a_paused_operation_goes_on_where_it_was(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(path="/old")
    world.record(count=30)
    await deliver(relay)
    far_end.requests.clear()
    operation = start(connection, "backfill", world.subscribe(path="/new"), rate=10)
    relay.feeder.bulk.look_soon()
    await relay.look()
    operations.pause_bulk(connection, None, operation)
    world.rows("update outbox.bulk_operations set allowed_at = clock_timestamp() - interval '1 s'")
    relay.feeder.bulk.look_soon()
    await deliver(relay)
    assert operations.show_bulk(connection, None, operation).done == 10
    operations.set_bulk_rate(connection, None, operation, 1000)
    operations.resume_bulk(connection, None, operation)
    done = await until_done(relay, connection, operation)
    assert (done.state, done.done, len(set(sent(far_end)))) == ("done", 30, 30)
    operation = start(connection, "replay", world_subscription(world, "/new"), since=HOUR, rate=10)
    operations.cancel_bulk(connection, None, operation)
    relay.feeder.bulk.look_soon()
    await deliver(relay)
    assert operations.show_bulk(connection, None, operation).done == 0


def world_subscription(world: World, path: str) -> bytes:
    return bytes(world.value("select id from outbox.subscriptions where url like %s", f"%{path}").bytes)


async def test_an_operation_whose_subscription_is_removed_fails(
    relay: Relay, world: World, connection: sa.Connection
) -> None:
    world.subscribe(path="/old")
    world.record(count=3)
    await deliver(relay)
    new = world.subscribe(path="/new")
    operation = start(connection, "backfill", new)
    world.rows("update outbox.subscriptions set removed_at = now() where id = %s", uuid_of(new))
    failed = await until_done(relay, connection, operation)
    assert (failed.state, failed.done, failed.last_error) == (
        "failed", 0, "subscription: is removed; nothing can be put back to it",
    )  # fmt: skip


async def test_what_the_server_refuses_is_tried_again_and_then_given_up(own_world: World, far_end: FarEnd) -> None:
    """The rest of the relay goes on meanwhile."""
    async with stepping(own_world.url, far_end) as relay:
        own_world.subscribe(path="/old")
        own_world.record(count=3)
        await deliver(relay)
        new = own_world.subscribe("x.*", path="/new")
        own_world.rows(
            "create function refuse() returns trigger language plpgsql as $$ begin if (select kind = 'replay' from"
            " outbox.bulk_operations where state = 'running') then raise 'refused'; end if; return new; end $$"
        )
        own_world.rows(
            "create trigger refuse before insert on outbox.deliveries for each row execute function refuse()"
        )
        with databases.engine_on(own_world.url) as engine, engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            operation = start(connection, "replay", world_subscription(own_world, "/old"), since=HOUR)
            for _ in range(engine_bulk.FAILURES):
                relay.feeder.bulk.look_soon()
                await relay.look()
                own_world.rows("update outbox.bulk_operations set allowed_at = clock_timestamp() - interval '1 s'")
            failed = operations.show_bulk(connection, None, operation)
            assert (failed.state, failed.done) == ("failed", 0)
            assert "refused" in (failed.last_error or "")
            own_world.rows("drop trigger refuse on outbox.deliveries")
            operations.resume_bulk(connection, None, operation)
            assert (await until_done(relay, connection, operation)).done == 3
        assert new


@pytest.mark.parametrize("phase", ["dead", "waiting", "events"])
async def test_a_batch_is_put_back_once_whoever_believes_to_hold_it(
    relay: Relay, other_store: Store, world: World, far_end: FarEnd, connection: sa.Connection, phase: str
) -> None:
    """One was frozen between its read and its batch; or the same batch comes twice."""
    one = world.subscribe(schedule=[] if phase == "dead" else [3600])
    far_end.script["/"] = ERROR_500
    world.record(count=4)
    await deliver(relay)
    if phase == "events":
        one = world.subscribe(path="/new")
    start(connection, "backfill" if phase == "events" else "recover", one, since=HOUR)
    if phase == "waiting":
        world.rows("update outbox.bulk_operations set phase = 'waiting'")
    stores, holders = (relay.engine.feed_store, other_store), (uuid.uuid4(), uuid.uuid4())
    frozen = await stores[0].claim_bulk(holders[0])
    assert frozen is not None
    assert await stores[1].claim_bulk(holders[1]) is None
    page = await stores[0].read_bulk(frozen)
    assert len(page.to_put_back) == 4
    world.rows("update outbox.bulk_operations set leased_until = clock_timestamp()")
    other = await stores[1].claim_bulk(holders[1])
    assert other is not None
    assert (await stores[0].put_back_bulk(holders[0], frozen, page.to_put_back, 0, page.left)).made == 0
    assert (await stores[1].put_back_bulk(holders[1], other, page.to_put_back, 0, page.left)).made == 4
    assert (await stores[1].put_back_bulk(holders[1], other, page.to_put_back, 0, page.left)).made == 0
    assert world.rows("select done from outbox.bulk_operations") == [(4,)]


async def test_a_batch_whose_answer_was_lost_is_not_put_back_again_though_it_was_delivered(
    relay: Relay, world: World, connection: sa.Connection
) -> None:
    world.subscribe(path="/old")
    world.record(count=4)
    await deliver(relay)
    start(connection, "backfill", world.subscribe(path="/new"), since=HOUR)
    store, holder = relay.engine.feed_store, uuid.uuid4()
    work = await store.claim_bulk(holder)
    assert work is not None
    page = await store.read_bulk(work)
    assert (await store.put_back_bulk(holder, work, page.to_put_back, 0, page.left)).made == 4
    world.rows("delete from outbox.deliveries")
    assert (await store.put_back_bulk(holder, work, page.to_put_back, 0, page.left)).made == 0


@pytest.mark.parametrize("phase", ["dead", "waiting", "events"])
async def test_an_operation_that_is_paused_after_a_page_was_read_puts_none_of_it_back(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection, phase: str
) -> None:
    one = world.subscribe(schedule=[] if phase == "dead" else [3600])
    far_end.script["/"] = ERROR_500
    world.record(count=4)
    await deliver(relay)
    if phase == "events":
        one = world.subscribe(path="/new")
    operation = start(connection, "backfill" if phase == "events" else "recover", one, since=HOUR)
    if phase == "waiting":
        world.rows("update outbox.bulk_operations set phase = 'waiting'")
    store, holder = relay.engine.feed_store, uuid.uuid4()
    work = await store.claim_bulk(holder)
    assert work is not None
    page = await store.read_bulk(work)
    operations.pause_bulk(connection, None, operation)
    assert (await store.put_back_bulk(holder, work, page.to_put_back, 0, page.left)).made == 0
    operations.resume_bulk(connection, None, operation)
    assert (await store.put_back_bulk(holder, work, page.to_put_back, 0, page.left)).made == 0, "it is nobody's now"
    again = await store.claim_bulk(holder)
    assert again is not None
    assert (await store.put_back_bulk(holder, again, page.to_put_back, 0, page.left)).made == 4


async def test_what_a_person_replays_meanwhile_is_put_back_once(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(schedule=[])
    await die(relay, world, far_end, "/", 3)
    start(connection, "redrive", since=HOUR)
    store, holder = relay.engine.feed_store, uuid.uuid4()
    work = await store.claim_bulk(holder)
    assert work is not None
    page = await store.read_bulk(work)
    world.rows("delete from outbox.dead_letters where event_seq = 2")
    moved = await store.put_back_bulk(holder, work, page.to_put_back, 0, page.left)
    assert (moved.made, world.count("deliveries"), world.count("dead_letters")) == (2, 2, 0)


async def test_what_is_pruned_since_it_was_read_gets_no_delivery(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(path="/old")
    world.record(count=3)
    await deliver(relay)
    start(connection, "backfill", world.subscribe(path="/new"))
    store, holder = relay.engine.feed_store, uuid.uuid4()
    work = await store.claim_bulk(holder)
    assert work is not None
    page = await store.read_bulk(work)
    world.rows("delete from outbox.events where seq = 2")
    moved = await store.put_back_bulk(holder, work, page.to_put_back, 0, page.left)
    assert moved.made == 2


async def test_retention_passes_over_events_that_are_held(world: World) -> None:
    seqs = world.record(count=3)
    world.rows("truncate outbox.pending")
    with world.open() as holding, world.open() as retention:
        holding.execute("select outbox.hold_events(%s)", (seqs[:2],))
        prune = "select gone from outbox.prune_events(now() + interval '1 day', 0, 100)"
        assert retention.execute(prune).fetchone() == (1,)


async def test_an_idle_relay_looks_rarely(relay: Relay, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def claim(*_: Any) -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(Store, "claim_bulk", claim)
    for _ in range(20):
        await relay.feeder.bulk.run()
    assert looks == 1


async def test_large_payloads_are_filtered_some_at_a_time(
    relay: Relay, world: World, connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_bulk, "FILTERED_BYTES", 100)
    world.subscribe(path="/old")
    world.record(count=9, payload='{"n": 1, "text": "' + "x" * 60 + '"}')
    await deliver(relay)
    new = world.subscribe(path="/new", filter={"payload": {"n": 1}})
    done = await until_done(relay, connection, start(connection, "backfill", new))
    assert (done.state, done.done) == ("done", 9)


async def test_who_did_what_is_in_the_audit_and_no_row_for_each_dead_letter(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    began = world.value("select clock_timestamp()")
    world.subscribe(schedule=[])
    await die(relay, world, far_end, "/", 3)
    operation = start(connection, "redrive", since=HOUR)
    operations.pause_bulk(connection, None, operation)
    operations.resume_bulk(connection, None, operation)
    await until_done(relay, connection, operation)
    noted = world.rows(
        "select action, details -> 'done' from outbox.audit where at > %s and action not in ('added', 'secret added')"
        " order by at, id",
        began,
    )
    assert noted == [
        ("bulk planned", 0), ("bulk started", 0), ("bulk paused", 0), ("bulk resumed", 0), ("bulk done", 3),
    ]  # fmt: skip


async def test_the_loop_is_left_to_the_others_nine_times_as_long(
    relay: Relay, world: World, connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a batch took: the clock is the test's."""
    clock, looks = [1000.0], 0

    class Clock:
        monotonic = staticmethod(lambda: clock[0])

    claim = Store.claim_bulk

    async def claim_slowly(store: Store, *arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        clock[0] += 2.0
        return await claim(store, *arguments)

    world.subscribe(path="/old")
    world.record(count=3)
    await deliver(relay)
    start(connection, "backfill", world.subscribe(path="/new"), rate=1)
    monkeypatch.setattr(engine_bulk, "time", Clock)
    monkeypatch.setattr(Store, "claim_bulk", claim_slowly)
    relay.feeder.bulk.look_soon()
    await relay.feeder.bulk.run()
    for seconds, expected in ((17.0, 1), (0.9, 1), (0.2, 2)):
        clock[0] += seconds
        await relay.feeder.bulk.run()
        assert looks == expected


async def test_a_relay_drains_while_sending_is_paused_though_an_operation_runs(
    relay: Relay, world: World, far_end: FarEnd, connection: sa.Connection
) -> None:
    world.subscribe(schedule=[])
    await die(relay, world, far_end, "/", 3)
    world.rows("update outbox.sending set paused_at = now()")
    operation = start(connection, "redrive", reason="http_5xx")
    async with running(world.url, far_end, until_drained=True) as draining:
        assert draining.feeding is not None
        await draining.feeding
    world.rows("update outbox.sending set paused_at = null")
    assert operations.show_bulk(connection, None, operation).done == 0
    assert (await until_done(relay, connection, operation)).done == 3
