"""A database that was copied sends nothing until a person adopts it; what was merely moved or restored goes on."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from relay.operations.bulk import operations
from relay.operations.bulk.request import BulkRequest
from tests.integration.engine.world import FarEnd, World, running, stepping
from tests.support import databases
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F22")]

Copy = Callable[..., World]


@pytest.fixture
def copy(own_world: World, server_url: str) -> Iterator[Copy]:
    """Copies the database of `own_world`, which nobody else may be connected to, under another name."""
    made: list[World] = []
    original = make_url(own_world.url).database

    def make(name: str = f"{original}_staging") -> World:
        own_world.close()
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"create database {name} template {original} strategy wal_log")
        own_world.__init__(own_world.url)  # type: ignore[misc]
        made.append(World(databases.named(server_url, name)))
        return made[-1]

    yield make
    with psycopg.connect(server_url, autocommit=True) as connection:
        for world in made:
            world.close()
            connection.execute(f"drop database if exists {make_url(world.url).database} with (force)")


async def at_home(world: World, far_end: FarEnd) -> None:
    """Let a relay run once, which makes this place the database's home; then leave 3 deliveries due and 2 pending."""
    world.subscribe()
    async with running(world.url, far_end) as relay:
        world.record()
        await await_until(lambda: len(far_end.requests) == 1)
        await relay.settled()
        world.rows("update outbox.sending set paused_at = now()")
        await await_until(lambda: relay.feeder.halt.is_on)
        world.record(count=3)
        await await_until(lambda: world.count("deliveries") == 3)
    world.rows("update outbox.sending set paused_at = null")
    world.record(count=2)


async def test_a_bulk_operation_that_ran_in_the_original_puts_nothing_back_in_a_copy(
    own_world: World, far_end: FarEnd, copy: Copy
) -> None:
    await at_home(own_world, far_end)
    with databases.engine_on(own_world.url) as engine, engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, type, tenant,"
                " recorded_at, attempts, reason, payload) select outbox.uuid7(), e.seq, e.id, s.id, e.type, e.tenant,"
                " e.recorded_at, 1, 'http_5xx', e.payload from outbox.events e, outbox.subscriptions s"
                " where e.seq = (select min(seq) from outbox.events)"
            )
        )
    with databases.engine_on(own_world.url) as engine, engine.begin() as connection:
        made = operations.add_bulk(connection, None, BulkRequest(kind="redrive", type="*"))
        operations.start_bulk(connection, None, made.id)
    copied = copy()
    async with stepping(copied.url, far_end) as relay:
        for _ in range(3):
            relay.feeder.bulk.look_soon()
            await relay.look()
    assert copied.rows("select done from outbox.bulk_operations") == [(0,)]
    assert copied.count("dead_letters") == 1
    assert not far_end.requests[1:]


async def test_a_copy_sends_nothing_and_resolves_until_it_is_adopted(
    own_world: World, far_end: FarEnd, copy: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    await at_home(own_world, far_end)
    copied = copy()
    with caplog.at_level(logging.WARNING):
        async with running(copied.url, far_end) as relay:
            await await_until(lambda: copied.count("deliveries") == 5)
            copied.record()
            await await_until(lambda: copied.count("deliveries") == 6)
            seen = relay.feeder.steps
            await await_until(lambda: relay.feeder.steps > seen + 3)
            assert len(far_end.requests) == 1
            assert copied.count("deliveries", "lease is null and attempts = 0") == 6
            copied.rows("select outbox.adopt()")
            await await_until(lambda: copied.count("deliveries") == 0)
            await relay.settled()
    assert len(far_end.requests) == 7
    told = [record.getMessage() for record in caplog.records if "database" in record.getMessage()]
    here, there = (f"database {make_url(world.url).database} of system " for world in (copied, own_world))
    assert len(told) == 2
    assert told[0].startswith(
        f"this database is a copy, and nothing is sent from it until `relay adopt`: it was at home as {there}"
    )
    assert f", and is {here}" in told[0]
    assert told[1].startswith(f"this database is at home as {here}")


async def test_the_original_goes_on_while_its_copy_sends_nothing(own_world: World, far_end: FarEnd, copy: Copy) -> None:
    await at_home(own_world, far_end)
    copied, elsewhere = copy(), FarEnd()
    async with running(own_world.url, far_end), running(copied.url, elsewhere):
        await await_until(lambda: own_world.count("deliveries") == 0 and own_world.count("pending") == 0)
        await await_until(lambda: copied.count("deliveries") == 5)
    assert (len(far_end.requests), elsewhere.requests) == (6, [])


async def test_what_was_restored_under_its_own_name_in_its_own_cluster_goes_on(
    own_world: World, far_end: FarEnd, copy: Copy, server_url: str
) -> None:
    await at_home(own_world, far_end)
    name = make_url(own_world.url).database
    copied = copy()
    for world in (own_world, copied):
        world.close()
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")
        connection.execute(f"alter database {name}_staging rename to {name}")
    restored = World(own_world.url)
    async with running(restored.url, far_end):
        await await_until(lambda: restored.count("deliveries") == 0 and restored.count("pending") == 0)
    assert len(far_end.requests) == 6
    restored.close()


async def test_a_relay_that_comes_to_a_copy_gives_back_what_it_had_not_begun(
    own_world: World, far_end: FarEnd, copy: Copy
) -> None:
    """As when a name of the DNS, or a file with the URL, leads to another server."""
    await at_home(own_world, far_end)
    copied = copy()
    where = own_world
    freed = far_end.hold("/")
    async with running(lambda: where.url, far_end, max_in_flight=1) as relay:
        await await_until(lambda: own_world.count("deliveries", "lease is not null") > 1)
        where = copied
        own_world.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()"
        )
        await await_until(lambda: relay.feeder.halt.is_on)
        freed.set()
        await await_until(lambda: copied.count("pending") == 0)
        await relay.settled()
    assert len(far_end.requests) == 2, "nothing but what was on the wire"


