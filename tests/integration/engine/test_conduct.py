"""What endpoints ask for, and what people decide about them: 410, Retry-After, final statuses, pause, disable.

Whatever closes an endpoint, nothing of it is asked or charged meanwhile, and all of it goes on afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, cast

import pytest

from relay.engine.feeder import Part
from relay.http import AddressPolicy, DirectDialler, HttpSender
from relay.model import decide
from relay.model.outcome import Outcome, Scope
from relay.model.verdict import Hold, VerdictKind
from relay.store.consequences import HOLD_ALIKE_MAX
from relay.store.fan_out import new_ids
from relay.store.lease import new_lease
from relay.store.rows import Birth
from relay.store.store import Store
from tests.integration.engine.world import (
    ERROR_500,
    FarEnd,
    PlanWatch,
    Relay,
    World,
    fan_out,
    held,
    result,
    running,
    stepping,
    uuid_of,
)
from tests.support.scripted_receiver import Exchange, receiving, response
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1/"
OPENED_AGAIN = "paused_at = null, disabled_at = null, disabled_reason = null, held_until = null"
NOT_SENDABLE = {
    "paused": "paused_at = now()",
    "disabled": "disabled_at = now(), disabled_reason = 'broken'",
    "held": "held_until = now() + interval '1 hour'",
}


def answer(status: int, retry_after_seconds: float | None = None) -> Outcome:
    kind = "http_5xx" if status >= 500 else "http_4xx"
    return Outcome(kind=kind, status=status, milliseconds=1, retry_after_seconds=retry_after_seconds)  # type: ignore[arg-type]


GONE = answer(410)


def change(world: World, what: str) -> None:
    world.rows(f"update outbox.subscriptions set {what}")


HELD_FOR = "extract(epoch from held_until - clock_timestamp())"


def held_for(world: World) -> float:
    """Seconds until the hold of the one subscription ends."""
    return float(world.value(f"select {HELD_FOR} from outbox.subscriptions"))


async def one_on_the_wire(relay: Relay, far_end: FarEnd) -> None:
    """Look until the single place of the endpoint is taken."""
    await relay.look()
    await await_until(lambda: far_end.in_flight == 1)


async def drain(world: World, relay: Relay) -> None:
    """Look until everything is delivered; each look sends at least one."""
    for _ in range(1 + world.count("deliveries")):
        await relay.look()
        await relay.settled()
    assert world.count("deliveries") == 0


# -- 410 Gone


@pytest.mark.parametrize("schedule", [(3600,), ()], ids=["first attempt", "last attempt"])
async def test_410_disables_and_what_was_due_stays_due_unasked_and_uncharged(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture, schedule: tuple[int, ...]
) -> None:
    subscription = world.subscribe(schedule=schedule)
    world.record(count=20)
    far_end.script["/"] = GONE
    with caplog.at_level(logging.WARNING, "relay"):
        async with stepping(world.url, far_end, per_endpoint=1) as relay:
            await relay.look()
            await relay.settled()
            for _ in range(3):
                await relay.look()
            assert len(far_end.requests) == 1
            assert world.rows("select status, verdict from outbox.attempts") == [(410, "retry")]
            assert world.count("deliveries", "lease is null and due_at <= now() and attempts = 0") == 19
            assert world.count("deliveries", "lease is null and due_at <= now() and attempts = 1") == 1
            ((reason, version),) = world.rows("select disabled_reason, version from outbox.subscriptions")
            assert (reason, version) == ("the endpoint answered 410 Gone", 3)
            del far_end.script["/"]
            change(world, OPENED_AGAIN)
            await drain(world, relay)
    assert len(far_end.requests) == 21
    assert world.count("dead_letters") == 0
    said = [record.message for record in caplog.records]
    name = world.value("select outbox.text_id('sub', %s)", uuid_of(subscription))
    assert said == [f"{name} is disabled: its endpoint answered 410 Gone; relay subscriptions resume {name}"]


@pytest.mark.parametrize("known", [False, True], ids=["unknown here", "known here"])
async def test_410_of_an_older_url_disables_nothing_and_the_delivery_goes_to_the_newer(
    world: World, far_end: FarEnd, *, known: bool
) -> None:
    world.subscribe(path="/old")
    world.record()
    freed = far_end.hold("/old", GONE)
    async with stepping(world.url, far_end) as relay:
        await one_on_the_wire(relay, far_end)
        change(world, "url = 'http://127.0.0.1/new'")
        if known:
            await relay.look()
        freed.set()
        await relay.settled()
        assert world.count("subscriptions", "disabled_at is null") == 1
        await drain(world, relay)
    assert far_end.paths() == ["/old", "/new"]


async def test_410_while_an_application_has_the_subscription_locked_holds_up_no_result(
    world: World, far_end: FarEnd
) -> None:
    """The row is passed over; the endpoint is asked once more, and then disabled."""
    world.subscribe(path="/gone")
    far_end.script["/gone"] = GONE
    async with stepping(world.url, far_end) as relay:
        with world.open() as application:
            application.execute("update outbox.subscriptions set description = 'x'")
            world.record()
            await relay.look()
            await await_until(lambda: world.count("attempts") == 1)
            assert world.count("subscriptions", "disabled_at is null") == 1
            application.commit()
        for _ in range(2):
            await relay.look()
            await relay.settled()
    assert world.count("subscriptions", "disabled_at is not null") == 1
    assert len(far_end.requests) == 2


async def test_a_relay_closes_endpoints(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=2)
    births = await fan_out(store, leased=True)
    for birth, change in zip(births, (Hold(60.0), decide.GONE), strict=True):
        await store.settle([result(held(birth), VerdictKind.RETRY, 60.0, change, url=URL)])
    assert world.count("subscriptions", "disabled_at is not null and held_until > now()") == 1


async def test_what_is_disabled_already_keeps_its_reason(world: World, store: Store) -> None:
    world.subscribe()
    world.record()
    (birth,) = await fan_out(store, leased=True)
    change(world, NOT_SENDABLE["disabled"])
    gone = result(held(birth), VerdictKind.RETRY, 0.0, decide.GONE, url=URL)
    assert (await store.settle([gone])).disabled == frozenset()
    assert world.value("select disabled_reason from outbox.subscriptions") == "broken"


# -- Retry-After


@pytest.mark.case("E13")
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_holds_back_the_whole_endpoint(world: World, far_end: FarEnd, status: int) -> None:
    world.subscribe(schedule=(5, 5))
    world.record(count=20)
    far_end.script["/"] = answer(status, 600.0)
    async with stepping(world.url, far_end, per_endpoint=1) as relay:
        await relay.look()
        await relay.settled()
        assert 590 < held_for(world) <= 600
        world.record(count=2)
        for _ in range(3):
            await relay.look()
        assert len(far_end.requests) == 1
        assert world.count("deliveries", "lease is null and attempts = 1 and due_at > now()") == 1
        assert world.count("deliveries", "lease is null and attempts = 0 and due_at <= now()") == 21
    assert world.value("select version from outbox.subscriptions") == 2, "a hold makes no relay read it again"


@pytest.mark.parametrize("how", ["held_until = null", "held_until = null, url = 'http://127.0.0.1/new'"])
async def test_a_hold_that_is_lifted_leaves_nothing_behind(world: World, far_end: FarEnd, how: str) -> None:
    """What was given back and what was told to wait go out now, not when the hold would have ended."""
    world.subscribe(schedule=(0,))
    world.record(count=5)
    far_end.script["/"] = answer(429, 86_400.0)
    async with stepping(world.url, far_end, per_endpoint=1) as relay:
        await relay.look()
        await relay.settled()
        assert len(far_end.requests) == 1
        del far_end.script["/"]
        change(world, how)
        await drain(world, relay)
    assert world.count("attempts", "verdict = 'delivered'") == 5


async def test_a_hold_ends_by_itself_and_what_waited_goes_out(world: World, far_end: FarEnd) -> None:
    world.subscribe(schedule=(0,))
    world.record(count=4)
    far_end.script["/"] = answer(429, 0.3)
    async with running(world.url, far_end, per_endpoint=1):
        await await_until(lambda: world.count("attempts") == 1)
        del far_end.script["/"]
        await await_until(lambda: world.count("deliveries") == 0)
    first, second = world.rows("select at from outbox.attempts order by at limit 2")
    assert (second[0] - first[0]).total_seconds() >= 0.25


async def test_after_a_hold_a_subscription_is_asked_again_though_no_row_fell_due_with_it(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the sweep come by: it looks at few of many subscriptions at a time."""
    monkeypatch.setattr("relay.engine.sweep.SLICE", 1)
    world.subscribe(path="/held", schedule=())
    for _ in range(50):
        world.subscribe("others")
    world.record()
    far_end.script["/held"] = answer(429, 1.5)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        del far_end.script["/held"]
        world.record()
        await relay.look()
        assert far_end.paths() == ["/held"]
        await asyncio.sleep(1.5)
        world.rows("update outbox.deliveries set due_at = now() - interval '1 min'")
        await relay.look()
        await relay.settled()
    assert far_end.paths() == ["/held", "/held"]


