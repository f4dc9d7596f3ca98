"""Connections through an egress proxy: kept, told apart, and never used again where a byte waits in any layer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from outbox.subscriptions.authentication import TLS
from relay.http import Endpoint, HttpSender, Outcome
from relay.http.tls import ClientTLS, default_ssl_context
from relay.http.tls_layer import start_tls
from relay.http.tunnel import TunnelDialler
from tests.integration.sender.conftest import LOOPBACK
from tests.support.elsewhere import Elsewhere
from tests.support.proxies import Proxy, proxying
from tests.support.scripted_receiver import OK, Exchange, receiving, response
from tests.support.tls_server import server_context
from tests.support.waiting import await_until as until
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

NAME = "hooks.example.com"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = default_ssl_context()
    authority.configure_trust(context)
    return context


@dataclass(frozen=True)
class Way:
    """Whether the proxy, and whether the endpoint, speaks TLS."""

    proxy: str
    endpoint: str


WAYS = [Way(proxy, endpoint) for proxy in ("http", "https", "socks5") for endpoint in ("http", "https")]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.endpoint}-through-{way.proxy}")
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


def encryption(scheme: str, authority: trustme.CA) -> dict[str, ssl.SSLContext]:
    return {"ssl": server_context(authority.issue_cert(NAME, "127.0.0.1"))} if scheme == "https" else {}


Make = Callable[[Proxy | Elsewhere], HttpSender]


@pytest.fixture
async def make_sender(trusting: ssl.SSLContext) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def make(proxy: Proxy | Elsewhere) -> HttpSender:
            dialler = TunnelDialler(LOOPBACK, proxy.address, ssl_context=trusting)
            sender = HttpSender(dialler, user_agent="outbox-relay/test", ssl_context=trusting)
            stack.push_async_callback(sender.close)
            return sender

        yield make


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


async def post(sender: HttpSender, url: str, tls: ClientTLS | None = None) -> Outcome:
    return await sender.send(Endpoint.of(url, tls), b"", b"{}", 10)


async def test_connections_are_kept_and_used_again(make_sender: Make, way: Way, authority: trustme.CA) -> None:
    async with (
        receiving(answers_ok, **encryption(way.endpoint, authority)) as receiver,
        proxying(way.proxy, hosts={NAME: "127.0.0.1"}, **encryption(way.proxy, authority)) as proxy,
    ):
        sender, url = make_sender(proxy), f"{way.endpoint}://{NAME}:{receiver.port}/"
        for _ in range(20):
            assert (await post(sender, url)).kind == "delivered"
        assert (proxy.accepted, len(proxy.asked), receiver.accepted, len(receiver.requests)) == (1, 1, 1, 20)
        await asyncio.gather(*[post(sender, url) for _ in range(3)])
        await asyncio.gather(*[post(sender, url) for _ in range(3)])
        assert (proxy.accepted, len(proxy.asked), receiver.accepted, len(receiver.requests)) == (3, 3, 3, 26)
        assert sender.resting == 3


async def test_endpoints_and_tls_of_ones_own_share_no_tunnel(make_sender: Make, authority: trustme.CA) -> None:
    own = ClientTLS.of(TLS(ca=authority.cert_pem.bytes().decode()))
    async with (
        receiving(answers_ok, **encryption("https", authority)) as one,
        receiving(answers_ok, **encryption("https", authority)) as other,
        proxying("http", hosts={NAME: "127.0.0.1"}) as proxy,
    ):
        sender = make_sender(proxy)
        for _ in range(2):
            for port, tls in ((one.port, None), (other.port, None), (one.port, own)):
                assert (await post(sender, f"https://{NAME}:{port}/", tls)).kind == "delivered"
        assert (one.accepted, other.accepted, len(proxy.asked)) == (2, 1, 3)


async def test_a_tunnel_that_ends_while_it_rests_is_forgotten(
    make_sender: Make, way: Way, authority: trustme.CA
) -> None:
    async with (
        receiving(answers_ok, **encryption(way.endpoint, authority)) as receiver,
        proxying(way.proxy, hosts={NAME: "127.0.0.1"}, **encryption(way.proxy, authority)) as proxy,
    ):
        sender, url = make_sender(proxy), f"{way.endpoint}://{NAME}:{receiver.port}/"
        await post(sender, url)
        proxy.asked[0].writer.close()
        await until(lambda: sender.endpoints == 0)
        assert (await post(sender, url)).kind == "delivered"
        assert proxy.accepted == 2


@pytest.mark.case("E31")
async def test_a_kept_tunnel_that_dies_under_a_request_is_replaced_once(
    make_sender: Make, way: Way, authority: trustme.CA
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        if (exchange.connection, exchange.number) == (0, 1):
            exchange.writer.transport.abort()
        else:
            await exchange.play(OK)

    async with (
        receiving(behaviour, **encryption(way.endpoint, authority)) as receiver,
        proxying(way.proxy, hosts={NAME: "127.0.0.1"}, **encryption(way.proxy, authority)) as proxy,
    ):
        sender, url = make_sender(proxy), f"{way.endpoint}://{NAME}:{receiver.port}/"
        assert [(await post(sender, url)).kind for _ in range(2)] == ["delivered"] * 2
        assert (receiver.accepted, proxy.accepted) == (2, 2)


@pytest.fixture(scope="module")
def process(trusting: ssl.SSLContext) -> Iterator[Elsewhere]:
    with Elsewhere(NAME) as process:
        trusting.load_verify_locations(cadata=process.authority)
        yield process


@pytest.fixture
def elsewhere(process: Elsewhere, way: Way) -> Iterator[Elsewhere]:
    """A receiver and a proxy whose bytes come while this loop stands still."""
    with process.serving(way.proxy, way.endpoint):
        yield process


def play(elsewhere: Elsewhere, data: bytes) -> None:
    """Let it come, through two sockets and the proxy's loop, while this loop stands still."""
    elsewhere.play(data)
    wait_until(lambda: waits_unread(elsewhere.address.port))


