"""Limits: requests a second over all relays, a tenant's too, and requests under way at once."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from relay.http.sender import Endpoint
from relay.model.outcome import Outcome, OutcomeKind
from relay.store.in_flight import AskedShare
from relay.store.limits import AHEAD_SECONDS, AskedSlots, GrantedSlots
from relay.store.store import Store
from tests.integration.engine.world import DELIVERED, FarEnd, Relay, World, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
ALL = 1000  # slots, more than any cell has


class Log(FarEnd):
    """A far end that keeps when each request came, by path."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, list[float]] = {}

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        self.times.setdefault(endpoint.url.target, []).append(time.monotonic())
        return await super().send(endpoint, headers, body, timeout_seconds)

    def most_in_a_second(self, *paths: str, after: float = 0.0) -> int:
        times = sorted(at for path in paths or ("/",) for at in self.times[path])
        counted = [at for at in times if at >= times[0] + after]
        return max(sum(first <= at < first + 1 for at in counted) for first in counted)


def set_limit(world: World, subscription_id: bytes, **fields: Any) -> None:
    for name, value in fields.items():
        world.rows(f"update outbox.subscriptions set {name} = %s where id = %s", value, uuid_of(subscription_id))


def asked(
    cell: bytes, *, rate: float | None = 100.0, burst: int = 1, want: int = ALL, back: int = 0, accepted: int = 0,
    refused: int = 0, guess: float = 0.0,
) -> AskedSlots:  # fmt: skip
    return AskedSlots(cell, rate, burst, want, back, accepted, refused, guess, 0.0)


async def take(store: Store, cell: bytes, **question: Any) -> GrantedSlots:
    (granted,) = await store.take_slots([asked(cell, **question)])
    return granted


@pytest.fixture
async def cell(world: World, store: Store) -> bytes:
    """An own cell, all of whose burst is there."""
    identity = world.subscribe()
    await store.make_cells([identity])
    return identity


def go_back(world: World, cell: bytes, seconds: float, column: str = "measured_from") -> None:
    """Let so many seconds have passed for a cell."""
    world.rows(
        f"update outbox.limits set {column} = {column} - make_interval(secs => %s) where id = %s",
        seconds,
        uuid_of(cell),
    )


# --- the cell


async def test_a_cell_gives_the_slots_of_the_next_tenth_of_a_second_once(
    cell: bytes, store: Store, other_store: Store
) -> None:
    began = time.monotonic()
    first, second = await take(store, cell), await take(other_store, cell)
    assert (first.slots, first.interval, first.first) == (11, 0.01, 0.0)
    assert second.slots <= 1 + 100 * (time.monotonic() - began), "what the time between the two statements allows"
    assert AHEAD_SECONDS < second.next <= AHEAD_SECONDS + 0.01


async def test_of_two_relays_at_the_same_time_each_gets_others_slots(
    cell: bytes, store: Store, other_store: Store
) -> None:
    began = time.monotonic()
    both = await asyncio.gather(take(store, cell), take(other_store, cell))
    assert 11 <= sum(one.slots for one in both) <= 12 + 100 * (time.monotonic() - began)


async def test_a_relay_that_waited_for_a_cell_sees_what_the_other_took(world: World, cell: bytes, store: Store) -> None:
    with world.open() as other:
        other.execute("update outbox.limits set allowed_at = clock_timestamp() + interval '1 s'")
        waiting = asyncio.create_task(take(store, cell))
        await await_until(lambda: world.value(WAITING))
    assert (await waiting).slots <= 1


async def test_what_was_not_used_is_given_back(cell: bytes, store: Store, other_store: Store) -> None:
    await take(store, cell, rate=0.01, burst=5)
    none = await take(other_store, cell, rate=0.01, burst=5)
    assert none.slots == 0
    await take(store, cell, rate=0.01, burst=5, want=0, back=3)
    again = await take(other_store, cell, rate=0.01, burst=5)
    assert again.slots == 3


