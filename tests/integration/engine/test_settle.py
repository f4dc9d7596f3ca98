"""settle and release: success from whoever brings it, failure only from the holder of the lease, one row an attempt."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from outbox.ids import text_id
from relay.model.outcome import Outcome, OutcomeKind
from relay.model.verdict import VerdictKind
from relay.store import settlement
from relay.store.store import Store
from tests.integration.engine.world import (
    DELIVERED,
    ERROR_500,
    FarEnd,
    World,
    fan_out,
    held,
    result,
    stepping,
    uuid_of,
)
from tests.support.waiting import await_until, wait_until

pytestmark = pytest.mark.anyio

DEAD, OK, RETRY = VerdictKind.DEAD, VerdictKind.DELIVERED, VerdictKind.RETRY


async def test_a_mixed_batch_ends_each_delivery_as_its_verdict_says(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=4, payload='{"n": 1.10}')
    won, again, lost, stale = await fan_out(store, leased=True)
    await store.settle(
        [
            result(held(won), OK),
            result(held(again), RETRY, 60.0),
            result(held(lost), DEAD),
            result(held(stale, lease=999), DEAD),
        ]
    )
    left = world.rows(
        "select id, lease is null, due_at > now() + interval '50 s', attempts from outbox.deliveries order by event_seq"
    )
    assert left == [(uuid_of(again.id), True, True, 1), (uuid_of(stale.id), False, True, 1)]
    assert world.rows("select delivery_id, payload, reason, attempts, event_seq from outbox.dead_letters") == [
        (uuid_of(lost.id), '{"n": 1.10}', "http_5xx", 1, lost.event_seq)
    ]
    verdicts = dict(world.rows("select event_seq, verdict from outbox.attempts"))
    assert [verdicts[birth.event_seq] for birth in (won, again, lost)] == ["delivered", "retry", "dead"]


async def test_a_failure_is_fenced_by_the_lease(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=2)
    births = await fan_out(store, leased=True)
    world.rows("update outbox.deliveries set lease = 42, attempts = 2")
    before = world.deliveries("id, due_at, attempts, lease")
    await store.settle([result(held(births[0]), RETRY), result(held(births[1]), DEAD)])
    assert world.deliveries("id, due_at, attempts, lease") == before
    assert world.count("dead_letters") == 0


async def test_a_success_is_accepted_whoever_holds_the_lease_now(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=2)
    released, leased_again = await fan_out(store, leased=True)
    world.rows("update outbox.deliveries set lease = null where id = %s", uuid_of(released.id))
    world.rows("update outbox.deliveries set lease = 42, attempts = 2 where id = %s", uuid_of(leased_again.id))
    await store.settle([result(held(released), OK), result(held(leased_again), OK)])
    assert world.count("deliveries") == 0


async def test_a_late_success_raises_a_dead_letter(world: World, store: Store) -> None:
    world.subscribe()
    world.record()
    (birth,) = await fan_out(store, leased=True)
    await store.settle([result(held(birth), DEAD)])
    assert world.count("dead_letters") == 1
    await store.settle([result(held(birth), OK)])
    assert (world.count("dead_letters"), world.count("deliveries")) == (0, 0)
    assert world.rows("select verdict from outbox.attempts order by at") == [("dead",), ("delivered",)]


async def test_a_success_whose_snapshot_is_older_than_a_burial_still_raises_the_dead_letter(
    world: World, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The success waits on an advisory lock after its snapshot was taken, while another relay buries the delivery."""
    world.subscribe()
    world.record()
    (birth,) = await fan_out(other_store, leased=True)
    patient = settlement.SETTLE.replace(
        "with r as", "with w as materialized (select pg_advisory_xact_lock(5)), r as", 1
    )
    patient = patient.replace("select * from unnest(", "select r.* from w cross join unnest(", 1)
    with world.open(autocommit=True) as gate:
        gate.execute("select pg_advisory_lock(5)")
        settling = threading.Thread(target=_settle_in_a_thread, args=(world.url, patient, birth))
        settling.start()
        wait_until(lambda: world.locks("locktype = 'advisory' and not granted"))
        await other_store.settle([result(held(birth), DEAD)])
        assert world.count("dead_letters") == 1
        gate.execute("select pg_advisory_unlock(5)")
    settling.join()
    assert (world.count("dead_letters"), world.count("attempts", "verdict = 'delivered'")) == (0, 1)


