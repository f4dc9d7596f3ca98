"""Nobody waits for a slow neighbour: a hanging endpoint soon holds a single slot."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psycopg
import pytest

from relay.store.polling import POLL
from tests.integration.engine.world import DELIVERED, FarEnd, Outcome, World, running, stepping
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

TIMEOUT = Outcome(kind="timeout", status=None, milliseconds=15_000, error="no answer")


async def test_a_hanging_endpoint_shrinks_to_one_slot(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/hangs", schedule=(0,) * 20)
    world.break_at(0)
    world.record(count=100)
    far_end.script["/hangs"] = TIMEOUT
    async with running(world.url, far_end) as relay:
        await await_until(lambda: far_end.requests.__len__() > 40)
        freed = far_end.hold("/hangs", TIMEOUT)
        (endpoint,) = relay.endpoints
        await await_until(lambda: far_end.in_flight == 1 and endpoint.leased == 1)
        assert endpoint.window.size == 1
        freed.set()


async def test_healthy_endpoints_are_served_while_others_hang(world: World, far_end: FarEnd) -> None:
    """Thirty hang, and each healthy one gets all of its own without waiting for them."""
    for number in range(30):
        world.subscribe("*", path=f"/hangs/{number}")
        far_end.hold(f"/hangs/{number}")
    for number in range(3):
        world.subscribe("*", path=f"/healthy/{number}")
    async with running(world.url, far_end, max_in_flight=700, per_endpoint=64):
        for _ in range(5):
            world.record(count=40)
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 600)
    healthy = Counter(path for path in far_end.paths() if path.startswith("/healthy"))
    assert healthy == {f"/healthy/{number}": 200 for number in range(3)}
    assert all(most <= 16 for path, most in far_end.most_in_flight.items() if path.startswith("/hangs"))


async def test_two_hundred_that_never_answered_hold_up_nobody_not_even_the_first_time(
    world: World, far_end: FarEnd
) -> None:
    """Fewer places than they ask for, and fewer leases; one that answers still gets its own at once."""
    for number in range(200):
        world.subscribe("noise", path=f"/hangs/{number}")
        far_end.hold(f"/hangs/{number}")
    world.subscribe("new", path="/new")
    world.subscribe("later", path="/later")
    async with running(world.url, far_end, max_in_flight=256, per_endpoint=64) as relay:
        world.record("noise", count=16)
        await await_until(lambda: far_end.in_flight >= 200)
        for path in ("new", "later"):
            for _ in range(20):
                world.record(path)
            await await_until(lambda path=path: far_end.paths().count(f"/{path}") == 20)
        assert 200 <= far_end.in_flight <= 256 - 256 // 8
        assert relay.room.free >= 2048 // 8


async def test_no_endpoint_gets_more_requests_at_once_than_allowed(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/one")
    world.subscribe(path="/two")
    for path in ("/one", "/two"):

        async def answer() -> Outcome:
            await asyncio.sleep(0)
            return DELIVERED

        far_end.script[path] = answer
    world.record(count=300)
    async with running(world.url, far_end, max_in_flight=10, per_endpoint=6):
        await await_until(lambda: world.count("attempts") == 600)
    assert far_end.most_in_flight["/one"] <= 6
    assert far_end.most_in_flight["/two"] <= 6
    assert max(far_end.most_in_flight.values()) > 1


async def test_an_endpoint_that_recovers_is_served_in_full_again(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/", schedule=(0,) * 20)
    world.break_at(0)
    far_end.script["/"] = TIMEOUT
    world.record(count=60)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: len(relay.endpoints) and next(iter(relay.endpoints)).window.size == 1)
        far_end.script["/"] = DELIVERED
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") == 60)
        assert next(iter(relay.endpoints)).window.size == 61


async def test_a_changed_subscription_is_used_from_the_next_event_on(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/old")
    async with stepping(world.url, far_end) as relay:
        for path in ("/old", "/new"):
            world.rows("update outbox.subscriptions set url = %s", f"http://127.0.0.1{path}")
            world.record()
            await relay.look()
            await relay.settled()
    assert far_end.paths() == ["/old", "/new"]


async def test_a_rotated_secret_is_used_from_the_next_event_on(world: World, far_end: FarEnd) -> None:
    from outbox.signing.verify import new_secret

    world.subscribe()
    async with stepping(world.url, far_end) as relay:
        world.record()
        await relay.look()
        await relay.settled()
        before = relay.endpoints.get(world.value("select id from outbox.subscriptions").bytes).subscription
        world.rows("update outbox.secrets set expires_at = now() + interval '1 day'")
        world.rows(
            "insert into outbox.secrets (subscription_id, secret) select id, %s from outbox.subscriptions", new_secret()
        )
        world.record()
        await relay.look()
        await relay.settled()
        after = relay.endpoints.get(before.id).subscription
    assert len(before.secrets) == 1
    assert len(after.secrets) == 2
    assert after.secrets[1] == before.secrets[0], "newest first"


async def test_a_burst_costs_few_statements_a_delivery(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Born leased, claimed and settled in batches; begin, settings and commit are counted, too.

    Not counted are polls: they come by time, each 8 ms, whatever there is to do.
    """
    statements = 0
    execute = psycopg.AsyncConnection.execute
    poll = POLL.partition("%")[0].encode()

    async def counted(connection: psycopg.AsyncConnection[Any], query: Any, *args: Any, **options: Any) -> Any:
        nonlocal statements
        statements += not (isinstance(query, bytes) and query.startswith(poll))
        return await execute(connection, query, *args, **options)

    world.subscribe()
    world.record(count=10_000)
    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    async with running(world.url, far_end, until_drained=True) as relay:
        await await_until(lambda: world.count("attempts") == 10_000)
        spent = statements
        await relay.settled()
    assert spent <= 0.05 * 10_000
