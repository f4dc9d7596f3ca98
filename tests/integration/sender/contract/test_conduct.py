"""What the sender does with what receivers do. The ids E… are the rows of the list of receiver behaviours."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.http import AddressPolicy, Endpoint, Outcome, Sender
from tests.integration.sender.conftest import REFUSED_BY_URL
from tests.integration.sender.contract.conftest import MakeSender, Way
from tests.support.property_checks import BESIDE_FIXTURES
from tests.support.proxies import Proxy
from tests.support.scripted_receiver import OK, Exchange, Receiver, receiving, response
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio

ANY_LOOP = settings(max_examples=25, suppress_health_check=BESIDE_FIXTURES)


async def send(sender: Sender, receiver: Receiver, body: bytes = b"{}", timeout_seconds: float = 10) -> Outcome:
    return await sender.send(Endpoint.of(receiver.url), b"webhook-id: evt_1\r\n", body, timeout_seconds)


def plays(*pieces: bytes, close: bool = False):
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(*pieces)
        if close:
            exchange.writer.close()
            await exchange.writer.wait_closed()

    return behaviour


@pytest.mark.case("E28", "E43")
async def test_the_request_is_exactly_this(way: Way, sender: Sender) -> None:
    """No Expect, identity only, one Host, one Content-Length."""
    async with receiving(plays(OK)) as receiver:
        outcome = await send(sender, receiver, b'{"a":1}')
    assert receiver.requests[0].head == (
        b"POST /hook HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nuser-agent: outbox-relay/test\r\n"
        b"accept-encoding: identity\r\nwebhook-id: evt_1\r\ncontent-length: 7\r\n\r\n" % receiver.port
    )
    assert receiver.requests[0].body == b'{"a":1}'
    assert (outcome.kind, outcome.status, outcome.excerpt, outcome.address) == ("delivered", 200, b"ok", way.address)
    assert outcome.headers == "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    assert outcome.sent
    assert outcome.error is None


async def test_a_body_of_a_megabyte_arrives_whole(sender: Sender) -> None:
    async with receiving(plays(OK)) as receiver:
        outcome = await send(sender, receiver, b"x" * 1_000_000)
    assert outcome.kind == "delivered"
    assert receiver.requests[0].body == b"x" * 1_000_000


async def test_connections_are_kept_and_used_again(proxy: Proxy | None, sender: Sender) -> None:
    async with receiving(plays(OK)) as receiver:
        for _ in range(5):
            assert (await send(sender, receiver)).kind == "delivered"
    assert receiver.accepted == 1
    assert [exchange.number for exchange in receiver.requests] == [0, 1, 2, 3, 4]
    assert proxy is None or (proxy.accepted, len(proxy.asked)) == (1, 1)


@pytest.mark.case("E3")
async def test_a_late_answer_after_an_interim_one_is_not_given_to_the_next_request(sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        number = len(receiver.requests)
        await exchange.play(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        await asyncio.sleep(0.02)
        await exchange.play(response(200 if number == 1 else 500, b"r%d" % number))

    async with receiving(behaviour) as receiver:
        outcomes = [await send(sender, receiver) for _ in range(2)]
    assert [(o.status, o.excerpt) for o in outcomes] == [(200, b"r1"), (500, b"r2")]
    assert receiver.accepted == 1


@pytest.mark.case("E32")
async def test_an_extra_response_is_never_the_answer_to_the_next_request(sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        first = exchange.connection == 0
        exchange.writer.write(response(200 if first else 500, b"own") + (response(200, b"stale") if first else b""))

    async with receiving(behaviour) as receiver:
        outcomes = [await send(sender, receiver) for _ in range(2)]
        assert [(o.status, o.excerpt) for o in outcomes] == [(200, b"own"), (500, b"own")]
        assert receiver.accepted == 2


@pytest.mark.case("E5")
async def test_interim_responses_for_ever_end(sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        while True:
            await exchange.play(b"HTTP/1.1 102 Processing\r\n\r\n")

    async with receiving(behaviour) as receiver:
        assert (await send(sender, receiver)).kind == "protocol"


@pytest.mark.case("E6")
@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_body_that_must_not_be_is_not_the_next_answer(sender: Sender, status: int) -> None:
    async with receiving(plays(response(status, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))) as receiver:
        outcomes = [await send(sender, receiver) for _ in range(2)]
        assert [o.status for o in outcomes] == [status, status]
        assert receiver.accepted == 2


@pytest.mark.case("E16")
async def test_every_2xx_is_delivered_and_its_retry_after_ignored(sender: Sender) -> None:
    """Also 206: nobody asked for a part, so it is not one."""
    statuses = [200, 201, 202, 203, 206, 207, 208, 226, 299]

    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(response(int(exchange.body), b"ok", b"retry-after: 5\r\n"))

    async with receiving(behaviour) as receiver:
        outcomes = [await send(sender, receiver, b"%d" % status) for status in statuses]
    assert [(o.kind, o.status, o.retry_after_seconds) for o in outcomes] == [("delivered", s, None) for s in statuses]


@pytest.mark.case("E8")
async def test_304_is_a_failure(sender: Sender) -> None:
    async with receiving(plays(response(304))) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.status) == ("http_3xx", 304)


@pytest.mark.case("E43")
async def test_100_continue_that_nobody_asked_for_is_passed_over(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 100 Continue\r\n\r\n", OK)) as receiver:
        assert [(await send(sender, receiver)).status for _ in range(2)] == [200, 200]


@pytest.mark.case("E7")
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_never_followed(sender: Sender, status: int) -> None:
    async with receiving(plays(OK)) as target:
        location = b"location: %b\r\n" % target.url.encode()
        async with receiving(plays(response(status, headers=location))) as receiver:
            outcome = await send(sender, receiver)
        assert (outcome.kind, outcome.status) == ("http_3xx", status)
        assert "location: http" in (outcome.headers or "")
        assert target.accepted == 0


@pytest.mark.case("E9", "E10", "E12")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 410, 413, 415, 417, 422, 425, 429])
async def test_a_4xx_is_a_failure_that_says_which(sender: Sender, status: int) -> None:
    async with receiving(plays(response(status, b"why"))) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.status, outcome.excerpt) == ("http_4xx", status, b"why")
    assert outcome.retry_after_seconds is None


@pytest.mark.case("E17")
@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 507, 511, 599])
async def test_a_5xx_is_a_failure_that_says_which(sender: Sender, status: int) -> None:
    async with receiving(plays(response(status, headers=b"retry-after: 7\r\n"))) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.status) == ("http_5xx", status)
    assert outcome.retry_after_seconds == (7 if status == 503 else None)


BAD_STATUS_LINES = [b"HTTP/1.1 %b X" % status for status in (b"999", b"600", b"000", b"2", b"099", b"20x", b"200200")]


@pytest.mark.case("E18")
@pytest.mark.parametrize("status_line", [*BAD_STATUS_LINES, b"SSH-2.0-x"])
async def test_what_is_not_http_is_protocol_with_its_first_bytes(sender: Sender, status_line: bytes) -> None:
    data = status_line + b"\r\ncontent-length: 0\r\n\r\n"
    async with receiving(plays(data)) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.status, outcome.headers) == ("protocol", None, None)
    assert outcome.error
    assert data.startswith(outcome.excerpt)
    assert outcome.sent


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\nHTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 X\r\n\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 103 X\n\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_what_can_be_read_in_two_ways_is_not_believed(sender: Sender, data: bytes) -> None:
    async with receiving(plays(data, close=True)) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.status) == ("protocol", None)


@pytest.mark.field("F05")
@pytest.mark.case("E27")
@pytest.mark.parametrize(
    "lines",
    [
        b"content-length: 2\r\ncontent-length: 2",
        b"content-length: 0\r\ncontent-length: 2",
        b"content-length: 2\r\ntransfer-encoding: chunked",
        b"transfer-encoding: identity",
        b"x: y\r\n folded",
        b"x : y",
        b"x: y\0",
        b"x: y\r\n" * 200 + b"x: y",
        b"x: y\nz: y",
    ],
)
async def test_an_untidy_head_is_an_answer_and_its_connection_is_not_used_again(sender: Sender, lines: bytes) -> None:
    """The connection stays open and silent: nobody waits for its end, and nothing that follows is read as an answer."""

    async def behaviour(exchange: Exchange) -> None:
        status = exchange.body.decode()
        await exchange.play(f"HTTP/1.1 {status} X\r\nretry-after: 7\r\n".encode() + lines + b"\r\n\r\nok")
        await exchange.play(response(200, b"stale"))

    async with receiving(behaviour) as receiver:
        outcomes = [await send(sender, receiver, b"%d" % status) for status in (200, 429, 500, 200)]
        assert receiver.accepted == 4
    assert [(one.status, one.retry_after_seconds) for one in outcomes] == [
        (200, None),
        (429, 7),
        (500, None),
        (200, None),
    ]
    assert all(outcome.excerpt.startswith(b"ok") or not outcome.excerpt for outcome in outcomes)


@pytest.mark.field("F05")
async def test_a_head_of_line_feeds_only_is_an_answer(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 200 OK\ncontent-length: 0\n\n")) as receiver:
        assert [(await send(sender, receiver)).status for _ in range(2)] == [200, 200]
        assert receiver.accepted == 2


@pytest.mark.case("E20")
async def test_http_1_0_is_an_answer_and_its_connection_is_not_used_again(sender: Sender) -> None:
    async with receiving(
        plays(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok")
    ) as receiver:
        assert [(await send(sender, receiver)).kind for _ in range(2)] == ["delivered"] * 2
        assert receiver.accepted == 2


async def test_close_delimited_body(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 200 OK\r\n\r\n", b"some", b"thing", close=True)) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.excerpt) == ("delivered", b"something")


@pytest.mark.case("E22")
async def test_headers_that_drip_end_at_the_deadline(sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(b"HTTP/1.1 200 OK\r\n")
        while True:
            await exchange.play(b"a: b\r\n")
            await asyncio.sleep(0.05)

    async with receiving(behaviour) as receiver:
        outcome = await send(sender, receiver, timeout_seconds=0.5)
        assert (outcome.kind, outcome.status, outcome.sent) == ("timeout", None, True)
        await until(lambda: receiver.ended == 1)


@pytest.mark.case("E22")
async def test_a_body_that_drips_is_decided_by_its_status_at_the_deadline(sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await exchange.play(b"x")
            await asyncio.sleep(0.02)

    async with receiving(behaviour) as receiver:
        outcome = await send(sender, receiver, timeout_seconds=0.5)
        assert (outcome.kind, outcome.status) == ("delivered", 200)
        assert set(outcome.excerpt) == {ord("x")}
        await until(lambda: receiver.ended == 1)


@pytest.mark.case("E23")
@pytest.mark.parametrize("head", [b"content-length: 10000000000", b"x-close: delimited"])
async def test_an_endless_body_is_cut_at_the_excerpt(sender: Sender, head: bytes) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(b"HTTP/1.1 500 X\r\n" + head + b"\r\n\r\n")
        await exchange.until_closed()

    async with receiving(behaviour) as receiver:
        outcome = await send(sender, receiver)
        assert (outcome.kind, outcome.excerpt) == ("http_5xx", b"x" * 16_384)
        await until(lambda: receiver.ended == 1)


@pytest.mark.case("E24")
async def test_a_body_shorter_than_it_said_does_not_undo_success(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", close=True)) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.kind, outcome.excerpt) == ("delivered", b"short")


@pytest.mark.case("E26")
async def test_a_broken_chunk_ends_the_connection_not_the_success(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n")) as receiver:
        outcomes = [await send(sender, receiver) for _ in range(2)]
        assert [(o.kind, o.excerpt) for o in outcomes] == [("delivered", b"ok")] * 2
        assert receiver.accepted == 2


@pytest.mark.case("E26")
@pytest.mark.parametrize(
    ("start", "more"), [(b"0\r\n", b"a: b\r\n" * 100), (b"5;", b"x" * 9999)], ids=["trailers", "extension"]
)
async def test_endless_trailers_and_chunk_extensions_are_cut(sender: Sender, start: bytes, more: bytes) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + start)
        while True:
            await exchange.play(more)

    async with receiving(behaviour) as receiver:
        outcome = await send(sender, receiver)
        assert (outcome.kind, outcome.excerpt) == ("delivered", b"")
        await until(lambda: receiver.ended == 1)


async def test_an_answer_to_half_a_request_ends_the_connection(sender: Sender) -> None:
    """What is still to be written would be read as the next request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(413))
        await reader.read()
        writer.close()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    receiver = Receiver(server.sockets[0].getsockname()[1])
    outcome = await send(sender, receiver, b"x" * 30_000_000)
    assert outcome.kind == "http_4xx"
    await ended.wait()
    server.close()