async def test_a_burst_comes_back_with_time_and_is_never_larger(world: World, cell: bytes, store: Store) -> None:
    go_back(world, cell, 3600, "allowed_at")
    granted = await take(store, cell, rate=1.0, burst=10)
    assert granted.slots == 10
    assert granted.late == pytest.approx(0.25)
    assert granted.next == pytest.approx(1.0)


async def test_a_higher_limit_is_not_bound_by_what_a_lower_one_gave(cell: bytes, store: Store) -> None:
    await take(store, cell, rate=1 / 3600)
    granted = await take(store, cell, rate=100.0)
    assert granted.next < 1.0


async def test_a_cell_that_is_not_there_is_left_out(world: World, store: Store) -> None:
    identity = world.subscribe()
    assert await store.take_slots([asked(identity)]) == []
    await store.make_cells([identity, identity])
    assert (await take(store, identity)).slots == 11


# --- what a receiver takes


async def test_without_a_refusal_nothing_is_slowed(world: World, cell: bytes, store: Store) -> None:
    granted = await take(store, cell, rate=None, accepted=50)
    assert (granted.slots, granted.interval, granted.slowed_to) == (0, None, None)


async def test_the_first_refusal_begins_with_a_guess(cell: bytes, store: Store) -> None:
    granted = await take(store, cell, rate=None, refused=1, guess=50.0)
    assert granted.slowed_to == 50.0
    assert granted.interval == pytest.approx(0.02)


async def test_after_a_second_with_refusals_the_rate_is_what_was_taken(world: World, cell: bytes, store: Store) -> None:
    began = time.monotonic()
    await take(store, cell, rate=None, refused=1, guess=150.0)
    go_back(world, cell, 1.0)
    granted = await take(store, cell, rate=None, accepted=20, refused=200)
    assert granted.slowed_to is not None
    assert 20 / (1 + time.monotonic() - began) <= granted.slowed_to <= 20, "it was taken in that second and since"


async def test_within_the_second_nothing_changes_but_all_is_counted(world: World, cell: bytes, store: Store) -> None:
    await take(store, cell, rate=None, refused=1, guess=100.0)
    assert (await take(store, cell, rate=None, accepted=20, refused=200)).slowed_to == 100.0
    assert world.rows("select accepted, refused from outbox.limits") == [(20, 200)]


async def test_without_refusals_the_rate_rises_by_a_twentieth_then_faster(
    world: World, cell: bytes, store: Store
) -> None:
    await take(store, cell, rate=None, refused=1, guess=120.0)
    go_back(world, cell, 1.0)
    found = (await take(store, cell, rate=None, accepted=100, refused=10)).slowed_to
    assert found is not None
    rates = [found]
    for _ in range(8):
        go_back(world, cell, 1.0)
        granted = await take(store, cell, rate=None, accepted=int(rates[-1]))
        assert granted.slowed_to is not None
        rates.append(granted.slowed_to)
    growth = [after / before for before, after in pairwise(rates)]
    assert growth[:3] == pytest.approx([1.05] * 3)
    assert growth == sorted(growth)
    assert growth[-1] == pytest.approx(2.0)


async def test_a_rate_that_nobody_needs_does_not_rise_and_ends(world: World, cell: bytes, store: Store) -> None:
    await take(store, cell, rate=None, refused=1, guess=100.0)
    seen = []
    for _ in range(31):
        go_back(world, cell, 1.0)
        seen.append((await take(store, cell, rate=None, accepted=3)).slowed_to)
    assert seen == [100.0] * seen.index(None) + [None] * (31 - seen.index(None))
    assert 20 <= seen.index(None) <= 30