async def test_a_process_that_knows_nothing_of_a_hold_keeps_it(world: World, far_end: FarEnd) -> None:
    """Another relay heard the Retry-After; this one finds the rows due, or makes them."""
    world.subscribe()
    change(world, NOT_SENDABLE["held"])
    world.record(count=3)
    async with stepping(world.url, far_end) as relay:
        for _ in range(3):
            await relay.look()
        assert far_end.requests == []
        change(world, "held_until = clock_timestamp()")
        await relay.look()
        await relay.settled()
    assert len(far_end.requests) == 3


async def test_a_success_does_not_end_a_hold_that_another_answer_began(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=2)
    answers = [answer(429, 600.0)]
    succeed = far_end.hold("/")
    slow = far_end.script["/"]

    async def first_fails() -> Outcome:
        return answers.pop() if answers else await slow()  # type: ignore[operator]

    far_end.script["/"] = first_fails
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await await_until(lambda: world.count("attempts") == 1)
        succeed.set()
        await relay.settled()
        assert world.count("attempts", "verdict = 'delivered'") == 1
        assert held_for(world) > 590


async def test_a_hold_is_written_only_when_it_ends_later_by_a_second(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=5)
    births = await fan_out(store, leased=True)

    async def settle(seconds: float, url: str = URL) -> Any:
        asked = result(held(births.pop()), VerdictKind.RETRY, seconds, Hold(seconds), url=url)
        await store.settle([asked])
        return world.value("select held_until from outbox.subscriptions")

    first = await settle(60.0)
    assert await settle(60.5) == first
    assert await settle(10.0) == first
    assert await settle(600.0, "http://127.0.0.1/former") == first, "it was asked of another URL"
    assert await settle(90.0) > first


