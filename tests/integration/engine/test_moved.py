"""The database becomes another one under a running relay, with older rows under the same or lower versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.integration.engine.world import FarEnd, World, running, stepping, uuid_of
from tests.support import databases
from tests.support.waiting import await_until

pytestmark = [pytest.mark.anyio, pytest.mark.field("F60")]

TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
    " and pid <> pg_backend_pid() and backend_type = 'client backend'"
)


@dataclass
class Standby:
    """What a standby had heard when the primary went away: a copy of its database, made before the last changes."""

    primary: World
    server_url: str
    name: str
    promoted: World | None = None

    def conninfo(self) -> str:
        return (self.promoted or self.primary).url

    def promote(self) -> World:
        self.promoted = World(databases.named(self.server_url, self.name))
        self.primary.rows(TERMINATE)
        return self.promoted


@pytest.fixture
def standby(own_world: World, server_url: str) -> Iterator[Standby]:
    standby = Standby(own_world, server_url, f"{make_url(own_world.url).database}_standby")
    yield standby
    standby.primary.close()
    if standby.promoted is not None:
        standby.promoted.close()
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"drop database if exists {standby.name} with (force)")


def copy(standby: Standby) -> None:
    """Let the standby hear of everything up to now. Nobody else is connected."""
    standby.primary.close()
    with psycopg.connect(standby.server_url, autocommit=True) as connection:
        original = make_url(standby.primary.url).database
        connection.execute(f"create database {standby.name} template {original} strategy wal_log")
    standby.primary = World(standby.primary.url)


@pytest.mark.parametrize("heard", [0, 3], ids=["a lower version", "the same version with another URL"])
async def test_a_url_that_the_standby_never_heard_of_is_forgotten(
    standby: Standby, far_end: FarEnd, heard: int
) -> None:
    standby.primary.subscribe(path="/first")
    copy(standby)
    async with running(standby.conninfo, far_end) as relay:
        for number in range(3):
            standby.primary.rows("update outbox.subscriptions set url = %s", f"http://127.0.0.1/lost-{number}")
        standby.primary.record()
        await await_until(lambda: far_end.paths() == ["/lost-2"])
        await relay.settled()
        promoted = standby.promote()
        for number in range(heard):
            promoted.rows("update outbox.subscriptions set url = %s", f"http://127.0.0.1/heard-{number}")
        promoted.record(count=3)
        await await_until(lambda: len(far_end.requests) == 4)
        await relay.settled()
        assert set(far_end.paths()[1:]) == {f"/heard-{heard - 1}" if heard else "/first"}
        promoted.rows("update outbox.subscriptions set url = %s", "http://127.0.0.1/later")
        promoted.record()
        await await_until(lambda: far_end.paths()[4:] == ["/later"])
        await relay.settled()


async def test_a_pause_that_the_standby_never_heard_of_is_lifted(standby: Standby, far_end: FarEnd) -> None:
    standby.primary.subscribe()
    copy(standby)
    async with running(standby.conninfo, far_end) as relay:
        standby.primary.record()
        await await_until(lambda: far_end.requests)
        await relay.settled()
        standby.primary.rows("update outbox.subscriptions set paused_at = now()")
        standby.primary.record()
        await await_until(lambda: not standby.primary.count("pending"))
        promoted = standby.promote()
        promoted.record(count=2)
        await await_until(lambda: len(far_end.requests) == 3)
        await relay.settled()
        assert promoted.count("deliveries") == 0


async def test_rows_that_come_back_under_an_open_connection_are_noticed_too(own_world: World, far_end: FarEnd) -> None:
    """As a pooler moves its clients without a word, or a dump is read in again in one transaction."""
    subscription = own_world.subscribe(path="/first")
    own_world.rows("create table public.saved as table outbox.subscriptions")
    own_world.rows("create table public.kept as table outbox.secrets")
    own_world.rows("update outbox.subscriptions set url = 'http://127.0.0.1/second'")
    async with stepping(own_world.url, far_end) as relay:
        own_world.record()
        await relay.look()
        await relay.settled()
        version = own_world.value("select version from outbox.subscriptions")
        columns = own_world.value(
            "select string_agg(attname, ', ') from pg_attribute"
            " where attrelid = 'outbox.subscriptions'::regclass and attnum > 0 and attgenerated = ''"
        )
        own_world.rows(
            "begin; truncate outbox.subscriptions cascade; set local session_replication_role = replica;"
            f" insert into outbox.subscriptions ({columns}) select {columns} from public.saved;"
            f" update outbox.subscriptions set version = {version};"
            " insert into outbox.secrets (id, subscription_id, kind, secret, hint, created_at, expires_at)"
            "   select id, subscription_id, kind, secret, hint, created_at, expires_at from public.kept;"
            " insert into outbox.subscription_types (tenant, pattern, subscription_id)"
            "   select tenant, unnest(types), id from public.saved;"
            " commit"
        )
        own_world.record()
        await relay.look()
        await relay.look()
        await relay.settled()
    assert far_end.paths() == ["/second", "/first"]
    assert own_world.value("select id from outbox.subscriptions") == uuid_of(subscription)
