"""Whose connection is used again, for how long, and after what: the same on each way out."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from uuid import UUID

import pytest

from outbox.ids import text_id
from relay.http import Endpoint, HttpSender, Outcome
from tests.integration.sender.contract.conftest import NAME
from tests.support.proxies import Proxy
from tests.support.scripted_receiver import OK, Exchange, Receiver, receiving, response
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio

ONE, OTHER = b"1" * 16, b"2" * 16


async def post(
    sender: HttpSender, receiver: Receiver, owner: bytes = ONE, body: bytes = b"{}", *, retry: bool = False
) -> Outcome:
    endpoint = Endpoint.of(receiver.url, owner=owner)
    return await sender.send(replace(endpoint, for_retry=retry), b"webhook-id: evt_1\r\n", body, 10)


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


@pytest.mark.field("F90")
async def test_two_subscriptions_never_share_a_connection(proxy: Proxy | None, sender: HttpSender) -> None:
    async with receiving(answers_ok) as receiver:
        for _ in range(3):
            for owner in (ONE, OTHER):
                assert (await post(sender, receiver, owner)).kind == "delivered"
    assert [exchange.connection for exchange in receiver.requests] == [0, 1] * 3
    assert proxy is None or (proxy.accepted, len(proxy.asked)) == (2, 2)


@pytest.mark.field("F90")
@pytest.mark.parametrize("milliseconds", [0, 0.5, 2, 20])
async def test_a_second_answer_that_comes_late_never_settles_a_strangers_request(
    sender: HttpSender, milliseconds: float
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.body == b"other":
            await exchange.play(response(500, b"other"))
            return
        await exchange.play(OK)
        await asyncio.sleep(milliseconds / 1000)
        await exchange.play(OK)

    async with receiving(behaviour) as receiver:
        for _ in range(20):
            await post(sender, receiver, ONE)
            await asyncio.sleep(milliseconds / 2000)
            other = await post(sender, receiver, OTHER, b"other")
            assert (other.status, other.excerpt) == (500, b"other")


@pytest.mark.field("F90")
async def test_bytes_that_nobody_asked_for_are_counted_and_logged_and_end_the_keeping(
    sender: HttpSender, caplog: pytest.LogCaptureFixture
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(OK)
        if exchange.connection == 0 and exchange.body == b"one":
            await stray.wait()
            await exchange.play(response(200, b"stray"))

    stray = asyncio.Event()
    async with receiving(behaviour) as receiver:
        assert (await post(sender, receiver, ONE, b"one")).kind == "delivered"
        with caplog.at_level(logging.WARNING, "relay"):
            stray.set()
            await until(lambda: sender.irregular == 1)
        assert sender.resting == 0
        for _ in range(2):
            assert (await post(sender, receiver, ONE, b"one")).excerpt == b"ok"
        assert [exchange.connection for exchange in receiver.requests] == [0, 1, 2], "none is kept any more"
        for _ in range(2):
            await post(sender, receiver, OTHER)
        assert receiver.accepted == 4, "for others nothing changes"
    ((_, _, line),) = caplog.record_tuples
    assert line.startswith(
        f"{text_id('sub', UUID(bytes=ONE))}: 127.0.0.1, port {receiver.port}, sent bytes that nobody"
    )


@pytest.mark.field("F90")
async def test_a_second_answer_in_the_same_piece_is_counted_too(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        exchange.writer.write(OK + response(200, b"stray"))

    async with receiving(behaviour) as receiver:
        assert (await post(sender, receiver)).excerpt == b"ok"
        await until(lambda: sender.irregular == 1)


@pytest.mark.field("F90")
async def test_a_receiver_that_only_closes_is_not_irregular(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(OK)
        exchange.writer.close()

    async with receiving(behaviour) as receiver:
        for _ in range(3):
            assert (await post(sender, receiver)).kind == "delivered"
            await until(lambda: sender.resting == 0)
    assert sender.irregular == 0


@pytest.mark.slow
@pytest.mark.field("F03")
async def test_a_connection_in_steady_use_is_given_up_with_age(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only an idle one: what is asked often would else never be looked up again."""
    monkeypatch.setattr("relay.http.connection.MAX_AGE_SECONDS", 0.4)
    async with receiving(answers_ok) as receiver:
        began = asyncio.get_running_loop().time()
        while receiver.accepted < 3:
            assert (await post(sender, receiver)).kind == "delivered"
            await asyncio.sleep(0.01)
            assert asyncio.get_running_loop().time() - began < 30
        assert len(receiver.requests) > 3, "and it is used again until then"