async def test_of_many_holds_in_a_batch_the_longest_counts(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=3)
    holds = zip(await fan_out(store, leased=True), (30.0, 900.0, 60.0), strict=True)
    batch = [result(held(birth), VerdictKind.RETRY, seconds, Hold(seconds), url=URL) for birth, seconds in holds]
    await store.settle(batch)
    assert held_for(world) > 890


async def test_a_hold_of_all_alike_is_written_to_those_of_the_same_format_and_receiver(
    world: World, store: Store
) -> None:
    url, url_443 = "https://discord.com/api/webhooks/1/t", "https://discord.com:443/api/webhooks/1/t"
    shapes = {
        "asked": ("discord", url, ""),
        "same": ("discord", "https://discord.com/api/webhooks/2/t", ""),
        "other name": ("discord", "https://canary.discord.com/api/webhooks/3/t", ""),
        "held longer": ("discord", "https://discord.com/api/webhooks/4/t", ", held_until = now() + interval '9 hours'"),
        "own port": ("discord", "https://discord.com:443/api/webhooks/8/t", ""),
        "by hand": ("discord", "https://PTB.Discord.com/api/webhooks/9/t", ""),
        "other host": ("discord", "https://relay.example/api/webhooks/5/t", ""),
        "other port": ("discord", "https://discord.com:8443/api/webhooks/6/t", ""),
        "other format": ("raw", "https://discord.com/api/webhooks/7/t", ""),
        "disabled": ("discord", "https://discord.com/a", ", disabled_at = now(), disabled_reason = 'mine'"),
        "removed": ("discord", "https://discord.com/b", ", removed_at = now()"),
    }
    ids = {name: uuid_of(world.subscribe("a.*" if name == "asked" else "none.at_all")) for name in shapes}
    for name, (form, at, more) in shapes.items():
        world.rows(f"update outbox.subscriptions set format = %s, url = %s{more} where id = %s", form, at, ids[name])
    world.record(count=3)
    births = await fan_out(store, leased=True)

    async def held_after(seconds: float, asked_url: str = url, scope: Scope = Scope.RECEIVER) -> set[str]:
        hold = Hold(seconds, scope)
        settled = await store.settle([result(held(births.pop()), VerdictKind.RETRY, 1.0, hold, url=asked_url)])
        return {name for name, identity in ids.items() if identity.bytes in settled.held_alike}

    assert await held_after(4.0) == set(), "short ones are the business of the process that was told"
    assert await held_after(600.0, "https://discord.com/api/webhooks/former") == set()
    assert await held_after(600.0) == {"same", "other name", "own port", "by hand"}
    later = "held_until between clock_timestamp() + interval '590 s' and clock_timestamp() + interval '600 s'"
    assert world.count("subscriptions", later) == 5

    world.record(count=3)
    births += await fan_out(store, leased=True)
    world.rows(
        "update outbox.subscriptions set held_until = clock_timestamp() + interval '400 s' where id = %s", ids["same"]
    )
    assert await held_after(600.0) == set(), "not written again for each answer"
    world.rows(
        "update outbox.subscriptions set held_until = clock_timestamp() + interval '200 s' where id = %s", ids["same"]
    )
    assert await held_after(600.0) == {"same"}
    world.rows("update outbox.subscriptions set url = %s, held_until = null where id = %s", url_443, ids["asked"])
    assert await held_after(1500.0, url_443) == {"same", "other name", "own port", "by hand"}