async def test_an_answer_to_half_a_request_need_not_wait_for_the_rest(sender: Sender) -> None:
    """A receiver that has said 413 may well read no further: the rest can then never be written."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(413))
        await gone.wait()
        writer.transport.abort()

    gone = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    outcome = await send(sender, Receiver(server.sockets[0].getsockname()[1]), b"x" * 30_000_000)
    gone.set()
    server.close()
    assert (outcome.kind, outcome.status) == ("http_4xx", 413)


@pytest.mark.case("E27")
async def test_100_kilobytes_of_headers_are_too_many(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 200 OK\r\n" + b"x-a: bbbbbbbbbb\r\n" * 6000 + b"\r\n")) as receiver:
        outcome = await send(sender, receiver)
    assert outcome.kind == "protocol"
    assert "headers" in (outcome.error or "")


@pytest.mark.case("E28")
async def test_a_gzip_bomb_is_kept_as_it_came(sender: Sender) -> None:
    packed = zlib.compress(bytes(50_000_000), 9, zlib.MAX_WBITS | 16)
    async with receiving(plays(response(200, packed, b"content-encoding: gzip\r\n"))) as receiver:
        outcome = await send(sender, receiver)
    assert outcome.excerpt == packed[:16_384]


@pytest.mark.case("E30")
async def test_reset_before_the_answer(way: Way, sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        exchange.reset()

    async with receiving(behaviour) as receiver:
        outcome = await send(sender, receiver)
        assert (outcome.kind, outcome.sent, outcome.address) == ("connection", True, way.address)
        assert len(receiver.requests) == 1


@pytest.mark.case("E30")
async def test_closed_without_a_byte(sender: Sender) -> None:
    async with receiving(plays(close=True)) as receiver:
        outcome = await send(sender, receiver)
        assert (outcome.kind, outcome.sent) == ("connection", True)
        assert receiver.accepted == 1


@pytest.mark.case("E30")
async def test_closed_inside_the_headers(sender: Sender) -> None:
    async with receiving(plays(b"HTTP/1.1 200 OK\r\ncontent-le", close=True)) as receiver:
        assert (await send(sender, receiver)).kind == "connection"


@pytest.mark.case("E44", "E45")
async def test_a_body_is_bytes_whatever_it_holds(sender: Sender) -> None:
    body = b"\0\xff\x1b[31m<script>\xd8\x00null"
    async with receiving(plays(response(200, body, b"content-type: application/json\r\n"))) as receiver:
        assert (await send(sender, receiver)).excerpt == body


async def test_headers_are_kept_up_to_4_kilobytes(sender: Sender) -> None:
    async with receiving(plays(response(200, headers=b"x-a: " + b"b" * 5000 + b"\r\n"))) as receiver:
        assert len((await send(sender, receiver)).headers or "") == 4096


async def test_path_query_and_header_lines_arrive_byte_for_byte(sender: Sender) -> None:
    target = "/a/../b//c/.%2e/%7Euser;p=1?q='[1]'&r=%20+&&s=@:/?"
    lines = b"X-Mixed-Case: a  b\r\nx-empty: \r\nx-bytes: \xc3\xa9: \xff\r\nx-twice: 1\r\nx-twice: 2\r\n"
    async with receiving(plays(OK)) as receiver:
        endpoint = Endpoint.of(f"http://127.0.0.1:{receiver.port}{target}")
        assert (await sender.send(endpoint, lines, b"{}", 10)).kind == "delivered"
    head = receiver.requests[0].head
    assert head.startswith(f"POST {target} HTTP/1.1\r\nhost: 127.0.0.1:".encode())
    assert head.endswith(b"\r\n" + lines + b"content-length: 2\r\n\r\n")


async def test_a_cancelled_send_closes_its_connection(sender: Sender) -> None:
    async def never(exchange: Exchange) -> None:
        await exchange.reader.read()

    async with receiving(never) as receiver:
        sending = asyncio.create_task(send(sender, receiver))
        await until(lambda: receiver.requests)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: receiver.ended == 1)


async def test_nothing_stays_open_after_the_last_answer(sender: Sender) -> None:
    async with receiving(plays(OK)) as receiver:
        await asyncio.gather(*[send(sender, receiver) for _ in range(5)])
        await sender.close()
        await until(lambda: receiver.ended == receiver.accepted)


@pytest.mark.case("S7")
@pytest.mark.parametrize("proxy_variable", ["http://127.0.0.1:9", "socks5h://127.0.0.1:9"])
async def test_proxy_env_and_netrc_are_not_used(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy_variable: str
) -> None:
    """proxy-env, socks: whatever the environment says, the way out is the one that the operator set."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy_variable)
        monkeypatch.setenv(name.upper(), proxy_variable)
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with receiving(plays(OK)) as receiver:
        assert (await send(sender, receiver)).kind == "delivered"
        assert b"authorization" not in receiver.requests[0].head.lower()


