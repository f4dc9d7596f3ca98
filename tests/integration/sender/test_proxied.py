"""What goes wrong at the egress proxy itself, and whose fault it is: 'local' is ours and charges no attempt."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trustme

from relay.config.egress_proxy import EgressProxy, parse_egress_proxy
from relay.http import AddressPolicy, Endpoint, HttpSender, Outcome
from relay.http.tls import default_ssl_context
from relay.http.tunnel import TunnelDialler
from tests.integration.sender.conftest import LOOPBACK, descriptors, usual_context
from tests.support.proxies import ACCEPTED, Asked, hangs, proxying, says
from tests.support.scripted_receiver import OK, Exchange, receiving
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio

SCHEMES = ["http", "socks5"]
Make = Callable[..., HttpSender]


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


@pytest.fixture
async def make_sender() -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def make(
            proxy: EgressProxy | str,
            policy: AddressPolicy = LOOPBACK,
            resolve: Any = None,
            proxy_ssl_context: ssl.SSLContext | None = None,
            **options: Any,
        ) -> HttpSender:
            address = parse_egress_proxy(proxy) if isinstance(proxy, str) else proxy
            dialler = TunnelDialler(policy, address, resolve, proxy_ssl_context or usual_context())
            options = {"ssl_context": usual_context(), **options}
            sender = HttpSender(dialler, user_agent="outbox-relay/test", **options)
            stack.push_async_callback(sender.close)
            return sender

        yield make


async def post(sender: HttpSender, url: str = "https://hooks.example.com/", timeout_seconds: float = 10) -> Outcome:
    return await sender.send(Endpoint.of(url), b"webhook-id: evt_1\r\n", b"{}", timeout_seconds)


def unsent(outcome: Outcome) -> tuple[str, int | None, bool]:
    return outcome.kind, outcome.status, outcome.sent


# -- reaching the proxy


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_a_proxy_that_is_down_charges_nothing_and_is_named(make_sender: Make, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    outcome = await post(make_sender(f"{scheme}://user:pass-word@127.0.0.1:{port}"))
    assert unsent(outcome) == ("local", None, False)
    assert outcome.error == f"egress proxy {scheme}://***@127.0.0.1:{port}: Connection refused"


async def test_a_proxy_whose_name_does_not_resolve_is_our_own_fault(make_sender: Make) -> None:
    async def resolve(_: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    outcome = await post(make_sender("http://proxy.example.com:3128", resolve=resolve))
    assert unsent(outcome) == ("local", None, False)
    assert "proxy.example.com:3128: Name or service not known" in (outcome.error or "")


async def test_the_next_address_of_the_proxy_is_tried(make_sender: Make) -> None:
    asked = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.2", "127.0.0.1"]

    async with receiving(answers_ok) as receiver, proxying("http") as proxy:
        sender = make_sender(f"http://proxy.example.com:{proxy.port}", resolve=resolve)
        assert (await post(sender, receiver.url)).kind == "delivered"
    assert asked == ["proxy.example.com"]


async def test_the_name_of_the_endpoint_is_never_looked_up_here(make_sender: Make) -> None:
    async def resolve(host: str) -> list[str]:
        raise AssertionError(host)

    async with receiving(answers_ok) as receiver, proxying("http", hosts={"a.example.com": "127.0.0.1"}) as proxy:
        sender = make_sender(proxy.address, resolve=resolve)
        assert (await post(sender, f"http://a.example.com:{receiver.port}/")).kind == "delivered"
    assert [(asked.host, asked.port) for asked in proxy.asked] == [("a.example.com", receiver.port)]


async def test_a_proxy_that_hangs_in_its_tls_handshake_is_our_own_fault(make_sender: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = make_sender(f"https://127.0.0.1:{listening.getsockname()[1]}")
        outcome = await post(sender, timeout_seconds=0.1)
    assert unsent(outcome) == ("local", None, False)
    assert "no connection in time" in (outcome.error or "")


async def test_the_certificate_of_an_https_proxy_is_verified(make_sender: Make) -> None:
    authority, trusting = trustme.CA(), default_ssl_context()
    authority.configure_trust(trusting)
    for name, by, kind in (
        ("127.0.0.1", trusting, "delivered"),
        ("b.example", trusting, "local"),
        ("127.0.0.1", None, "local"),
    ):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        async with receiving(answers_ok) as receiver, proxying("https", ssl=context) as proxy:
            outcome = await post(make_sender(proxy.address, proxy_ssl_context=by), receiver.url)
        assert outcome.kind == kind


@pytest.mark.case("F10")
async def test_without_file_descriptors_it_is_our_own_fault(make_sender: Make) -> None:
    async with proxying("http") as proxy:
        sender = make_sender(proxy.address)
        await post(sender)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as lowest:
            free = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            outcome = await post(sender)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert unsent(outcome) == ("local", None, False)


# -- logging in


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_user_and_password_are_sent_as_they_were_meant(make_sender: Make, scheme: str) -> None:
    login = "user:p@ss/wörd"
    async with receiving(answers_ok) as receiver, proxying(scheme, login=login) as proxy:
        sender = make_sender(f"{scheme}://user:p%40ss%2Fw%C3%B6rd@127.0.0.1:{proxy.port}")
        assert (await post(sender, receiver.url)).kind == "delivered"
    assert proxy.asked[0].login == login


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("given", ["", "user:wrong-word@"])
async def test_a_proxy_that_wants_another_login_charges_nothing(make_sender: Make, scheme: str, given: str) -> None:
    async with proxying(scheme, login="user:password") as proxy:
        outcome = await post(make_sender(f"{scheme}://{given}127.0.0.1:{proxy.port}"))
    assert unsent(outcome) == ("local", None, False)
    assert "wrong-word" not in (outcome.error or "")


# -- asking for the tunnel: the proxy's answer is never the receiver's


def http(status: int, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bcontent-length: 2\r\n\r\nok" % (status, headers)


CHALLENGE = b'proxy-authenticate: Basic realm="x"\r\n'
ANSWERS = {
    "403": ("http", http(403), "blocked_address", "(403)"),
    "407 of a rule": ("http", http(407), "blocked_address", "(407)"),
    "407 with a challenge": ("http", http(407, CHALLENGE), "local", "407"),
    "405": ("http", http(405), "local", "405"),
    "429": ("http", http(429), "local", "429"),
    "501": ("http", http(501), "local", "501"),
    "400": ("http", http(400), "connection", "(400)"),
    "301": ("http", http(301, b"location: http://127.0.0.1/\r\n"), "connection", "(301)"),
    "410": ("http", http(410), "connection", "(410)"),
    "500": ("http", http(500), "connection", "(500)"),
    "502": ("http", http(502), "connection", "(502)"),
    "503": ("http", http(503, b"retry-after: 7\r\n"), "connection", "(503)"),
    "504": ("http", http(504), "timeout", "(504)"),
    "interim, then 502": ("http", b"HTTP/1.1 103 X\r\n\r\n" + http(502), "connection", "(502)"),
    "an answer before the request": ("http", b"HTTP/1.1 200 X\r\n\r\n" + OK, "protocol", "before the request"),
    "not HTTP": ("http", b"\x05\x00\x00\x01\0\0\0\0\0\0", "local", "not HTTP"),
    "not the version": ("http", b"HTTP/2.0 200 X\r\n\r\n", "local", "not HTTP"),
    "not a status": ("http", b"HTTP/1.1 2x0 X\r\n\r\n", "local", "not HTTP"),
    "headers for ever": ("http", b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 15_000, "local", "not HTTP"),
    "nothing": ("http", b"", "connection", "closed"),
    "half": ("http", b"HTTP/1.1 200 X\r\n", "connection", "closed"),
    "socks failed": ("socks5", b"\x05\x01\0\1\0\0\0\0\0\0", "connection", "could not reach"),
    "socks rule": ("socks5", b"\x05\x02\0\1\0\0\0\0\0\0", "blocked_address", "does not allow"),
    "socks network": ("socks5", b"\x05\x03\0\1\0\0\0\0\0\0", "connection", "no route"),
    "socks host": ("socks5", b"\x05\x04\0\1\0\0\0\0\0\0", "connection", "resolve or reach"),
    "socks refused": ("socks5", b"\x05\x05\0\1\0\0\0\0\0\0", "refused", "refused"),
    "socks expired": ("socks5", b"\x05\x06\0\1\0\0\0\0\0\0", "timeout", "in time"),
    "socks no connect": ("socks5", b"\x05\x07\0\1\0\0\0\0\0\0", "local", "CONNECT"),
    "socks family": ("socks5", b"\x05\x08\0\1\0\0\0\0\0\0", "connection", "could not reach"),
    "socks unknown": ("socks5", b"\x05\xfe\0\1\0\0\0\0\0\0", "connection", "could not reach"),
    "socks version": ("socks5", b"\x04\x00\0\1\0\0\0\0\0\0", "local", "SOCKS5"),
    "socks half": ("socks5", b"\x05\x00\x00\x03", "connection", "closed"),
    "socks nothing": ("socks5", b"", "connection", "closed"),
    "socks, an answer before the request": ("socks5", ACCEPTED[True] + OK, "protocol", "before the request"),
}  # fmt: skip


@pytest.mark.parametrize(("scheme", "answer", "kind", "word"), ANSWERS.values(), ids=ANSWERS)
async def test_the_proxys_answer_is_not_the_receivers(
    make_sender: Make, scheme: str, answer: bytes, kind: str, word: str
) -> None:
    async with proxying(scheme, instead=says(answer)) as proxy:
        outcome = await post(make_sender(proxy.address))
        assert unsent(outcome) == (kind, None, False)
        assert (outcome.excerpt, outcome.headers, outcome.retry_after_seconds) == (b"", None, None)
        assert word in (outcome.error or "")
        assert ("127.0.0.1" in (outcome.error or "")) is (kind == "local")  # attempts show nothing of what is inside
        await until(lambda: proxy.ended == 1)


async def test_a_web_server_in_place_of_a_socks5_proxy_is_our_own_fault(make_sender: Make) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400))
        await reader.read()
        writer.close()
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    outcome = await post(make_sender(f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    await closed.wait()
    server.close()
    assert unsent(outcome) == ("local", None, False)
    assert "does not speak SOCKS5" in (outcome.error or "")


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_that_says_nothing_may_be_waiting_for_the_endpoint(make_sender: Make, scheme: str) -> None:
    async with proxying(scheme, instead=hangs) as proxy:
        outcome = await post(make_sender(proxy.address), timeout_seconds=0.4)  # time to come to the proxy
        assert unsent(outcome) == ("timeout", None, False)
        await until(lambda: proxy.ended == 1)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_send_that_is_cancelled_while_the_proxy_thinks_leaves_nothing_open(
    make_sender: Make, scheme: str
) -> None:
    async with proxying(scheme, instead=hangs) as proxy:
        sender = make_sender(proxy.address)
        open_before = descriptors()
        sending = asyncio.create_task(post(sender))
        await until(lambda: proxy.asked)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: proxy.ended == 1 and descriptors() <= open_before)


# -- inside the tunnel


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dies_after", [1, 12, 40])
async def test_a_tunnel_that_dies_is_a_lost_answer_or_keeps_the_status_that_came(
    make_sender: Make, scheme: str, dies_after: int
) -> None:
    async with receiving(answers_ok) as receiver, proxying(scheme, dies_after=dies_after) as proxy:
        outcome = await post(make_sender(proxy.address), receiver.url)
    assert outcome.sent
    assert (outcome.kind, outcome.status) == (("delivered", 200) if dies_after == 40 else ("connection", None))


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("http", b"CONNECT [2606:4700::1111]:8443 HTTP/1.1\r\nhost: [2606:4700::1111]:8443\r\n\r\n"),
        ("socks5", b"\x05\x01\x00\x04" + socket.inet_pton(socket.AF_INET6, "2606:4700::1111")),
    ],
)
async def test_an_ipv6_address_is_asked_for_so_that_it_can_be_read(make_sender: Make, scheme: str, said: bytes) -> None:
    async def remembers(asked: Asked) -> None:
        asked.writer.close()

    async with proxying(scheme, instead=remembers) as proxy:
        await post(make_sender(proxy.address), "https://[2606:4700::1111]:8443/")
        await until(lambda: proxy.ended)
    assert [(asked.host, asked.port, asked.said) for asked in proxy.asked] == [("2606:4700::1111", 8443, said)]


async def test_requests_do_not_wait_for_each_other(make_sender: Make) -> None:
    async def never(exchange: Exchange) -> None:
        await exchange.reader.read()

    async with receiving(never) as hanging, receiving(answers_ok) as healthy, proxying("http") as proxy:
        sender = make_sender(proxy.address)
        stuck = [asyncio.create_task(post(sender, hanging.url, timeout_seconds=60)) for _ in range(20)]
        await until(lambda: len(hanging.requests) == 20)
        assert {(await post(sender, healthy.url)).kind for _ in range(5)} == {"delivered"}
        for sending in stuck:
            sending.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await until(lambda: (proxy.accepted, proxy.ended) == (21, 20))


async def test_what_is_not_http_is_in_the_excerpt_and_not_in_the_error(make_sender: Make) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(b"HTTP/1.1 20x no header\r\n\r\n")

    async with receiving(behaviour) as receiver, proxying("http") as proxy:
        outcome = await post(make_sender(proxy.address), receiver.url)
    assert (outcome.kind, outcome.status) == ("protocol", None)
    assert (outcome.error or "").startswith("not a valid HTTP response: ")
    assert "no header" not in (outcome.error or "")
    assert b"no header" in outcome.excerpt
