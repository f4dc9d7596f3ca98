"""An engine over the real sender: whose connection a delivery and its retry go out on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from relay.http import AddressPolicy, DirectDialler, HttpSender
from tests.integration.engine.world import FarEnd, World, running, stepping
from tests.support.scripted_receiver import OK, Exchange, receiving, response
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio

POLICY = AddressPolicy(["127.0.0.0/8"], allow_http=True)


@pytest.fixture
async def sender() -> AsyncIterator[HttpSender]:
    sender = HttpSender(DirectDialler(POLICY), user_agent="test")
    yield sender
    await sender.close()


@pytest.mark.field("F90")
@pytest.mark.parametrize("tenants", [("a", "b"), ("", "")], ids=["two tenants", "no tenants"])
async def test_a_second_answer_of_one_tenants_endpoint_settles_nothing_of_anothers(
    world: World, sender: HttpSender, tenants: tuple[str, str]
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.head.startswith(b"POST /honest"):
            await exchange.play(response(500))
            return
        await exchange.play(OK)
        await asyncio.sleep(0.002)
        await exchange.play(OK)

    async with receiving(behaviour) as receiver:
        world.subscribe("one", tenant=tenants[0], path=f":{receiver.port}/cheat")
        world.break_at(0)
        honest = world.subscribe("two", tenant=tenants[1], path=f":{receiver.port}/honest")
        async with running(world.url, cast(FarEnd, sender)) as relay:
            for _ in range(10):
                world.record("one", 10, tenant=tenants[0])
                world.record("two", 10, tenant=tenants[1])
                await asyncio.sleep(0.01)
            await await_until(lambda: world.count("attempts", "status = 500") == 100)
            await await_until(lambda: world.count("deliveries") == 100)
            await relay.settled()
    waiting = {row[0].bytes for row in world.rows("select subscription_id from outbox.deliveries")}
    assert waiting == {honest}, "none of the honest endpoint's counts as delivered"


@pytest.mark.field("F03")
async def test_a_retry_dials_anew_and_a_first_attempt_does_not(world: World, sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.body.startswith(b'{"type":"together"'):
            together.append(exchange)
            await await_until(lambda: len(together) == 3)
        fails = exchange.body.startswith(b'{"type":"fails"') and len(failed) < 1
        failed.extend([exchange] * fails)
        await exchange.play(response(500 if fails else 200))

    together: list[Exchange] = []
    failed: list[Exchange] = []
    async with receiving(behaviour) as receiver:
        world.subscribe("*", path=f":{receiver.port}/", schedule=(3600, 3600))
        async with stepping(world.url, cast(FarEnd, sender)) as relay:
            for types in (["together"] * 3, ["fails"], ["next"]):
                for event_type in types:
                    world.record(event_type)
                await relay.look()
                await relay.settled()
            world.rows("update outbox.deliveries set due_at = now()")
            await relay.look()
            await relay.settled()
    assert receiver.accepted == 4
    assert [exchange.connection < 3 for exchange in receiver.requests] == [True] * 5 + [False]
    assert world.count("deliveries") == 0


@pytest.mark.field("F03")
async def test_a_410_of_the_place_that_the_name_has_left_disables_nothing(world: World, sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(response(410 if exchange.number else 200))

    async with receiving(behaviour) as receiver:
        world.subscribe(path=f":{receiver.port}/")
        async with stepping(world.url, cast(FarEnd, sender)) as relay:
            for _ in range(3):
                world.record()
                await relay.look()
                await relay.settled()
    assert world.count("attempts", "status = 410") == 0
    assert world.count("subscriptions", "disabled_at is null") == 1
    assert world.count("deliveries") == 0