async def test_rows_of_another_database_that_come_under_a_running_relay_stop_it(
    own_world: World, far_end: FarEnd
) -> None:
    """As `pg_restore --data-only` brings them, which leaves the row of this place as it is."""
    await at_home(own_world, far_end)
    async with stepping(own_world.url, far_end) as relay:
        own_world.rows("insert into outbox.home (place) values ('database shop of system 1')")
        await relay.look()
        await relay.look()
        assert len(far_end.requests) == 1
        own_world.rows("select outbox.adopt()")
        await relay.look()
        await relay.look()
        await await_until(lambda: own_world.count("deliveries") == 0)


async def test_a_copy_of_a_template_that_no_relay_ran_on_is_no_copy(
    own_world: World, far_end: FarEnd, copy: Copy
) -> None:
    own_world.subscribe()
    own_world.record(count=2)
    copied = copy()
    async with running(copied.url, far_end):
        await await_until(lambda: len(far_end.requests) == 2)
    assert copied.value("select count(*) from outbox.home where place = outbox.here()") == 1


async def test_until_drained_ends_in_a_copy(own_world: World, far_end: FarEnd, copy: Copy) -> None:
    await at_home(own_world, far_end)
    copied = copy()
    async with running(copied.url, far_end, until_drained=True) as relay:
        assert relay.feeding is not None
        await asyncio.wait_for(asyncio.shield(relay.feeding), 20)
    assert (copied.count("deliveries"), len(far_end.requests)) == (5, 1)


@contextmanager
def without_the_system_identifier(world: World) -> Iterator[str]:
    """As on a managed server: the owner of the schema may not ask for it."""
    owner = f"outbox_test_{secrets.token_hex(6)}"
    functions = "function outbox.here, outbox.note_home, outbox.adopt"
    world.rows(f"create role {owner}; grant usage on schema outbox to {owner}; grant execute on {functions} to {owner}")
    world.rows(f"grant select, insert, delete on outbox.home to {owner}")
    for function in ("here", "note_home", "adopt"):
        world.rows(f"alter function outbox.{function} owner to {owner}")
    world.rows("revoke execute on function pg_catalog.pg_control_system from public")
    yield owner
    world.rows(f"reassign owned by {owner} to current_user; drop owned by {owner}; drop role {owner}")


async def test_where_nobody_may_ask_for_the_system_the_number_of_the_database_tells(
    own_world: World, far_end: FarEnd, copy: Copy
) -> None:
    with without_the_system_identifier(own_world) as owner:
        await at_home(own_world, far_end)
        name, number = own_world.rows("select datname, oid from pg_database where datname = current_database()")[0]
        assert own_world.rows("select place from outbox.home") == [(f"database {name} with oid {number}",)]
        copied = copy()
        async with running(copied.url, far_end):
            await await_until(lambda: copied.count("deliveries") == 5)
        assert len(far_end.requests) == 1
        copied.rows(f"drop owned by {owner} cascade")