@pytest.mark.case("D18")
@pytest.mark.parametrize(
    ("url", "word"),
    REFUSED_BY_URL,
)
async def test_what_the_policy_forbids_by_the_url_alone_reaches_nobody(
    make_sender: MakeSender, proxy: Proxy | None, url: str, word: str
) -> None:
    """proxy-explicit: the check of literal addresses does not move to the proxy."""
    outcome = await make_sender(AddressPolicy()).send(Endpoint.of(url), b"", b"{}", 10)
    assert (outcome.kind, outcome.sent) == ("blocked_address", False)
    assert (outcome.headers, outcome.excerpt) == (None, b"")
    assert word in (outcome.error or "")
    assert proxy is None or proxy.accepted == 0


@pytest.mark.case("E39")
async def test_refused(way: Way, sender: Sender) -> None:
    """A proxy that speaks HTTP has one word for every way of not getting there."""
    async with receiving(plays(OK)) as receiver:
        pass
    outcome = await send(sender, receiver)
    assert outcome.kind == ("connection" if way.proxy in ("http", "https") else "refused")
    assert (outcome.sent, outcome.address) == (False, way.address)
    assert way.proxy is None or "egress proxy" in (outcome.error or "")


PIECES = [
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody",
    b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nt: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbodyHTTP/1.1 500 X\r\n\r\n",
]