async def test_a_receiver_that_takes_nothing_is_asked_rarely_and_comes_back_soon(
    world: World, cell: bytes, store: Store
) -> None:
    await take(store, cell, rate=None, refused=1, guess=100.0)
    for _ in range(20):
        go_back(world, cell, 6.0)
        granted = await take(store, cell, rate=None, refused=1)
    assert granted.slowed_to == 0.1
    steps = 0
    while (granted.slowed_to or 1e9) < 20:
        go_back(world, cell, 6.0)
        granted = await take(store, cell, rate=None, accepted=max(1, int(6 * (granted.slowed_to or 0))))
        steps += 1
    assert steps <= 9


async def test_what_was_learnt_is_forgotten_after_ten_minutes(world: World, cell: bytes, store: Store) -> None:
    await take(store, cell, rate=None, refused=1, guess=5.0)
    go_back(world, cell, 30.0)
    assert (await take(store, cell, rate=None, refused=3)).slowed_to == 5.0, "too old to be measured by"
    go_back(world, cell, 601.0)
    assert (await take(store, cell, rate=None)).slowed_to is None
    (known,) = await store.read_subscriptions([cell])
    assert known.slowed_to is None


async def test_a_new_process_reads_what_the_receiver_takes(world: World, cell: bytes, store: Store) -> None:
    await take(store, cell, rate=None, refused=1, guess=5.0)
    (known,) = await store.read_subscriptions([cell])
    assert known.slowed_to == 5.0
    go_back(world, cell, 601.0)
    (known,) = await store.read_subscriptions([cell])
    assert known.slowed_to is None


async def test_the_own_limit_holds_where_the_receiver_takes_more(cell: bytes, store: Store) -> None:
    granted = await take(store, cell, rate=10.0, burst=3, refused=1, guess=500.0)
    assert (granted.interval, granted.slowed_to) == (0.1, 500.0)


# --- the cap


def share(cell: bytes, cap: int, want: int, keep: int = 0, seconds: float = 30.0) -> AskedShare:
    return AskedShare(cell, cap, want, keep, seconds)


async def test_a_cap_is_shared_by_halves(cell: bytes, store: Store, other_store: Store) -> None:
    one, two = b"1" * 16, b"2" * 16
    taken = [(await store.take_in_flight(one, [share(cell, 10, 64)]))[0].slots]
    taken += [(await other_store.take_in_flight(two, [share(cell, 10, 64)]))[0].slots]
    for _ in range(3):
        taken += [(await store.take_in_flight(one, [share(cell, 10, 64, taken[0])]))[0].slots]
    assert taken == [5, 3, 6, 7, 7]


async def test_a_share_ends_with_its_time_and_no_sooner(world: World, cell: bytes, store: Store) -> None:
    one, two = b"1" * 16, b"2" * 16
    await store.take_in_flight(one, [share(cell, 1, 1)])
    (refused,) = await store.take_in_flight(two, [share(cell, 1, 1)])
    assert refused.slots == 0
    assert 25 < refused.others_end <= 30
    world.rows("update outbox.in_flight set ends_at = clock_timestamp() - interval '1 s'")
    (granted,) = await store.take_in_flight(two, [share(cell, 1, 1)])
    assert granted.slots == 1
    assert world.rows("select holder from outbox.in_flight") == [(uuid_of(two),)]


async def test_a_share_that_is_given_back_is_free_at_once(world: World, cell: bytes, store: Store) -> None:
    one, two = b"1" * 16, b"2" * 16
    await store.take_in_flight(one, [share(cell, 1, 1)])
    await store.take_in_flight(one, [share(cell, 1, 0)])
    assert world.count("in_flight") == 0
    assert (await store.take_in_flight(two, [share(cell, 1, 1)]))[0].slots == 1


async def test_a_relay_that_waited_for_a_cap_sees_what_the_other_took(world: World, cell: bytes, store: Store) -> None:
    with world.open() as other:
        other.execute("select from outbox.limits for update")
        other.execute(
            "insert into outbox.in_flight select id, outbox.uuid7(), 2, now() + interval '1 minute' from outbox.limits"
        )
        waiting = asyncio.create_task(store.take_in_flight(b"1" * 16, [share(cell, 2, 2)]))
        await await_until(lambda: world.value(WAITING))
    assert (await waiting)[0].slots == 0