async def test_an_answer_at_a_host_of_many_holds_only_who_gave_it(world: World, store: Store) -> None:
    mine = world.subscribe("a.*")
    world.subscribe("none.at_all", tenant="another")
    world.rows("update outbox.subscriptions set format = 'discord', url = 'https://webhook.site/' || types[1]")
    world.record()
    (birth,) = await fan_out(store, leased=True)
    hold = Hold(600.0, Scope.RECEIVER)
    settled = await store.settle([result(held(birth), VerdictKind.RETRY, 1.0, hold, url="https://webhook.site/a.*")])
    assert (settled.held, settled.held_alike) == ({mine}, frozenset())
    assert world.count("subscriptions", "held_until is not null") == 1


async def test_many_answers_hold_no_more_than_one_and_scan_once(own_world: World) -> None:
    """All results of the batch wait meanwhile."""
    world = own_world
    for form in ("discord", "raw"):
        world.rows(
            "insert into outbox.subscriptions (url, types, format) select"
            " case when n > 10 then 'https://ptb.discord.com/' else 'https://discord.com/' end || n, '{none}', %s"
            " from generate_series(1, 190) n",
            form,
        )
    world.rows("analyze outbox.subscriptions")
    asked = world.rows("select id, url from outbox.subscriptions where url ~ '//discord' order by id")
    assert len(asked) == 20
    births = [Birth(one, 1, row[0].bytes, None, 1, None) for one, row in zip(new_ids(20), asked, strict=True)]
    answers = [
        result(held(birth), VerdictKind.RETRY, 1.0, Hold(590.0 + number, Scope.RECEIVER), url=url)
        for number, (birth, (_, url)) in enumerate(zip(births, asked, strict=True))
    ]
    watch = PlanWatch(world.url)
    await watch.begin()
    settled = await watch.store.settle(answers)
    await watch.store.close()
    assert len(settled.held) == 20
    assert len(settled.held_alike) == HOLD_ALIKE_MAX
    scans = [node["Actual Loops"] for node in watch.nodes() if "split_part" in node.get("Filter", "")]
    assert scans == [2], "one for each format, whatever number of its endpoints answered"