def _settle_in_a_thread(url: str, statement: str, birth: object) -> None:
    import asyncio

    class Patient(Store):
        async def transaction(self, *asked: tuple[str, Sequence[object]], **_: object) -> list[object]:
            given = [(statement if one is settlement.SETTLE else one, parameters) for one, parameters in asked]
            return await super().transaction(*given)

    async def run() -> None:
        store = Patient(url)
        await store.settle([result(held(birth), OK)])  # type: ignore[arg-type]
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("kinds", [(RETRY, OK), (OK, RETRY), (DEAD, OK), (OK, DEAD)], ids=str)
async def test_two_results_of_one_delivery_end_delivered_in_either_order(
    world: World, far_end: FarEnd, kinds: tuple[VerdictKind, VerdictKind]
) -> None:
    world.subscribe()
    world.record()
    async with stepping(world.url, far_end) as relay:
        (birth,) = await fan_out(relay.engine.feed_store, leased=True)
        for kind in kinds:
            relay.settler.settle(result(held(birth), kind))
        await relay.settled()
    assert (world.count("deliveries"), world.count("dead_letters"), world.count("attempts")) == (0, 0, 2)


async def test_an_attempt_row_tells_everything_about_a_failure(world: World, far_end: FarEnd) -> None:
    subscription = world.subscribe(path="/x")
    (seq,) = world.record()
    far_end.script["/x"] = Outcome(
        kind="http_5xx",
        status=503,
        milliseconds=34,
        error=None,
        address="127.0.0.1",
        headers="retry-after: 1\r\n",
        excerpt=b"sorry",
    )
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    ((delivery,),) = world.deliveries("id")
    row = world.rows(
        "select delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds, error, url,"
        " address, headers, excerpt, at <= clock_timestamp() from outbox.attempts"
    )
    assert row == [
        (delivery, seq, uuid_of(subscription), 1, "retry", "http_5xx", 503, 34, None, "http://127.0.0.1/x", "127.0.0.1",
         "retry-after: 1\r\n", b"sorry", True)
    ]  # fmt: skip


@pytest.mark.parametrize(("keep", "kept"), [(False, (None, None, None)), (True, ("http://127.0.0.1/", "a: b", b"ok"))])
async def test_the_details_of_a_success_are_kept_when_asked(
    world: World, far_end: FarEnd, keep: bool, kept: tuple[object, ...]
) -> None:
    world.subscribe()
    world.record()
    far_end.script["/"] = Outcome(kind="delivered", status=204, milliseconds=1, headers="a: b", excerpt=b"ok")
    async with stepping(world.url, far_end, keep_all_responses=keep) as relay:
        await relay.look()
        await relay.settled()
    assert world.rows("select url, headers, excerpt from outbox.attempts where status = 204") == [kept]


NASTY = "nul \x00, surrogate \udcff, escape \x1b[31m, quote \"'\\, newline \r\n, astral \U0001f600, override \u202e"


async def test_whatever_bytes_a_receiver_sends_settle_takes_them(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=3)
    every_byte = bytes(range(256)) * 64
    far_end.script["/"] = Outcome(
        kind="http_4xx", status=400, milliseconds=1, error=NASTY, address=NASTY, headers=NASTY, excerpt=every_byte
    )
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    rows = world.rows("select excerpt, headers from outbox.attempts")
    assert len(rows) == 3
    assert all(excerpt == every_byte and "\x1b[31m" in headers and "\U0001f600" in headers for excerpt, headers in rows)