async def test_what_is_under_way_is_kept_under_a_lower_cap(cell: bytes, store: Store) -> None:
    one = b"1" * 16
    await store.take_in_flight(one, [share(cell, 10, 10)])
    (kept,) = await store.take_in_flight(one, [share(cell, 2, 2, keep=4)])
    assert kept.slots == 4


async def test_two_relays_that_ask_at_once_never_get_more_than_the_cap(
    world: World, store: Store, other_store: Store
) -> None:
    cells = [world.subscribe() for _ in range(20)]
    await store.make_cells(cells)
    one, two = b"1" * 16, b"2" * 16
    for _ in range(5):
        await asyncio.gather(
            store.take_in_flight(one, [share(cell, 3, 3) for cell in cells]),
            other_store.take_in_flight(two, [share(cell, 3, 3) for cell in reversed(cells)]),
        )
        assert (
            max(row[0] for row in world.rows("select sum(slots) from outbox.in_flight group by subscription_id")) <= 3
        )


# --- the engine


async def test_two_relays_together_keep_a_limit(world: World) -> None:
    far_end = Log()
    set_limit(world, world.subscribe(), rate_limit="50/s", rate_burst=10)
    world.record(count=160)
    async with running(world.url, far_end), running(world.url, far_end):
        await await_until(lambda: len(far_end.requests) == 160)
        await await_until(lambda: not world.count("deliveries"))
    assert far_end.most_in_a_second() <= 60
    assert far_end.times["/"][-1] - far_end.times["/"][0] >= (160 - 10) / 50 - 0.1
    assert world.count("attempts", "number > 1") == 0


async def test_what_has_to_wait_is_neither_leased_nor_charged_nor_asked_for(world: World) -> None:
    far_end = Log()
    set_limit(world, world.subscribe(), rate_limit="1/h")
    world.record(count=50)
    async with stepping(world.url, far_end) as relay:
        await await_until(lambda: _looked(relay, lambda: len(far_end.requests) == 1))
        await relay.settled()
        for _ in range(5):
            await relay.look()
        assert world.rows("select count(*), max(attempts), count(lease) from outbox.deliveries") == [(49, 0, 0)]
        assert not relay.feeder.due
        assert relay.feeder.limiter.rest_until > time.monotonic() + 3000
        asked_at = world.value("select xmin from outbox.limits")
        for _ in range(5):
            await relay.look()
        assert world.value("select xmin from outbox.limits") == asked_at, "the cell was not asked again"


async def _looked(relay: Any, condition: Any) -> bool:
    await relay.look()
    return bool(condition())


async def test_a_limit_that_is_lifted_lets_what_waits_go(world: World) -> None:
    far_end = Log()
    identity = world.subscribe()
    set_limit(world, identity, rate_limit="1/h")
    world.record(count=20)
    async with running(world.url, far_end):
        await await_until(lambda: len(far_end.requests) == 1)
        set_limit(world, identity, rate_limit=None)
        await await_until(lambda: len(far_end.requests) == 20)


async def test_a_limited_endpoint_does_not_delay_another(world: World) -> None:
    far_end = Log()
    set_limit(world, world.subscribe("slow.x", path="/slow"), rate_limit="1/h")
    world.subscribe("quick.x", path="/quick")
    world.record("slow.x", count=300)
    world.record("quick.x", count=300)
    async with running(world.url, far_end):
        await await_until(lambda: len(far_end.times.get("/quick", ())) == 300)
    assert len(far_end.times["/slow"]) == 1


