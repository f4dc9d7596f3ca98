"""A relay on a server with limits, and what an attempt carries when it comes again; named by bad_inputs.md."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from relay.model.outcome import Outcome
from relay.store.lease import LEASE_SLACK_SECONDS, START_WITHIN_SECONDS, new_lease
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World, fan_out, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

DELIVERED = Outcome("delivered", 200, 1)
ERROR_500 = Outcome("http_5xx", 500, 1)


@pytest.mark.case("B15")
async def test_a_lease_outlives_the_timeout_of_its_subscription(world: World, store: Store) -> None:
    slow, quick = world.subscribe(timeout=300), world.subscribe(timeout=1)
    world.record()
    await fan_out(store)
    await store.claim([(slow, 1), (quick, 1)], 2, 10**9, new_lease())
    spans = world.deliveries("round(extract(epoch from due_at - now()))", "lease is not null")
    assert sorted(span for (span,) in spans) == [1 + LEASE_SLACK_SECONDS, 300 + LEASE_SLACK_SECONDS]
    assert LEASE_SLACK_SECONDS > START_WITHIN_SECONDS


@pytest.mark.case("C12")
@pytest.mark.parametrize("setting", ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"])
async def test_short_timeouts_of_the_server_lose_nothing(own_world: World, far_end: FarEnd, setting: str) -> None:
    for path in ("/a", "/b"):
        own_world.subscribe(path=path)
    own_world.record(count=50)
    name = own_world.value("select current_database()")
    own_world.rows(f"alter database {name} set {setting} to '30ms'")
    async with running(own_world.url, far_end):
        await await_until(lambda: own_world.count("attempts") == 100)
    assert own_world.count("deliveries") == own_world.count("dead_letters") == 0


async def test_a_limit_that_comes_to_an_open_connection_ends_no_statement_twice(
    own_world: World, far_end: FarEnd
) -> None:
    """As a reload of the server brings it, or a pooler that hands us another of its connections."""
    own_world.subscribe()
    own_world.rows("create function public.take_long() returns trigger language plpgsql as $$ begin"
                   " perform pg_sleep(0.3); return null; end $$")  # fmt: skip
    own_world.rows("create trigger take_long after insert on outbox.deliveries execute function public.take_long()")
    async with stepping(own_world.url, far_end) as relay:
        await relay.look()
        store = relay.engine.feed_store
        await (await store.connect()).execute("set statement_timeout = '100ms'")
        own_world.record()
        with pytest.raises(psycopg.errors.QueryCanceled) as caught:
            await relay.look()
        own_world.rows(f"alter database {own_world.value('select current_database()')} set statement_timeout = '100ms'")
        await store.recover(caught.value)
        await relay.look()
        await await_until(lambda: own_world.count("attempts") == 1)


async def test_a_policy_that_comes_to_a_table_of_a_side_task_is_seen(own_world: World, far_end: FarEnd) -> None:
    subscription = own_world.subscribe()
    limit = "rate_limit = '20/s', rate_burst = 5"
    own_world.rows(f"update outbox.subscriptions set {limit} where id = %s", uuid_of(subscription))
    async with running(own_world.url, far_end):
        own_world.record()
        await await_until(lambda: own_world.count("attempts") == 1)
        own_world.rows("alter table outbox.limits enable row level security")
        own_world.rows("create policy all_of_it on outbox.limits using (true)")
        own_world.record(count=20)
        await await_until(lambda: own_world.count("attempts") == 21)


@pytest.mark.parametrize("setting", ["statement_timeout", "transaction_timeout"])
async def test_statements_that_take_longer_than_others_may_are_waited_for(
    own_world: World, far_end: FarEnd, setting: str
) -> None:
    """Such a limit is set against an application that hangs. It would end the same statement for ever."""
    if own_world.value("select count(*) from pg_settings where name = %s", setting) == 0:
        pytest.skip("PostgreSQL 17 brought transaction_timeout")
    own_world.subscribe()
    own_world.rows("create function public.take_long() returns trigger language plpgsql as $$ begin"
                   " perform pg_sleep(0.8); return null; end $$")  # fmt: skip
    own_world.rows("create trigger take_long after insert on outbox.deliveries execute function public.take_long()")
    own_world.rows("create trigger take_long after insert on outbox.attempts execute function public.take_long()")
    own_world.record(count=3)
    own_world.rows(f"alter database {own_world.value('select current_database()')} set {setting} to '400ms'")
    async with running(own_world.url, far_end):
        await await_until(lambda: own_world.count("attempts") == 3, timeout_seconds=30)
    assert len(far_end.requests) == 3


@pytest.fixture
def crowded(own_world: World) -> Iterator[tuple[World, str]]:
    """A world whose relay logs in as a role that may have no connection, and that role."""
    role = f"relay_{token_hex(4)}"
    own_world.rows(f"create role {role} login password '{role}' connection limit 0")
    own_world.rows(f"grant outbox_relay to {role}")
    yield own_world, role
    own_world.rows(f"drop role {role}")


@pytest.mark.case("C13")
async def test_a_server_without_a_free_connection_is_waited_for(
    crowded: tuple[World, str], far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, role = crowded
    world.subscribe()
    world.record()
    url = make_conninfo(world.url, user=role, password=role)
    refused: list[BaseException] = []
    async with running(url, far_end) as relay:
        monkeypatch.setattr(relay.outage, "note_failure", refused.append)
        await await_until(lambda: len(refused) > 2)
        world.rows(f"alter role {role} connection limit -1")
        await await_until(lambda: world.count("attempts") == 1)
    assert all("too many connections" in str(error) for error in refused)
    assert len(far_end.requests) == 1


@pytest.mark.case("C20")
def test_a_lease_is_random_and_no_process_has_a_name() -> None:
    leases = {new_lease() for _ in range(1000)}
    assert len(leases) == 1000
    assert all(0 <= lease < 2**63 for lease in leases)


@pytest.mark.case("E34", "E46")
async def test_what_failed_comes_again_with_its_id_and_body_and_a_fresh_timestamp(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    send = far_end.send

    async def note(endpoint: object, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        seen.append(dict(line.split(": ", 1) for line in headers.decode().splitlines()))
        far_end.script["/"] = ERROR_500 if len(seen) == 1 else DELIVERED
        return await send(endpoint, headers, body, timeout_seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(far_end, "send", note)
    world.subscribe(schedule=(1,))
    world.record()
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts") == 2)
    first, second = seen
    assert first["webhook-id"] == second["webhook-id"]
    assert far_end.requests[0][2] == far_end.requests[1][2]
    assert int(second["webhook-timestamp"]) > int(first["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]