async def test_numbers_out_of_range_do_not_stop_settling(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/odd")
    world.subscribe(path="/even")
    world.record(count=3)
    far_end.script["/odd"] = Outcome(kind="protocol", status=99_999, milliseconds=2**40)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert sorted(world.rows("select outcome, count(*) from outbox.attempts group by 1")) == [
        ("delivered", 3),
        ("protocol", 3),
    ]


REFUSE = """
create function outbox.refuse() returns trigger language plpgsql as $$ begin
    if new.{field} is not null then raise exception 'refused' using errcode = '{code}'; end if;
    return new;
end $$"""


def refuse_attempts_with(world: World, field: str, code: str) -> None:
    """Let the database refuse every attempt row that has this field."""
    world.rows(REFUSE.format(field=field, code=code))
    for (leaf,) in world.rows(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'outbox.attempts'::regclass"
    ):
        world.rows(
            f"create or replace trigger refuse before insert on {leaf} for each row execute function outbox.refuse()"
        )


@pytest.mark.parametrize("code", ["23514", "22000", "P0001"])
async def test_a_refused_batch_is_halved_and_the_rest_goes_through(
    own_world: World, far_end: FarEnd, code: str
) -> None:
    """The one row whose details the database refuses is written without them."""
    refuse_attempts_with(own_world, "error", code)
    own_world.subscribe("good", path="/good")
    own_world.subscribe("bad", path="/bad", schedule=())
    far_end.script["/bad"] = Outcome(kind="timeout", status=None, milliseconds=1, error="no answer", headers="x: y")
    own_world.record("good", 8)
    own_world.record("bad")
    own_world.record("good", 7)
    async with stepping(own_world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert own_world.count("attempts", "verdict = 'delivered'") == 15
    assert own_world.rows("select verdict, headers, url from outbox.attempts where outcome = 'timeout'") == [
        ("dead", None, None)
    ]
    assert (own_world.count("deliveries"), own_world.count("dead_letters")) == (0, 1)


async def test_what_follows_for_endpoints_holds_when_a_batch_is_settled_one_by_one(
    own_world: World, far_end: FarEnd
) -> None:
    """Nothing of either answer can be kept; the 410 disables its endpoint and Retry-After holds its own."""
    refuse_attempts_with(own_world, "excerpt", "23514")
    own_world.subscribe("a.gone", path="/gone")
    own_world.subscribe("a.busy", path="/busy")
    own_world.subscribe("a.good", path="/good")
    far_end.script["/gone"] = Outcome(OutcomeKind.HTTP_4XX, 410, 1, excerpt=b"gone for good")
    far_end.script["/busy"] = Outcome(OutcomeKind.HTTP_5XX, 503, 1, excerpt=b"busy", retry_after_seconds=600.0)
    for kind in ("a.gone", "a.busy", "a.good"):
        own_world.record(kind)
    async with stepping(own_world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert own_world.rows(
        "select url, disabled_reason, held_until > now() + interval '590 s' from outbox.subscriptions order by url"
    ) == [
        ("http://127.0.0.1/busy", None, True),
        ("http://127.0.0.1/gone", "the endpoint answered 410 Gone", None),
        ("http://127.0.0.1/good", None, None),
    ]
    assert own_world.rows("select count(*), count(url), count(excerpt) from outbox.attempts") == [(3, 0, 0)]


async def test_a_result_that_is_refused_even_without_details_stops_nobody(own_world: World, far_end: FarEnd) -> None:
    own_world.rows(REFUSE.format(field="reason", code="P0001"))
    own_world.rows(
        "create trigger refuse before insert on outbox.dead_letters for each row execute function outbox.refuse()"
    )
    own_world.subscribe("good", path="/good")
    own_world.subscribe("bad", path="/bad", schedule=())
    far_end.script["/bad"] = ERROR_500
    own_world.record("bad")
    own_world.record("good", 9)
    async with stepping(own_world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert own_world.count("attempts", "verdict = 'delivered'") == 9
    assert own_world.count("deliveries") == 1, "left to its lease"


async def test_release_gives_the_attempt_back(world: World, store: Store) -> None:
    world.subscribe()
    world.record(count=2)
    mine, stale = await fan_out(store, leased=True)
    await store.release([(held(mine), 0.0), (held(stale, lease=999), 0.0)])
    assert world.deliveries("attempts, lease is null, due_at <= clock_timestamp()") == [
        (0, True, True),
        (1, False, False),
    ]
    assert world.count("attempts") == 0


async def test_our_own_fault_is_not_charged_and_tried_again(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture
) -> None:
    world.subscribe()
    world.record()
    answers = iter([Outcome(kind="local", status=None, milliseconds=1, error="no free file descriptor"), DELIVERED])

    async def answer() -> Outcome:
        return next(answers)

    far_end.script["/"] = answer
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        assert world.deliveries("attempts, lease") == [(0, None)]
        assert world.count("attempts") == 0
        world.rows("update outbox.deliveries set due_at = now()")

        async def delivered() -> bool:
            await relay.look()
            return not world.count("deliveries")

        await await_until(delivered)
    assert world.rows("select number, verdict from outbox.attempts") == [(1, "delivered")]
    assert [record.message for record in caplog.records if "cannot send" in record.message] == [
        "this machine cannot send: no free file descriptor; what is due is tried again every second"
    ]


@pytest.mark.parametrize("kind", ["local", "key_unavailable"])
async def test_what_this_process_cannot_send_is_not_leased_and_given_back_without_end(
    world: World, far_end: FarEnd, store: Store, kind: Any
) -> None:
    """A proxy that is down, and a long backlog: one try of the window, then a pause; others may take the rest."""
    world.subscribe()
    world.record(count=100)
    await fan_out(store)
    far_end.script["/"] = Outcome(kind=kind, status=None, milliseconds=1, error="unreachable")
    async with stepping(world.url, far_end, per_endpoint=4) as relay:
        for _ in range(5):
            await relay.look()
            await relay.settled()
        assert 1 <= len(far_end.requests) <= 4
        assert world.count("deliveries", "lease is null and attempts = 0 and due_at <= now()") >= 96


async def test_what_found_no_place_is_given_back_before_its_lease_ends(world: World, far_end: FarEnd) -> None:
    """Or it would be taken for one that ends processes, though it was never sent."""
    world.subscribe("hangs", path="/hangs", timeout=300)
    world.subscribe("brief", path="/brief", timeout=1)
    freed = far_end.hold("/hangs")
    async with stepping(world.url, far_end, max_in_flight=1) as relay:
        world.record("hangs")
        await relay.look()
        await await_until(lambda: far_end.in_flight == 1)
        world.record("brief")
        await relay.look()
        relay.sending.release_late()
        assert world.count("deliveries", "lease is not null") == 2, "there is time yet"
        (unbegun,) = (one for endpoint in relay.endpoints for one in endpoint.unbegun)
        unbegun.start_by -= 10
        relay.sending.release_late()
        await await_until(lambda: not relay.settler.unsettled)
        assert world.count("deliveries", "lease is null and attempts = 0 and crashes = 0") == 1
        freed.set()
        await relay.settled()


async def test_what_waits_its_turn_too_long_is_given_back_without_an_attempt(world: World, far_end: FarEnd) -> None:
    """No attempt begins after start_by, or it would end after its lease."""
    world.subscribe()
    world.record(count=3)
    freed = far_end.hold("/")
    async with stepping(world.url, far_end, max_in_flight=1) as relay:
        await relay.look()
        await await_until(lambda: far_end.in_flight == 1)
        (endpoint,) = relay.endpoints
        for delivery in endpoint.unbegun:
            delivery.start_by = 0.0
        freed.set()
        await relay.settled()
    assert len(far_end.requests) == 1
    assert world.deliveries("attempts, lease") == [(0, None)] * 2


async def test_a_drain_gives_back_what_has_not_begun_and_charges_what_was_cut(world: World, far_end: FarEnd) -> None:
    world.subscribe()
    world.record(count=5)
    far_end.hold("/")
    async with stepping(world.url, far_end, max_in_flight=2) as relay:
        await relay.look()
        await await_until(lambda: far_end.in_flight == 2)
    assert sorted(world.deliveries("attempts, lease")) == [(0, None)] * 3 + [(1, None)] * 2
    assert world.rows("select outcome, verdict from outbox.attempts") == [("aborted", "retry")] * 2


async def test_leaving_at_once_leaves_no_lease_behind(world: World, far_end: FarEnd) -> None:
    """Even of attempts whose task has not taken its first step."""
    world.subscribe()
    world.record(count=5)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
    assert world.count("deliveries", "lease is not null") == 0


async def test_the_last_failure_of_the_schedule_is_a_dead_letter(world: World, far_end: FarEnd) -> None:
    world.subscribe(schedule=(0, 0))
    world.record()
    far_end.script["/"] = ERROR_500
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        while world.count("deliveries"):
            await relay.look()
            await relay.settled()
    assert len(far_end.requests) == 3
    assert len(set(far_end.requests)) == 1, "the same id and the same bytes on each attempt"
    assert world.rows("select number, verdict from outbox.attempts order by number") == [
        (1, "retry"),
        (2, "retry"),
        (3, "dead"),
    ]
    assert world.rows("select reason, attempts from outbox.dead_letters") == [("http_5xx", 3)]


async def test_settling_tells_what_it_buried(world: World, store: Store) -> None:
    """A failure whose lease another relay has by now buries nothing, and nobody may read that it did."""
    world.subscribe()
    world.record(count=2)
    mine, stale = await fan_out(store, leased=True)
    settled = await store.settle([result(held(mine), DEAD), result(held(stale, lease=999), DEAD)])
    assert (settled.buried, settled.won) == ({mine.id}, frozenset())
    assert world.rows("select delivery_id from outbox.dead_letters") == [(uuid_of(mine.id),)]


async def test_the_log_tells_of_dead_letters_that_there_are(
    world: World, far_end: FarEnd, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = world.subscribe(schedule=())
    world.record(count=2)
    freed = far_end.hold("/", ERROR_500)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await await_until(lambda: far_end.in_flight == 2)
        (taken,) = world.rows(
            "update outbox.deliveries set lease = 1 where id = (select id from outbox.deliveries limit 1) returning id"
        )
        freed.set()
        await relay.settled()
    told = [record.getMessage() for record in caplog.records if "dead letter" in record.getMessage()]
    ((buried,),) = world.rows("select delivery_id from outbox.dead_letters")
    mine = text_id("sub", UUID(bytes=subscription))
    assert told == [f"{text_id('dlv', buried)} of {mine} is a dead letter: http_5xx"]
    assert buried != taken[0]