@given(data=st.sampled_from(PIECES), cuts=st.lists(st.integers(1, 60), max_size=5))
@ANY_LOOP
async def test_the_same_bytes_split_anywhere_give_the_same_outcome(
    sender: Sender, data: bytes, cuts: list[int]
) -> None:
    edges = sorted({0, len(data), *cuts})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    async with receiving(plays(*pieces)) as receiver:
        outcome = await send(sender, receiver)
    assert (outcome.status, outcome.excerpt) == (500 if data == PIECES[1] else 200, b"body")


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
STALE = response(200, b"stale")
TRICKS = {
    "plain": lambda own: own,
    "interim": lambda own: INTERIM + own,
    "extra": lambda own: own + STALE,
    "extra half": lambda own: own + STALE[:20],
    "line end": lambda own: own + b"\r\n",
    "interim after": lambda own: own + INTERIM,
    "hidden body": lambda own: own.replace(b"200 X", b"204 X"),
    "close": lambda own: own.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) + STALE,
    "reset": lambda own: b"",
    "garbage": lambda own: STALE[9:],
}


@given(tricks=st.lists(st.sampled_from(sorted(TRICKS)), min_size=2, max_size=12))
@ANY_LOOP
async def test_no_request_ever_gets_the_answer_of_another(sender: Sender, tricks: list[str]) -> None:
    """Each answer repeats the request's body; what a receiver adds says 'stale'."""
    played = iter(tricks)

    async def behaviour(exchange: Exchange) -> None:
        answer = TRICKS[next(played, "plain")](response(200, exchange.body))
        exchange.writer.write(answer) if answer else exchange.reset()

    async with receiving(behaviour) as receiver:
        for number in range(len(tricks)):
            outcome = await send(sender, receiver, b"request %d" % number)
            assert outcome.status is None or outcome.excerpt in (b"request %d" % number, b"")
            assert outcome.kind in ("delivered", "connection", "protocol")
