"""A poison row is parked with a reason and stops nobody; an unexpected error in one attempt is that attempt's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from outbox.ids import text_id
from relay.model.subscription import SubscriptionVersion
from tests.integration.engine.world import DELIVERED, FarEnd, Outcome, World, fan_out, running, stepping, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

REFUSE_POISON = """
create function outbox.refuse_poison() returns trigger language plpgsql as $$ begin
    if exists (select from outbox.events where seq = new.event_seq and type = 'poison') then
        raise exception 'no delivery of this' using errcode = '{code}';
    end if;
    return new;
end $$"""


def refuse_poison(world: World, code: str) -> None:
    """Let the database refuse every delivery of an event of type 'poison'."""
    world.rows(REFUSE_POISON.format(code=code))
    world.rows(
        "create trigger refuse_poison before insert on outbox.deliveries"
        " for each row execute function outbox.refuse_poison()"
    )


@pytest.mark.parametrize("code", ["P0001", "23514", "22023", "XX001", "ZX001", "0A000", "54000"])
async def test_an_event_that_cannot_be_resolved_is_parked_and_the_others_go_through(
    own_world: World, far_end: FarEnd, code: str
) -> None:
    """Whatever the class of the error: a raised exception, a check, a corrupt value, an error of somebody's own."""
    refuse_poison(own_world, code)
    own_world.subscribe()
    own_world.record("good", 3)
    (poison,) = own_world.record("poison", payload='{"n": 1.10}')
    own_world.record("good", 3)
    async with running(own_world.url, far_end):
        await await_until(lambda: own_world.count("dead_letters") and own_world.count("attempts") == 6)
        own_world.record("good")
        await await_until(lambda: own_world.count("attempts") == 7)
    ((seq, subscription, payload, reason, error),) = own_world.rows(
        "select event_seq, subscription_id, payload, reason, error from outbox.dead_letters"
    )
    assert (seq, subscription, payload, reason) == (poison, None, '{"n": 1.10}', "unresolvable")
    assert "no delivery of this" in error
    assert own_world.count("pending") == own_world.count("deliveries") == 0


async def test_many_poison_rows_are_all_parked(own_world: World, far_end: FarEnd) -> None:
    refuse_poison(own_world, "P0001")
    own_world.subscribe()
    for _ in range(5):
        own_world.record("good", 3)
        own_world.record("poison", 2)
    async with running(own_world.url, far_end):
        await await_until(lambda: not own_world.count("pending") and not own_world.count("deliveries"))
    assert own_world.rows("select type, count(*) from outbox.dead_letters group by 1") == [("poison", 10)]
    assert len(far_end.requests) == 15