async def test_a_hold_of_all_alike_waits_for_nobody(world: World, store: Store) -> None:
    world.subscribe("a.*")
    world.subscribe("none.at_all")
    url = "https://discord.com/api/webhooks/1/t"
    world.rows("update outbox.subscriptions set format = 'discord', url = %s", url)
    world.record()
    (birth,) = await fan_out(store, leased=True)
    with world.open() as person:
        person.execute("select from outbox.subscriptions where types = '{none.at_all}' for no key update")
        asked = result(held(birth), VerdictKind.RETRY, 1.0, Hold(600.0, Scope.RECEIVER), url=url)
        settled = await asyncio.wait_for(store.settle([asked]), 5)
    assert settled.held_alike == frozenset()
    assert world.count("subscriptions", "held_until is not null") == 1


async def test_the_last_attempt_may_ask_for_a_hold_too(world: World, far_end: FarEnd) -> None:
    world.subscribe(schedule=())
    world.record()
    far_end.script["/"] = answer(503, 600.0)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert world.count("dead_letters", "reason = 'http_5xx'") == 1
    assert held_for(world) > 590


IN_AN_HOUR = b"<in an hour>"  # stands for a date: cases are made when tests are collected, long before some run


@pytest.mark.case("E12", "E13")
@pytest.mark.parametrize(
    ("status", "line", "low", "high"),
    [
        (429, b"retry-after: 120", 110, 120),
        (503, b"Retry-After:  120 ", 110, 120),
        pytest.param(429, b"retry-after: " + IN_AN_HOUR, 3570, 3600, id="429-a date"),
        (503, b"retry-after: 99999999999", 86_390, 86_400),
        (429, b"retry-after: 0", 0, 0),
        (429, b"retry-after: Tue, 20 Oct 2015 07:30:00 GMT", 0, 0),
        (503, b"retry-after: -5", 0, 0),
        (503, b"retry-after: soon", 0, 0),
        (429, b"x: y", 0, 0),
        (500, b"retry-after: 120", 0, 0),
        (404, b"retry-after: 120", 0, 0),
        (301, b"retry-after: 120", 0, 0),
    ],
)
async def test_what_a_receiver_writes_on_the_wire_holds_its_endpoint_back(
    world: World, status: int, line: bytes, low: float, high: float
) -> None:
    """Never sooner than the schedule says, never later than a day."""

    async def behaviour(exchange: Exchange) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True).encode()
        await exchange.play(response(status, headers=line.replace(IN_AN_HOUR, date) + b"\r\n"))

    sender = HttpSender(DirectDialler(AddressPolicy(["127.0.0.0/8"], allow_http=True)), user_agent="test")
    async with receiving(behaviour) as receiver:
        world.subscribe(path=f":{receiver.port}/", schedule=(60, 60))
        world.record()
        async with stepping(world.url, cast(FarEnd, sender)) as relay:
            await relay.look()
            await relay.settled()
        await sender.close()
    assert low <= float(world.value(f"select coalesce({HELD_FOR}, 0) from outbox.subscriptions")) <= high
    ((waits, attempts),) = world.deliveries("extract(epoch from due_at - clock_timestamp())::float8, attempts")
    assert 50 <= waits <= 60, "its own wait is the schedule's, whoever lifts the hold"
    assert attempts == 1