@pytest.mark.field("F03")
@pytest.mark.parametrize("status", [301, 304, 400, 404, 429, 500, 503])
async def test_after_any_answer_but_2xx_the_next_request_dials_anew(sender: HttpSender, status: int) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(response(status if exchange.body == b"fails" else 200))

    async with receiving(behaviour) as receiver:
        for body in (b"1", b"fails", b"2", b"3"):
            await post(sender, receiver, body=body)
    assert [exchange.connection for exchange in receiver.requests] == [0, 0, 1, 1]


@pytest.mark.field("F03")
async def test_a_retry_takes_no_connection_from_before_its_failure(sender: HttpSender) -> None:
    """Not even one on which nothing failed; what was dialled for retries since then serves other retries."""

    async def behaviour(exchange: Exchange) -> None:
        if exchange.body == b"together":
            together.append(exchange)
            await until(lambda: len(together) == 4)
        await exchange.play(response(503 if exchange.body == b"fails" else 200))

    together: list[Exchange] = []
    async with receiving(behaviour) as receiver:
        await asyncio.gather(*(post(sender, receiver, body=b"together") for _ in range(4)))
        await post(sender, receiver, body=b"fails")
        assert (receiver.accepted, sender.resting) == (4, 3)
        for _ in range(3):
            await post(sender, receiver, body=b"retry", retry=True)
        assert [each.connection for each in receiver.requests if each.body == b"retry"] == [4] * 3
        await post(sender, receiver, body=b"fails", retry=True)
        await post(sender, receiver, body=b"retry", retry=True)
        assert receiver.requests[-1].connection == 5


@pytest.mark.field("F03")
async def test_a_retry_takes_none_that_rested_beside_a_failure_or_that_a_first_attempt_dialled(
    sender: HttpSender,
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.body == b"together":
            together.append(exchange)
            await until(lambda: len(together) == 2)
        await exchange.play(response(503 if exchange.body == b"fails" else 200))

    together: list[Exchange] = []
    async with receiving(behaviour) as receiver:
        await asyncio.gather(*(post(sender, receiver, body=b"together", retry=True) for _ in range(2)))
        await post(sender, receiver, body=b"fails", retry=True)
        assert (receiver.accepted, sender.resting) == (2, 1)
        await post(sender, receiver, body=b"retry", retry=True)
        await post(sender, receiver, body=b"fails", retry=True)
        await post(sender, receiver, body=b"fails")
        await post(sender, receiver, body=b"first")
        await post(sender, receiver, body=b"retry", retry=True)
    assert [each.connection for each in receiver.requests if each.body in (b"first", b"retry")] == [2, 3, 4]


@pytest.mark.field("F03")
async def test_a_410_on_a_kept_connection_counts_only_when_a_new_one_says_so_too(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(response(410 if exchange.number or (gone and exchange.connection) else 200))

    gone: list[bool] = []
    async with receiving(behaviour) as receiver:
        assert [(await post(sender, receiver)).status for _ in range(3)] == [200, 200, 200]
        gone.append(True)
        assert (await post(sender, receiver)).status == 410
    assert [exchange.connection for exchange in receiver.requests] == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.field("F03")
async def test_a_410_that_cannot_be_confirmed_is_the_failure_that_came_instead(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.connection:
            exchange.reset()
        else:
            await exchange.play(response(410 if exchange.number else 200))

    async with receiving(behaviour) as receiver:
        outcomes = [await post(sender, receiver) for _ in range(2)]
    assert [(outcome.kind, outcome.sent) for outcome in outcomes] == [("delivered", True), ("connection", True)]


@pytest.mark.field("F03")
async def test_a_410_on_a_new_connection_is_believed_at_once(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(response(410))

    async with receiving(behaviour) as receiver:
        assert (await post(sender, receiver)).status == 410
        assert len(receiver.requests) == 1


@pytest.mark.field("F03")
async def test_each_dial_asks_for_the_name_again(proxy: Proxy | None, sender: HttpSender) -> None:
    """A proxy is told the name at each tunnel; without one, the resolver of this machine is asked."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(response(503))

    async with receiving(behaviour) as receiver:
        for _ in range(3):
            endpoint = Endpoint.of(f"http://{NAME}:{receiver.port}/", owner=ONE)
            assert (await sender.send(endpoint, b"", b"", 10)).status == 503
    assert proxy is None or [asked.host for asked in proxy.asked] == [NAME] * 3
    assert receiver.accepted == 3