async def test_a_good_event_that_commits_meanwhile_is_not_parked_for_the_poison(
    own_world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a lower number, and appears between the refusal and the parking."""
    refuse_poison(own_world, "P0001")
    own_world.subscribe()
    with own_world.open() as application:
        own_world.record("good", connection=application)
        own_world.record("poison")
        async with stepping(own_world.url, far_end) as relay:
            park = relay.engine.feed_store.bury_unresolvable

            async def late(seq: int, error: str) -> None:
                application.commit()
                await park(seq, error)

            monkeypatch.setattr(relay.engine.feed_store, "bury_unresolvable", late)
            while own_world.count("pending"):
                await relay.look()
            await relay.look()
            await relay.settled()
    assert own_world.rows("select type from outbox.dead_letters") == [("poison",)]
    assert len(far_end.requests) == 1


async def test_a_poison_that_commits_while_another_event_is_looked_at_alone_is_the_one_parked(
    own_world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_poison(own_world, "P0001")
    own_world.subscribe()
    with own_world.open() as application:
        own_world.record("poison", connection=application)
        own_world.record("good")
        async with stepping(own_world.url, far_end) as relay:
            first_pending = relay.engine.feed_store.find_first_pending

            async def late(after_seq: int) -> int | None:
                seq = await first_pending(after_seq)
                application.commit()
                return seq

            monkeypatch.setattr(relay.engine.feed_store, "find_first_pending", late)
            relay.feeder.fan_out.limit = 1
            await relay.look()
            while own_world.count("pending"):
                await relay.look()
            await relay.settled()
    assert own_world.rows("select type from outbox.dead_letters") == [("poison",)]
    assert len(far_end.requests) == 1


async def test_a_database_that_was_set_up_wrongly_parks_nothing(own_world: World, far_end: FarEnd) -> None:
    """It refuses everything until somebody mends it; then all is delivered."""
    own_world.subscribe()
    own_world.rows("alter table outbox.resolutions rename to mislaid")
    own_world.record(count=3)
    async with running(own_world.url, far_end) as relay:
        await await_until(lambda: relay.outage.failures > 2)
        assert (own_world.count("pending"), own_world.count("dead_letters")) == (3, 0)
        own_world.rows("alter table outbox.mislaid rename to resolutions")
        await await_until(lambda: own_world.count("attempts") == 3)


async def test_an_unexpected_error_inside_send_is_an_attempt_and_stops_nobody(world: World, far_end: FarEnd) -> None:
    world.subscribe(path="/broken")
    world.subscribe(path="/fine")

    async def broken() -> Outcome:
        raise RuntimeError("a bug of ours with secret whsec_x")

    far_end.script["/broken"] = broken
    world.record(count=3)
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts") == 6)
        world.record()
        await await_until(lambda: world.count("attempts") == 8)
    outcomes = world.rows("select outcome, verdict, count(*) from outbox.attempts group by 1, 2 order by 1")
    assert outcomes == [("delivered", "delivered", 4), ("internal", "retry", 4)]
    (error,) = world.rows("select distinct error from outbox.attempts where outcome = 'internal'")[0]
    assert "RuntimeError" in error
    assert "whsec_x" not in error


async def test_a_subscription_that_cannot_be_sent_to_fails_alone_and_says_why(world: World, far_end: FarEnd) -> None:
    broken = world.subscribe(path="/no-secret")
    world.subscribe(path="/fine")
    world.rows("delete from outbox.secrets where subscription_id = %s", uuid_of(broken))
    world.record()
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts") == 2)
    assert far_end.paths() == ["/fine"]
    ((outcome, error),) = world.rows("select outcome, error from outbox.attempts where verdict = 'retry'")
    assert outcome == "unsendable"
    assert "secret" in error


async def test_a_subscription_that_vanishes_in_mid_fan_out_stops_nobody(
    world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing = world.subscribe("a.b", path="/vanishing")
    world.subscribe("a.b", path="/fine")
    world.record("a.b", 2)
    async with running(world.url, far_end) as relay:
        refresh = relay.sending.refresh

        async def late(*versions: Any) -> None:
            world.rows("delete from outbox.subscriptions where id = %s", uuid_of(vanishing))
            await refresh(*versions)

        monkeypatch.setattr(relay.sending, "refresh", late)
        world.record("a.b", 2)
        await await_until(lambda: world.count("attempts", "verdict = 'delivered'") >= 4)
        assert far_end.paths().count("/fine") == 4


async def test_a_subscription_that_vanishes_in_mid_claim_stops_nobody(
    own_world: World, far_end: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanishing = own_world.subscribe("a.b", path="/vanishing")
    own_world.subscribe("a.b", path="/fine")
    own_world.record("a.b", 2)
    async with stepping(own_world.url, far_end) as relay:
        await fan_out(relay.engine.feed_store)
        subscriptions = relay.engine.feed_store.read_subscriptions

        async def late(ids: Sequence[bytes]) -> list[SubscriptionVersion]:
            own_world.rows("alter table outbox.subscriptions disable trigger user")  # nobody else may delete it
            own_world.rows("delete from outbox.subscriptions where id = %s", uuid_of(vanishing))
            return await subscriptions(ids)

        monkeypatch.setattr(relay.engine.feed_store, "read_subscriptions", late)
        for _ in range(3):
            await relay.look()
        await relay.settled()
    assert far_end.paths() == ["/fine"] * 2


async def test_a_paused_subscription_gets_no_request(world: World, far_end: FarEnd) -> None:
    paused = world.subscribe(path="/paused")
    world.subscribe(path="/active")
    world.rows("update outbox.subscriptions set paused_at = now() where id = %s", uuid_of(paused))
    async with running(world.url, far_end):
        world.record(count=3)
        await await_until(lambda: world.count("attempts") == 3)
        assert set(far_end.paths()) == {"/active"}
        assert world.deliveries("attempts, lease") == [(0, None)] * 3
        far_end.script["/paused"] = DELIVERED
        world.rows("update outbox.subscriptions set paused_at = null")
        await await_until(lambda: world.count("attempts") == 6)


@pytest.mark.field("F113")
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
async def test_a_time_that_cannot_be_computed_with_parks_no_event(
    own_world: World, far_end: FarEnd, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The subscription is set aside and named, other subscriptions get the event, and a resume sends what waited."""
    own_world.rows("alter table outbox.subscriptions drop constraint times_are_dates")
    odd = own_world.subscribe(path="/odd")
    own_world.subscribe(path="/fine")
    own_world.rows("update outbox.subscriptions set held_until = %s where id = %s", value, uuid_of(odd))
    own_world.record(count=3)
    with caplog.at_level("WARNING", "relay.engine"):
        async with running(own_world.url, far_end) as relay:
            await await_until(lambda: far_end.paths().count("/fine") == 3)
            await relay.settled()
            assert far_end.paths().count("/odd") == (0 if value == "infinity" else 3)
            own_world.rows("update outbox.subscriptions set held_until = null where id = %s", uuid_of(odd))
            await await_until(lambda: far_end.paths().count("/odd") == 3)
            await relay.settled()
    assert own_world.count("dead_letters") == own_world.count("deliveries") == 0
    named = [line for line in caplog.messages if "set aside" in line]
    assert bool(named) is (value == "infinity")
    assert all(text_id("sub", uuid_of(odd)) in line for line in named)