# -- 4xx that are final


async def test_a_final_status_ends_its_delivery_at_once_and_others_are_tried_again(
    world: World, far_end: FarEnd
) -> None:
    for status in (404, 422):
        world.subscribe(str(status), path=f"/{status}", schedule=(3600, 3600))
    world.rows("update outbox.subscriptions set final_statuses = '{400,422}'")
    for status in (404, 422):
        world.record(str(status))
        far_end.script[f"/{status}"] = answer(status)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert world.rows("select reason, attempts, type from outbox.dead_letters") == [("http_4xx", 1, "422")]
    assert world.rows("select status, verdict from outbox.attempts order by status") == [(404, "retry"), (422, "dead")]


@pytest.mark.case("E36")
async def test_one_event_that_is_too_large_for_the_receiver_stops_no_other(world: World, far_end: FarEnd) -> None:
    world.subscribe(schedule=())
    bodies = []

    async def takes_small_ones() -> Outcome:
        bodies.append(far_end.requests[-1][2])
        return answer(413) if len(bodies[-1]) > 1000 else Outcome(kind="delivered", status=200, milliseconds=1)

    far_end.script["/"] = takes_small_ones
    world.record(count=3)
    world.record(payload='"' + "x" * 5000 + '"')
    world.record(count=3)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert world.count("attempts", "verdict = 'delivered'") == 6
    assert world.rows("select reason, length(payload) from outbox.dead_letters") == [("http_4xx", 5002)]


# -- pause, disable, remove: by people, at any moment


@pytest.mark.case("B34")
@pytest.mark.parametrize("how", [*NOT_SENDABLE, "removed"])
async def test_what_was_leased_and_has_not_begun_is_given_back(world: World, far_end: FarEnd, how: str) -> None:
    """Between claim and send: at the next sweep, which is within a second."""
    world.subscribe()
    async with stepping(world.url, far_end, max_in_flight=1) as relay:
        world.record()
        await relay.look()  # an endpoint that has answered is trusted with more
        await relay.settled()
        freed = far_end.hold("/")
        world.record(count=5)
        await one_on_the_wire(relay, far_end)
        assert relay.room.unbegun == 4
        change(world, NOT_SENDABLE.get(how, "removed_at = now()"))
        await relay.look()
        assert relay.room.unbegun == 0
        freed.set()
        await relay.settled()
        assert world.count("deliveries", "lease is null and attempts = 0") == 4
        for _ in range(3):
            await relay.look()
    assert len(far_end.requests) == 2


@pytest.mark.parametrize("how", NOT_SENDABLE)
async def test_what_gathered_goes_out_when_it_is_resumed_uncharged(world: World, far_end: FarEnd, how: str) -> None:
    """By a relay that knew it as not sendable, and knew of nothing due."""
    world.subscribe(schedule=())
    world.record(count=5)
    freed = far_end.hold("/")
    async with stepping(world.url, far_end, max_in_flight=1) as relay:
        await one_on_the_wire(relay, far_end)
        change(world, NOT_SENDABLE[how])
        await relay.look()
        world.record(count=5)
        await relay.look()
        freed.set()
        await relay.settled()
        assert world.count("deliveries", "attempts = 0") == 9
        change(world, OPENED_AGAIN)
        world.rows("update outbox.deliveries set due_at = now() - interval '1 h'")
        await relay.look()
        await await_until(lambda: world.count("deliveries") == 0)
    assert len(far_end.requests) == 10