def waits_unread(port: int) -> bool:
    """Tell whether the kernel has bytes of somebody at this port that nobody has read."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return any(int(there.partition(":")[2], 16) == port and int(queues.partition(":")[2], 16) > 0
               for _, _, there, state, queues, *_ in lines if state == "01")  # fmt: skip


@pytest.mark.case("E32")
async def test_what_waits_unread_in_the_kernel_is_seen_before_reuse(
    make_sender: Make, way: Way, elsewhere: Elsewhere
) -> None:
    """No turn of this loop comes between the extra response and the next request."""
    sender, url = make_sender(elsewhere), f"{way.endpoint}://{NAME}:{elsewhere.port}/"
    assert (await post(sender, url)).excerpt == b"ok"
    play(elsewhere, response(200, b"stale"))
    outcome = await post(sender, url)
    assert (outcome.excerpt, *elsewhere.counts()) == (b"ok", 2, 2)


@pytest.mark.case("E32")
async def test_what_comes_while_it_rests_ends_the_tunnel(make_sender: Make, way: Way, elsewhere: Elsewhere) -> None:
    sender, url = make_sender(elsewhere), f"{way.endpoint}://{NAME}:{elsewhere.port}/"
    assert (await post(sender, url)).excerpt == b"ok"
    play(elsewhere, response(200, b"stale"))
    await until(lambda: sender.resting == 0)
    assert (await post(sender, url)).excerpt == b"ok"
    assert elsewhere.counts()[0] == 2


class Below(asyncio.Transport):
    """A transport whose other side is a test: what is written is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.above: asyncio.Protocol | None = None
        self.closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.above = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Above(asyncio.Protocol):
    """Keeps what was passed up."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Far:
    """The other side of a layer, without any socket."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def answer(self, below: Below) -> None:
        """Take what was written, go on with the handshake, and send what comes of it."""
        self.incoming.write(below.written)
        below.written = b""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        assert below.above is not None
        below.above.data_received(self.outgoing.read())

    def say(self, data: bytes) -> bytes:
        """Return the record that says so."""
        self.tls.write(data)
        return self.outgoing.read()


async def shaken(authority: trustme.CA, trusting: ssl.SSLContext) -> tuple[Below, Above, Far, asyncio.Transport]:
    """Return a layer that has shaken hands, and what is below, above and at its far end."""
    below, above, far = Below(), Above(), Far(encryption("https", authority)["ssl"])
    shaking = asyncio.create_task(start_tls(below, above, NAME, trusting, asyncio.get_running_loop().time() + 10))
    for _ in range(2):
        await asyncio.sleep(0)
        far.answer(below)
    return below, above, far, await shaking


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 30, -1])
async def test_a_layer_tells_of_half_a_record_that_it_keeps(
    authority: trustme.CA, trusting: ssl.SSLContext, cut: int
) -> None:
    below, above, far, layer = await shaken(authority, trusting)
    first, record = far.say(b"answer"), far.say(b"a response that nobody asked for")
    assert below.above is not None
    below.above.data_received(first + record[:cut])
    assert (above.received, layer.get_extra_info("unread")) == (b"answer", True)
    below.above.data_received(record[cut:])
    assert above.received == b"answera response that nobody asked for"
    assert not layer.get_extra_info("unread", False)


async def test_a_layer_tells_of_what_is_no_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    below, above, _, _ = await shaken(authority, trusting)
    assert below.above is not None
    below.above.data_received(b"\x17\x03\x03\x00\x04none")
    assert below.closed
    below.above.connection_lost(None)
    assert [type(error) for error in above.lost] == [ssl.SSLError]


async def test_a_tunnel_is_not_used_again_while_half_a_record_waits(make_sender: Make, authority: trustme.CA) -> None:
    async with (
        receiving(answers_ok, **encryption("https", authority)) as receiver,
        proxying("http", hosts={NAME: "127.0.0.1"}) as proxy,
    ):
        sender, url = make_sender(proxy), f"https://{NAME}:{receiver.port}/"
        assert (await post(sender, url)).excerpt == b"ok"
        proxy.asked[0].writer.write(b"\x17\x03\x03\x00\x40 the first half")
        await asyncio.sleep(0.05)
        assert sender.resting == 1, "it was read, and nothing can be decrypted yet"
        assert (await post(sender, url)).excerpt == b"ok"
        assert (receiver.accepted, len(receiver.requests)) == (2, 2)