async def test_a_tenants_endpoints_share_its_limit(world: World) -> None:
    far_end = Log()
    for number in range(4):
        world.subscribe(path=f"/{number}", tenant="acme")
    world.subscribe(path="/other", tenant="other")
    world.rows("insert into outbox.tenant_limits (tenant, rate_limit, rate_burst) values ('acme', '40/s', 8)")
    world.record(count=30, tenant="acme")
    world.record(count=30, tenant="other")
    paths = [f"/{number}" for number in range(4)]
    async with running(world.url, far_end), running(world.url, far_end):
        await await_until(lambda: len(far_end.requests) == 150)
    assert far_end.most_in_a_second(*paths) <= 48
    assert far_end.times["/other"][-1] < max(far_end.times[path][-1] for path in paths)


async def test_a_tenants_limit_that_changes_is_followed(world: World) -> None:
    far_end = Log()
    world.subscribe(tenant="acme")
    world.rows("insert into outbox.tenant_limits (tenant, rate_limit) values ('acme', '1/h')")
    world.record(count=20, tenant="acme")
    async with running(world.url, far_end):
        await await_until(lambda: len(far_end.requests) == 1)
        world.rows("delete from outbox.tenant_limits")
        await await_until(lambda: len(far_end.requests) == 20)


async def test_two_relays_together_keep_a_cap(world: World) -> None:
    far_end = Log()
    set_limit(world, world.subscribe(), max_in_flight=3)
    freed = far_end.hold("/")
    world.record(count=60)
    async with running(world.url, far_end), running(world.url, far_end):
        await await_until(lambda: far_end.in_flight == 3)
        await await_until(lambda: not world.count("pending"))
        assert world.rows("select sum(attempts) <= 6 from outbox.deliveries") == [(True,)], "nothing is leased in vain"
        freed.set()
        await await_until(lambda: len(far_end.requests) == 60)
    assert far_end.most_in_flight["/"] == 3


async def test_the_share_of_a_relay_that_is_gone_comes_back_when_its_requests_must_have_ended(world: World) -> None:
    gone, far_end = Log(), Log()
    set_limit(world, world.subscribe(timeout=1), max_in_flight=2)
    gone.hold("/")
    world.record(count=10)
    doomed = Relay(world.url, gone)
    doomed.start()
    await await_until(lambda: gone.in_flight == 2)
    await doomed.crash()
    async with running(world.url, far_end):
        await await_until(lambda: not world.count("pending"))
        assert not far_end.requests, "the cap is taken by what the other relay may have under way"
        world.rows("update outbox.in_flight set ends_at = clock_timestamp() - interval '1 s'")
        await await_until(lambda: len(far_end.requests) >= 8)


async def test_a_crash_after_slots_were_taken_loses_a_moment_of_the_rate(world: World) -> None:
    far_end = Log()
    set_limit(world, world.subscribe(), rate_limit="20/s")
    world.record(count=10)
    doomed = Relay(world.url, far_end)
    doomed.start()
    await await_until(lambda: far_end.requests)
    await doomed.crash()
    lost = world.value("select allowed_at - clock_timestamp() from outbox.limits")
    assert lost.total_seconds() <= AHEAD_SECONDS + 2 / 20
    world.expire()
    async with running(world.url, far_end):
        await await_until(lambda: world.count("deliveries", "lease is null") == 0)


async def test_an_endpoint_without_limits_has_no_cell_and_no_gate(world: World) -> None:
    far_end = Log()
    identity = world.subscribe()
    world.record(count=50)
    async with running(world.url, far_end) as relay:
        await await_until(lambda: len(far_end.requests) == 50)
        endpoint = relay.endpoints.get(identity)
        assert endpoint is not None
        assert endpoint.gate is None
        assert not relay.endpoints.gated
    assert world.count("limits") == 0


# --- a receiver that asks for fewer requests