@pytest.mark.parametrize("how", NOT_SENDABLE)
async def test_the_retry_clock_stands_still(world: World, far_end: FarEnd, how: str) -> None:
    """Retries fall due, leases end without a word: nothing is asked, charged, suspected or buried."""
    world.subscribe(schedule=(0, 0))
    world.record(count=2)
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        change(world, NOT_SENDABLE[how])
        world.record(count=2)
        await fan_out(relay.engine.feed_store, leased=True)
        world.expire()
        world.rows("update outbox.deliveries set due_at = now() - interval '1 day'")
        before = world.deliveries("id, attempts, crashes, due_at, lease")
        for _ in range(4):
            await relay.look()
        assert world.deliveries("id, attempts, crashes, due_at, lease") == before
        assert len(far_end.requests) == 2
        del far_end.script["/"]
        change(world, OPENED_AGAIN)
        await drain(world, relay)
    assert world.count("attempts", "verdict = 'delivered' and number = 2") == 2
    assert world.count("attempts", "verdict = 'delivered' and number = 1") == 2


@pytest.mark.parametrize("how", NOT_SENDABLE)
async def test_what_falls_due_meanwhile_is_claimed_in_vain_once(
    world: World, far_end: FarEnd, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The poll names it again and again; a process that learnt why it gets nothing does not ask again."""
    world.subscribe()
    async with stepping(world.url, far_end) as relay:
        world.record()
        await relay.look()
        await relay.settled()
        change(world, NOT_SENDABLE[how])
        claims: list[object] = []
        claim = relay.engine.feed_store.claim

        async def noted(*asked: Any) -> Any:
            claims.append(asked)
            return await claim(*asked)

        monkeypatch.setattr(relay.engine.feed_store, "claim", noted)
        for _ in range(5):
            world.record()
            await fan_out(store)
            await relay.feeder.step(Part.POLL)  # the sweep would tell why before it is asked
        assert world.count("deliveries", "due_at <= now()") == 5
        assert len(claims) == 1
        assert not relay.feeder.due, "read at every look, so thousands that are not sendable must not stay in it"
        change(world, OPENED_AGAIN)
        await relay.look()
        await relay.settled()
    assert len(far_end.requests) == 6


@pytest.mark.case("B6")
async def test_a_retry_goes_to_the_url_of_its_moment_signed_with_the_keys_of_its_moment(
    world: World, far_end: FarEnd
) -> None:
    world.subscribe(path="/old", schedule=(0,))
    world.record()
    far_end.script["/old"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        before = next(iter(relay.endpoints)).envelope
        change(world, "url = 'http://127.0.0.1/new'")
        await relay.look()
        await relay.settled()
        assert next(iter(relay.endpoints)).envelope is not before
    assert far_end.paths() == ["/old", "/new"]
    assert far_end.requests[0][1] == far_end.requests[1][1], "the same webhook-id"


async def test_only_what_may_be_sent_to_is_swept_and_claimed(world: World, store: Store) -> None:
    subscriptions = [world.subscribe() for _ in range(4)]
    active, *others = subscriptions
    for identity, how in zip(others, NOT_SENDABLE.values(), strict=True):
        world.rows(f"update outbox.subscriptions set {how} where id = %s", uuid_of(identity))
    world.record()
    await fan_out(store)
    assert [row.id for row in await store.sweep(bytes(16), 500)] == [active]
    known = {one.id: one.version for one in await store.read_subscriptions(subscriptions)}
    assert sorted(await store.find_changed(list(known.items()))) == sorted(others)
    for other in (known[active] - 1, known[active] + 1):  # after a failover a version may be lower than what was known
        assert await store.find_changed([(active, other)]) == [active], "it has another version"
    seconds = {one.id: one.sendable_in_seconds for one in await store.read_subscriptions(subscriptions)}
    assert [seconds[identity] for identity in subscriptions[:3]] == [0.0, float("inf"), float("inf")]
    assert 3590 < seconds[others[2]] <= 3600
    rows = await store.claim([(identity, 5) for identity in subscriptions], 50, 10**9, new_lease())
    assert [row.subscription_id for row in rows] == [active]
