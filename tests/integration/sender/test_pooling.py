"""Which connections are kept, how many, for how long, and what a cancelled send leaves behind."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import replace

import pytest
import trustme

from relay.http import Endpoint, HttpSender, Outcome
from relay.http.pool import Pool
from relay.http.tls import default_ssl_context
from tests.integration.sender.conftest import MakeSender, descriptors
from tests.support.scripted_receiver import OK, Exchange, Receiver, receiving, response
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio


async def post(sender: HttpSender, receiver: Receiver, timeout_seconds: float = 10) -> Outcome:
    return await sender.send(Endpoint.of(receiver.url), b"", b"{}", timeout_seconds)


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


async def answers_never(exchange: Exchange) -> None:
    await exchange.reader.read()  # until the other side closes


async def test_an_endpoint_has_at_most_its_places(make_sender: MakeSender) -> None:
    sender, most = make_sender(connections_per_endpoint=3), 0

    async def behaviour(exchange: Exchange) -> None:
        nonlocal most
        most = max(most, receiver.accepted - receiver.ended)
        await asyncio.sleep(0.005)
        await exchange.play(OK)

    async with receiving(behaviour) as receiver:
        outcomes = await asyncio.gather(*[post(sender, receiver) for _ in range(20)])
        assert {outcome.kind for outcome in outcomes} == {"delivered"}
        assert (most, receiver.accepted) == (3, 3)


async def test_without_a_place_in_time_nothing_is_sent_and_it_is_our_own_limit(make_sender: MakeSender) -> None:
    sender = make_sender(connections_per_endpoint=1)
    async with receiving(answers_never) as receiver:
        first = asyncio.create_task(post(sender, receiver))
        await until(lambda: receiver.requests)
        outcome = await post(sender, receiver, timeout_seconds=0.05)
        assert (outcome.kind, outcome.sent, len(receiver.requests)) == ("local", False, 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_a_cancelled_wait_gives_its_place_on(make_sender: MakeSender) -> None:
    sender, go = make_sender(connections_per_endpoint=1), asyncio.Event()

    async def behaviour(exchange: Exchange) -> None:
        await go.wait()
        await exchange.play(OK)

    async with receiving(behaviour) as receiver:
        sends = [asyncio.create_task(post(sender, receiver)) for _ in range(4)]
        await until(lambda: receiver.requests)
        sends[1].cancel()
        go.set()
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert [r.kind for r in results if isinstance(r, Outcome)] == ["delivered"] * 3


async def test_a_cancelled_send_closes_its_connection(sender: HttpSender) -> None:
    async with receiving(answers_never) as receiver:
        sending = asyncio.create_task(post(sender, receiver))
        await until(lambda: receiver.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: receiver.ended == 1)
        assert sender.endpoints == 0


async def test_a_place_that_is_given_to_someone_cancelled_meanwhile_is_given_on() -> None:
    pool, later = Pool(("https", "a.example", 443), places=1), asyncio.get_running_loop().time() + 10
    assert await pool.enter(later)
    waiting = asyncio.create_task(pool.enter(later))
    await until(lambda: pool.waiting)
    pool.leave()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.is_unused()


async def test_one_endpoint_that_hangs_holds_up_no_other(sender: HttpSender) -> None:
    async with receiving(answers_never) as hanging, receiving(answers_ok) as healthy:
        in_flight = [asyncio.create_task(post(sender, hanging, timeout_seconds=60)) for _ in range(64)]
        await until(lambda: len(hanging.requests) == 64)
        waiting = [asyncio.create_task(post(sender, hanging, timeout_seconds=0.2)) for _ in range(40)]
        assert {(await post(sender, healthy)).kind for _ in range(50)} == {"delivered"}
        assert {(outcome.kind, outcome.sent) for outcome in await asyncio.gather(*waiting)} == {("local", False)}
        for sending in in_flight:
            sending.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
        await until(lambda: hanging.ended == 64)


async def test_the_connection_used_last_is_used_next(sender: HttpSender) -> None:
    async with receiving(answers_ok) as receiver:
        await asyncio.gather(*[post(sender, receiver) for _ in range(3)])
        assert receiver.accepted == 3
        for _ in range(4):
            await post(sender, receiver)
        assert len({exchange.connection for exchange in receiver.requests[3:]}) == 1


async def test_the_deadline_of_one_request_does_not_end_the_next(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await asyncio.sleep(1.3 * exchange.number)
        await exchange.play(OK)

    async with receiving(behaviour) as receiver:
        assert (await post(sender, receiver, timeout_seconds=1)).kind == "delivered"
        assert (await post(sender, receiver)).kind == "delivered"
        assert receiver.accepted == 1


async def test_a_shorter_deadline_than_the_last_request_had_counts(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await (answers_never(exchange) if exchange.number else exchange.play(OK))

    async with receiving(behaviour) as receiver:
        assert (await post(sender, receiver, timeout_seconds=1000)).kind == "delivered"
        async with asyncio.timeout(60):
            assert (await post(sender, receiver, timeout_seconds=0.05)).kind == "timeout"
        assert receiver.accepted == 1


async def test_ports_do_not_share_connections(sender: HttpSender) -> None:
    async with receiving(answers_ok) as one, receiving(answers_ok) as other:
        await post(sender, one)
        await post(sender, other)
        assert (one.accepted, other.accepted) == (1, 1)


async def test_a_resting_connection_is_closed_after_a_while(
    sender: HttpSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.http.connection.IDLE_SECONDS", 0.05)
    async with receiving(answers_ok) as receiver:
        await post(sender, receiver)
        await until(lambda: receiver.ended == 1)
        assert sender.endpoints == 0
        assert sender.resting == 0


async def test_a_connection_that_the_server_closes_is_forgotten(sender: HttpSender) -> None:
    async with receiving(answers_ok) as receiver:
        await post(sender, receiver)
        receiver.requests[0].writer.close()
        await until(lambda: sender.endpoints == 0)
        assert (await post(sender, receiver)).kind == "delivered"
        assert receiver.accepted == 2


@pytest.mark.case("E32")
async def test_a_late_extra_response_ends_the_resting_connection(sender: HttpSender) -> None:
    async with receiving(answers_ok) as receiver:
        await post(sender, receiver)
        await receiver.requests[0].play(response(200, b"stale"))
        await until(lambda: receiver.ended == 1)
        assert (await post(sender, receiver)).excerpt == b"ok"
        assert receiver.accepted == 2


@pytest.mark.case("E32")
async def test_an_extra_response_that_nobody_has_read_yet_is_seen_before_reuse(sender: HttpSender) -> None:
    """The bytes wait in the kernel: no event loop has run since they came."""
    async with receiving(answers_ok) as receiver:
        await post(sender, receiver)
        receiver.requests[0].writer.write(response(200, b"stale"))
        assert (await post(sender, receiver)).excerpt == b"ok"
        assert receiver.accepted == 2


@pytest.mark.case("E31")
async def test_a_kept_connection_that_dies_is_replaced_once(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.connection == 0 and exchange.number == 1:
            exchange.reset()
        else:
            await exchange.play(OK)

    async with receiving(behaviour) as receiver:
        assert [(await post(sender, receiver)).kind for _ in range(2)] == ["delivered"] * 2
        assert receiver.accepted == 2
        assert receiver.requests[1].head == receiver.requests[2].head


@pytest.mark.case("E31")
async def test_a_dead_kept_connection_is_replaced_only_once(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if len(receiver.requests) == 1:
            await exchange.play(OK)
        else:
            exchange.reset()

    async with receiving(behaviour) as receiver:
        assert [(await post(sender, receiver)).kind for _ in range(2)] == ["delivered", "connection"]
        assert receiver.accepted == 2


@pytest.mark.case("E31")
async def test_a_kept_connection_that_answered_half_is_not_replaced(sender: HttpSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if exchange.number == 0:
            await exchange.play(OK)
        else:
            await exchange.play(b"HTTP/1.1 20")
            exchange.reset()

    async with receiving(behaviour) as receiver:
        assert [(await post(sender, receiver)).kind for _ in range(2)] == ["delivered", "connection"]
        assert receiver.accepted == 1


@pytest.mark.case("E31")
async def test_over_tls(make_sender: MakeSender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if (exchange.connection, exchange.number) == (0, 1):
            exchange.writer.transport.abort()
        else:
            await exchange.play(OK)

    authority, trusting = trustme.CA(), default_ssl_context()
    authority.configure_trust(trusting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with receiving(behaviour, ssl=context) as receiver:
        sender, endpoint = make_sender(ssl_context=trusting), Endpoint.of(f"https://127.0.0.1:{receiver.port}/")
        assert [(await sender.send(endpoint, b"", b"{}", 10)).kind for _ in range(2)] == ["delivered"] * 2
        assert receiver.accepted == 2


async def test_a_connection_wears_out(sender: HttpSender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.http.connection.MAX_USES", 2)
    async with receiving(answers_ok) as receiver:
        for _ in range(5):
            await post(sender, receiver)
        assert [exchange.connection for exchange in receiver.requests] == [0, 0, 1, 1, 2]


async def test_only_so_many_connections_rest(make_sender: MakeSender) -> None:
    sender = make_sender(max_resting=2)
    async with receiving(answers_ok) as one, receiving(answers_ok) as two, receiving(answers_ok) as three:
        for receiver in (one, two, three):
            await post(sender, receiver)
        await until(lambda: one.ended == 1)
        assert (two.ended, three.ended, sender.resting) == (0, 0, 2)


async def test_closing_the_sender_leaves_no_descriptor(make_sender: MakeSender) -> None:
    async with receiving(answers_ok) as receiver:
        open_before = descriptors()
        sender = make_sender()
        await asyncio.gather(*[post(sender, receiver) for _ in range(5)])
        await sender.close()
        await until(lambda: receiver.ended == 5)
        await until(lambda: descriptors() == open_before)


async def test_blocked_endpoints_leave_no_pool(sender: HttpSender) -> None:
    for number in range(5):
        assert (await sender.send(Endpoint.of(f"https://10.0.0.{number}/"), b"", b"", 1)).kind == "blocked_address"
    assert sender.endpoints == 0


@pytest.mark.field("F90")
async def test_ten_thousand_subscriptions_of_one_origin_keep_few_connections(make_sender: MakeSender) -> None:
    sender = make_sender(max_resting=20)
    async with receiving(answers_ok) as receiver:
        open_before = descriptors()
        for number in range(300):
            endpoint = Endpoint.of(receiver.url, owner=number.to_bytes(16, "big"))
            assert (await sender.send(endpoint, b"", b"{}", 10)).kind == "delivered"
        assert (sender.resting, sender.endpoints) == (20, 20)
        await until(lambda: receiver.accepted - receiver.ended == 20)
        assert descriptors() - open_before == 2 * 20, "both ends are in this process"


@pytest.mark.field("F03")
async def test_the_name_that_moved_is_left_within_the_age_of_a_connection(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each old connection gets one more request at most, and no retry goes to where the name no longer points."""
    monkeypatch.setattr("relay.http.connection.IDLE_SECONDS", 60)

    async def old(exchange: Exchange) -> None:
        if not moved:
            together.append(exchange)
            await until(lambda: len(together) >= 5)
        await exchange.play(response(503) if moved else OK)

    async def new(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"{}"):
                at_new.append(writer)
                writer.write(OK)
        writer.close()

    moved: list[bool] = []
    together: list[Exchange] = []
    at_new: list[asyncio.StreamWriter] = []
    asked: list[str] = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.2" if moved else "127.0.0.1"]

    async with receiving(old) as receiver:
        server = await asyncio.start_server(new, "127.0.0.2", receiver.port)
        sender = make_sender(resolve=resolve)
        endpoint = Endpoint.of(f"http://hooks.example.com:{receiver.port}/", owner=b"1" * 16)
        retrying = replace(endpoint, for_retry=True)
        await asyncio.gather(*(sender.send(endpoint, b"", b"{}", 10) for _ in range(5)))
        moved.append(True)
        for _ in range(50):
            if (await sender.send(endpoint, b"", b"{}", 10)).kind != "delivered":
                assert (await sender.send(retrying, b"", b"{}", 10)).address == "127.0.0.2"
        assert len(receiver.requests) <= 5 + 5
        assert len(asked) >= 6
        assert len({id(writer) for writer in at_new}) < len(at_new), "the new ones are kept again"
        await sender.close()
        await until(lambda: all(writer.is_closing() for writer in at_new))
        server.close()