class Takes(Log):
    """A receiver that takes so many a second and refuses what comes beyond, with this answer."""

    def __init__(self, rate: float, refusal: Outcome) -> None:
        super().__init__()
        self.rate, self.refusal = rate, refusal
        self.accepted = self.refused = 0
        self._tokens, self._at = rate, time.monotonic()
        self.script["/"] = self._answer

    async def _answer(self) -> Outcome:
        now = time.monotonic()
        self._tokens = min(self.rate, self._tokens + (now - self._at) * self.rate)
        self._at = now
        await asyncio.sleep(0.01)
        if self._tokens < 1:
            self.refused += 1
            return self.refusal
        self._tokens -= 1
        self.accepted += 1
        return DELIVERED


class Way(FarEnd):
    """One relay's way to a receiver. `too_early`: how often it was refused before anything of it was taken."""

    def __init__(self, receiver: Takes) -> None:
        super().__init__()
        self.receiver = receiver
        self.accepted = self.too_early = 0

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        outcome = await self.receiver.send(endpoint, headers, body, timeout_seconds)
        self.accepted += outcome is DELIVERED
        self.too_early += not self.accepted
        return outcome


TOO_MANY = Outcome(kind=OutcomeKind.HTTP_4XX, status=429, milliseconds=1)
UNAVAILABLE = Outcome(kind=OutcomeKind.HTTP_5XX, status=503, milliseconds=1)


@pytest.mark.slow
@pytest.mark.field("F04")
@pytest.mark.parametrize("refusal", [TOO_MANY, UNAVAILABLE], ids=["429", "503"])
async def test_a_receiver_is_sent_what_it_takes_and_gets_everything(world: World, refusal: Outcome) -> None:
    """No refusal is charged, but those that a relay gets before the receiver has ever taken anything from it."""
    far_end = Takes(100.0, refusal)
    ways = [Way(far_end), Way(far_end)]
    world.subscribe(schedule=[1, 2, 4])
    world.record(count=700)
    async with running(world.url, ways[0]), running(world.url, ways[1]):
        await await_until(lambda: far_end.accepted == 700, timeout_seconds=30)
        await await_until(lambda: not world.count("deliveries"))
    assert world.count("dead_letters") == 0
    assert far_end.times["/"][-1] - far_end.times["/"][0] <= 2 * 600 / 100
    assert far_end.refused <= 350
    assert far_end.most_in_a_second(after=3.0) <= 220
    too_early = sum(way.too_early for way in ways)
    assert world.count("attempts", "status >= 400 and outcome <> 'slowed'") == too_early
    assert (
        world.value(
            "select count(*) from outbox.attempts a where number > 1 and not exists (select from outbox.attempts b"
            " where b.delivery_id = a.delivery_id and b.status >= 400 and b.outcome <> 'slowed')"
        )
        == 0
    )  # nothing else was charged
    assert world.count("attempts", "outcome = 'slowed' and verdict = 'retry'") == far_end.refused - too_early


async def test_a_receiver_that_takes_nothing_is_not_slowed_but_fails(world: World) -> None:
    far_end = FarEnd()
    far_end.script["/"] = UNAVAILABLE
    world.subscribe(schedule=[])
    world.record(count=3)
    async with running(world.url, far_end):
        await await_until(lambda: world.count("dead_letters") == 3)
    assert world.count("limits") == 0
    assert {row[0] for row in world.rows("select outcome from outbox.attempts")} == {"http_5xx"}


async def test_a_delivery_that_is_never_taken_is_charged_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.engine.slowing.UNCHARGED_MAX", 2)
    monkeypatch.setattr("relay.engine.slowing.WAIT_MAX_SECONDS", 0.0)
    far_end = FarEnd()
    world.subscribe(schedule=[0])
    async with running(world.url, far_end):
        world.record()
        await await_until(lambda: len(far_end.requests) == 1)
        far_end.script["/"] = UNAVAILABLE
        world.record()
        await await_until(lambda: world.count("dead_letters") == 1)
    told = world.rows("select number, outcome, verdict from outbox.attempts where status = 503 order by at")
    assert told == [(1, "slowed", "retry"), (1, "slowed", "retry"), (1, "http_5xx", "retry"), (2, "http_5xx", "dead")]
