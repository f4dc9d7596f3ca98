"""The relay and the application keep out of each other's way, and a database's settings out of the relay's."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from relay.store import fan_out as fan_out_module
from relay.store import polling, turns
from relay.store.lease import new_lease
from relay.store.store import Store
from tests.integration.engine.world import ERROR_500, FarEnd, World, fan_out, running, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

OTHERS = "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"


async def test_no_transaction_is_open_while_requests_are_under_way(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    freed = far_end.hold("/")
    world.record(count=16)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: far_end.in_flight == 16)
        relay.feeder.stop()  # let it come to rest: between two looks there must be nothing
        await await_until(lambda: relay.feeding.done())
        assert world.rows(f"select state, xact_start from pg_stat_activity where {OTHERS}") == [
            ("idle", None)
        ] * world.value(f"select count(*) from pg_stat_activity where {OTHERS}")
        assert world.locks("true") == 0
        freed.set()
        await relay.settled()


async def test_connections_do_not_grow_with_requests(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.subscribe()
    freed = far_end.hold("/")
    async with running(world.url, far_end) as relay:
        world.record(count=60)
        await await_until(lambda: far_end.in_flight == 32)
        freed.set()
        await await_until(lambda: world.count("attempts") == 120)
        await relay.settled()
        assert world.value(f"select count(*) from pg_stat_activity where {OTHERS}") <= 2


async def test_an_open_application_transaction_that_recorded_and_subscribed_blocks_nothing(
    world: World, far_end: FarEnd
) -> None:
    existing = world.subscribe("a.b", path="/existing")
    with world.open() as application:
        world.record("a.b", 3, connection=application)
        world.subscribe("a.b", path="/new", connection=application)
        application.execute("update outbox.subscriptions set description = 'x' where id = %s", (uuid_of(existing),))
        far_end.script["/existing"] = ERROR_500
        async with running(world.url, far_end):
            world.record("a.b", 5)
            await await_until(lambda: world.count("attempts") == 5)
            assert set(far_end.paths()) == {"/existing"}
            application.commit()
            await await_until(lambda: world.count("attempts") == 5 + 6)
    assert far_end.paths().count("/new") == 3, "events resolved earlier do not match what was not there"


async def test_a_fan_out_under_way_blocks_no_application(world: World, store: Store) -> None:
    world.subscribe("a.b")
    world.record("a.b", 3)
    with world.open() as application:
        application.execute("set lock_timeout = '2s'")
        async with store.fan_out(-1, 500, 1_000_000) as batch:
            assert len(batch.taken) == 3
            world.record("a.b", 10, connection=application)
            world.subscribe("a.*", connection=application)
            application.execute("update outbox.subscriptions set paused_at = now()")
            application.execute("update outbox.subscriptions set removed_at = now()")
            application.commit()
    assert world.count("pending") == 13


async def test_a_relay_stopped_inside_fan_out_does_not_stop_the_others_for_long(
    world: World, store: Store, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = fan_out_module.FAN_OUT_SETTINGS.replace(turns.LIMITS, turns.limits(1))
    assert shorter != fan_out_module.FAN_OUT_SETTINGS
    monkeypatch.setattr(fan_out_module, "FAN_OUT_SETTINGS", shorter)
    world.subscribe()
    world.record()
    turn = store.fan_out(-1, 500, 1_000_000)
    await turn.__aenter__()

    async def others_turn() -> bool:
        try:
            return bool(await fan_out(other_store))
        except psycopg.errors.LockNotAvailable:
            return False

    await await_until(others_turn, timeout_seconds=30)
    assert world.count("deliveries") == 1
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        await turn.__aexit__(None, None, None)


@pytest.mark.case("C14")
@pytest.mark.parametrize(
    "setting",
    [
        "search_path to nowhere",
        "timezone to 'America/New_York'",
        "default_transaction_isolation to serializable",
        "default_transaction_read_only to on",
        "datestyle to 'SQL, DMY'",
        "bytea_output to escape",
        "plan_cache_mode to force_generic_plan",
        "standard_conforming_strings to off",
        "client_encoding to 'LATIN1'",
        "extra_float_digits to '-10'",
        "intervalstyle to sql_standard",
    ],
)
async def test_settings_of_the_database_have_no_effect(own_world: World, far_end: FarEnd, setting: str) -> None:
    subscription = own_world.subscribe(path="/fails")
    own_world.subscribe(path="/fine")
    far_end.script["/fails"] = ERROR_500
    own_world.record(count=5, payload='"Grüße \U0001f600"')
    own_world.record(available_at="2199-01-01T00:00:00Z")
    own_world.rows(f"alter database {own_world.value('select current_database()')} set {setting}")
    async with running(own_world.url, far_end):
        await await_until(lambda: own_world.count("attempts") == 10)
    assert own_world.count("deliveries", "due_at = '2199-01-01T00:00:00Z'") == 2
    waiting = own_world.deliveries(
        "extract(epoch from due_at - now()) between 3500 and 3600",
        f"subscription_id = '{uuid_of(subscription)}' and attempts = 1",
    )
    assert waiting == [(True,)] * 5
    assert all('"Grüße \U0001f600"'.encode() in body for _, _, body in far_end.requests)


async def test_looking_takes_no_predicate_locks_that_would_fail_an_application(own_world: World) -> None:
    """A serializable application must not get 40001 because a relay looked."""
    name = own_world.value("select current_database()")
    own_world.rows(f"alter database {name} set default_transaction_isolation to serializable")
    store = Store(own_world.url)
    with own_world.open() as application:
        application.execute("select 1")
        await store.poll(-1, 0.0)
        await store.is_drained()
        await store.find_first_pending(-1)
        await store.sweep(bytes(16), 500)
        assert own_world.count("pending") == 0
        assert own_world.locks("mode = 'SIReadLock'") == 0
    await store.close()


async def test_claiming_while_others_settle_never_fails(world: World, store: Store, other_store: Store) -> None:
    """READ COMMITTED and SKIP LOCKED: no 40001, no deadlock."""
    subscription = world.subscribe()
    world.record(count=200)
    await fan_out(store)

    async def churn(one: Store) -> int:
        done = 0
        while rows := await one.claim([(subscription, 9)], 9, 10**9, lease := new_lease()):
            from relay.model.verdict import VerdictKind
            from tests.integration.engine.world import claimed, result

            kinds = [VerdictKind.DELIVERED, VerdictKind.RETRY, VerdictKind.DEAD]
            await one.settle([result(claimed(row, lease), kinds[n % 3]) for n, row in enumerate(rows)])
            done += len(rows)
        return done

    assert sum(await asyncio.gather(churn(store), churn(other_store))) == 200


@pytest.mark.case("C21")
async def test_the_signature_carries_the_databases_clock(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay whose own clock is an hour wrong signs with the right time."""
    import time

    wrong = time.time
    monkeypatch.setattr("relay.engine.clock.time.time", lambda: wrong() - 3600)
    seen: list[int] = []
    send = far_end.send

    async def note(endpoint: object, headers: bytes, body: bytes, timeout_seconds: float) -> object:
        fields = dict(line.split(": ", 1) for line in headers.decode().splitlines())
        seen.append(int(fields["webhook-timestamp"]))
        return await send(endpoint, headers, body, timeout_seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(far_end, "send", note)
    world.subscribe()
    world.record()
    async with running(world.url, far_end):
        await await_until(lambda: seen)
    assert abs(seen[0] - world.value("select extract(epoch from now())::float8")) < 60


@pytest.mark.case("C14")
async def test_the_databases_clock_is_read_exactly_however_it_prints_numbers(own_world: World) -> None:
    """Rounded to a few digits, it would be years away, and each signature with it."""
    own_world.rows(f"alter database {own_world.value('select current_database()')} set extra_float_digits to -15")
    store = Store(own_world.url)
    seen = await store.poll(-1, 0.0)
    await store.close()
    assert abs(seen.unix_seconds - own_world.value("select extract(epoch from now())::bigint")) < 60


async def test_nothing_is_compiled(own_world: World, store: Store) -> None:
    """Before version 18, a seq scan that cannot be avoided looks so dear that JIT would take 100 ms a statement."""
    ((jit,),) = await store.fetch("select current_setting('jit')")
    assert jit == "off"
    assert "set local jit = off" in polling.POLL
    assert "'jit', 'off'" in fan_out_module.FAN_OUT_SETTINGS


async def test_only_fan_out_chooses_partitions_while_it_runs(own_world: World, store: Store) -> None:
    """Where others change the rows that a statement locks, PostgreSQL 18 would read freed memory and restart."""
    ((pruning,),) = await store.fetch("select current_setting('enable_partition_pruning')")
    assert pruning == "off"
    assert "enable_partition_pruning" not in fan_out_module.FAN_OUT_SETTINGS


async def test_a_relay_that_stops_keeps_its_transaction_for_twenty_seconds_at_most(store: Store) -> None:
    """What other tests shorten, as it is in operation."""
    names = ["idle_in_transaction_session_timeout", "tcp_keepalives_idle", "tcp_keepalives_interval",
             "tcp_keepalives_count", "tcp_user_timeout"]  # fmt: skip
    (found,) = await store.fetch("select " + ", ".join(f"current_setting('{name}')" for name in names))
    assert tuple(found) == ("20s", "10", "5", "2", "20000")
    assert turns.LIMITS in fan_out_module.FAN_OUT_SETTINGS
    assert turns.STOPPED_SECONDS == 20
