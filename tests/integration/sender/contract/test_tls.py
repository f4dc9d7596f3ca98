"""Whom the sender believes: names, authorities, versions, and a subscription's own side of TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from outbox.subscriptions.authentication import TLS
from relay.http import Endpoint, Outcome, Sender
from relay.http.tls import ClientTLS, default_ssl_context
from tests.integration.sender.conftest import descriptors
from tests.integration.sender.contract.conftest import NAME, MakeSender, Way
from tests.support.proxies import Proxy
from tests.support.scripted_receiver import OK, Exchange, receiving
from tests.support.serving import serving
from tests.support.tls_server import demanding_context, old_context, server_context
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


async def post(sender: Sender, url: str, timeout_seconds: float = 10, tls: ClientTLS | None = None) -> Outcome:
    return await sender.send(Endpoint.of(url, tls), b"webhook-id: evt_1\r\n", b"{}", timeout_seconds)


async def test_the_name_of_the_url_is_asked_for_and_verified(way: Way, sender: Sender, authority: trustme.CA) -> None:
    names = []
    context = server_context(authority.issue_cert(NAME))
    context.sni_callback = lambda _, name, __: names.append(name)
    async with receiving(answers_ok, ssl=context) as receiver:
        outcomes = [await post(sender, f"https://{NAME}:{receiver.port}/") for _ in range(3)]
    assert [(o.kind, o.excerpt, o.address) for o in outcomes] == [("delivered", b"ok", way.address)] * 3
    assert names == [NAME] * receiver.accepted
    assert receiver.accepted == 1


async def test_tls_sni_ip_needs_a_certificate_for_the_address(sender: Sender, authority: trustme.CA) -> None:
    for identity, kind in (("127.0.0.1", "delivered"), (NAME, "tls")):
        async with receiving(answers_ok, ssl=server_context(authority.issue_cert(identity))) as receiver:
            assert (await post(sender, f"https://127.0.0.1:{receiver.port}/")).kind == kind


def _expired(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert(NAME, not_after=datetime.now(UTC) - timedelta(days=1)))


def _old(authority: trustme.CA) -> ssl.SSLContext:
    return old_context(authority.issue_cert(NAME))


def _demanding(authority: trustme.CA, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = demanding_context(authority.issue_cert(NAME), authority)
    context.maximum_version = version
    return context


BAD_SERVERS = {
    "wrong name": (lambda authority: server_context(authority.issue_cert("other.example.com")), "not valid for"),
    "self-signed": (lambda authority: server_context(trustme.CA().issue_cert(NAME)), "certificate"),
    "expired": (_expired, "expired"),
    "TLS 1.1": (_old, ""),
    "client certificate": (_demanding, ""),
}


@pytest.mark.case("E41")
@pytest.mark.parametrize(("make_server", "word"), BAD_SERVERS.values(), ids=BAD_SERVERS)
async def test_tls_failures_send_nothing(sender: Sender, authority: trustme.CA, make_server, word: str) -> None:
    async with receiving(answers_ok, ssl=make_server(authority)) as receiver:
        outcome = await post(sender, f"https://{NAME}:{receiver.port}/")
    assert (outcome.kind, outcome.sent, receiver.requests) == ("tls", False, [])
    assert word in (outcome.error or "")


@pytest.mark.case("E41")
async def test_an_unknown_authority_is_refused_by_default(make_sender: MakeSender, authority: trustme.CA) -> None:
    async with receiving(answers_ok, ssl=server_context(authority.issue_cert(NAME))) as receiver:
        assert (await post(make_sender(ssl_context=None), f"https://{NAME}:{receiver.port}/")).kind == "tls"


async def test_a_certificate_that_tls_1_3_demands_after_the_handshake(sender: Sender, authority: trustme.CA) -> None:
    """The client is through before the server has looked: the alert comes in place of an answer."""
    context = _demanding(authority, ssl.TLSVersion.TLSv1_3)

    def serve() -> None:
        accepted = listening.accept()[0]
        with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            with suppress(OSError):  # to close before all is read would send a reset, which may overtake the alert
                while socket.socket.recv(tls, 65_536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.create_task(asyncio.to_thread(serve))
        outcome = await post(sender, f"https://{NAME}:{listening.getsockname()[1]}/")
        await served
    assert (outcome.kind, outcome.status) == ("tls", None)


async def test_an_own_certificate_and_an_own_authority_serve_one_subscription(
    make_sender: MakeSender, authority: trustme.CA
) -> None:
    sender = make_sender(ssl_context=None)
    leaf = authority.issue_cert("client.example.com")
    own = ClientTLS.of(
        TLS(
            client_certificate=leaf.cert_chain_pems[0].bytes().decode(),
            client_key=leaf.private_key_pem.bytes().decode(),
            ca=authority.cert_pem.bytes().decode(),
        )
    )
    async with receiving(answers_ok, ssl=_demanding(authority)) as receiver:
        url = f"https://{NAME}:{receiver.port}/"
        assert [(await post(sender, url, tls=tls)).kind for tls in (None, own, None)] == ["tls", "delivered", "tls"]
        assert len(receiver.requests) == 1


@contextmanager
def _silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.case("E41")
async def test_a_handshake_that_stalls_ends_at_the_deadline(sender: Sender) -> None:
    with _silent_server() as port:
        outcome = await post(sender, f"https://{NAME}:{port}/", timeout_seconds=0.3)
    assert (outcome.kind, outcome.sent) == ("tls", False)
    assert "in time" in (outcome.error or "")


async def _half_a_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the client's hello, begin a record that never ends, and go."""
    await reader.read(65_536)
    writer.write(b"\x16\x03\x03\x40\x00\x02")
    await writer.drain()
    writer.close()


@pytest.mark.case("E41")
async def test_half_a_handshake_is_a_tls_failure(sender: Sender) -> None:
    server = await asyncio.start_server(_half_a_handshake, "127.0.0.1", 0)
    async with server:
        outcome = await post(sender, f"https://{NAME}:{server.sockets[0].getsockname()[1]}/")
    assert (outcome.kind, outcome.sent) == ("tls", False)


async def test_a_handshake_that_is_cancelled_leaves_nothing_open(sender: Sender, proxy: Proxy | None) -> None:
    with _silent_server() as port:
        await post(sender, f"https://{NAME}:{port}/", timeout_seconds=0.1)  # the loop opens what it needs itself
        await until(lambda: proxy is None or proxy.ended == proxy.accepted)
        open_before = descriptors()
        sending = asyncio.create_task(post(sender, f"https://{NAME}:{port}/"))
        await until(lambda: descriptors() > open_before)
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: descriptors() <= open_before)


@pytest.mark.case("E41")
async def test_plain_http_on_a_tls_port(sender: Sender) -> None:
    async with receiving(answers_ok) as receiver:
        outcome = await post(sender, f"https://{NAME}:{receiver.port}/", timeout_seconds=0.5)
    assert (outcome.kind, outcome.sent) == ("tls", False)


@pytest.mark.case("E3")
async def test_over_tls(sender: Sender, authority: trustme.CA) -> None:
    """A surplus answer over TLS never reaches the next request either."""

    async def behaviour(exchange: Exchange) -> None:
        exchange.writer.write(b"HTTP/1.1 103 E\r\n\r\n" + OK + b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")

    async with receiving(behaviour, ssl=server_context(authority.issue_cert(NAME))) as receiver:
        outcomes = [await post(sender, f"https://{NAME}:{receiver.port}/") for _ in range(2)]
    assert [(o.status, o.excerpt) for o in outcomes] == [(200, b"ok")] * 2
    assert receiver.accepted == 2


@pytest.mark.parametrize("host", ["foo_bar.example.com", "xn--fa-hia.example", "a--b.example", "a" * 63 + ".example"])
async def test_no_accepted_name_breaks_tls(sender: Sender, authority: trustme.CA, proxy, host: str) -> None:
    if proxy is not None:
        proxy.hosts[host] = "127.0.0.1"
    async with receiving(answers_ok, ssl=server_context(authority.issue_cert(NAME))) as receiver:
        outcome = await post(sender, f"https://{host}:{receiver.port}/")
    assert (outcome.kind, outcome.sent) == ("tls", False)
    assert "not valid for" in (outcome.error or "")


# -- what a private authority gives


@pytest.mark.field("F08")
@pytest.mark.parametrize("given", ["the intermediate", "intermediate and root", "root", "the certificate itself"])
async def test_a_private_authority_is_trusted_as_it_is_given(make_sender: MakeSender, given: str) -> None:
    root = trustme.CA()
    intermediate = root.create_child_ca()
    leaf = intermediate.issue_cert(NAME)
    pems = {
        "the intermediate": [intermediate.cert_pem],
        "intermediate and root": [intermediate.cert_pem, root.cert_pem],
        "root": [root.cert_pem],
        "the certificate itself": [leaf.cert_chain_pems[0]],
    }[given]
    own = ClientTLS.of(TLS(ca="".join(pem.bytes().decode() for pem in pems)))
    stranger = ClientTLS.of(TLS(ca=trustme.CA().create_child_ca().cert_pem.bytes().decode()))
    async with receiving(answers_ok, ssl=server_context(leaf)) as receiver:
        url = f"https://{NAME}:{receiver.port}/"
        assert [(await post(make_sender(), url, tls=tls)).kind for tls in (own, stranger)] == ["delivered", "tls"]


@pytest.mark.field("F08")
async def test_every_python_verifies_alike() -> None:
    for context in (default_ssl_context(), default_ssl_context(trustme.CA().cert_pem.bytes().decode())):
        assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


# -- HTTP/2 only

SETTINGS = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"
GOAWAY = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01"


@pytest.mark.field("F117")
async def test_http_1_1_is_offered(sender: Sender, authority: trustme.CA) -> None:
    chosen: list[str | None] = []

    async def behaviour(exchange: Exchange) -> None:
        chosen.append(exchange.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await exchange.play(OK)

    context = server_context(authority.issue_cert(NAME))
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with receiving(behaviour, ssl=context) as receiver:
        assert (await post(sender, f"https://{NAME}:{receiver.port}/")).kind == "delivered"
    assert chosen == ["http/1.1"]


@pytest.mark.field("F117")
async def test_a_server_that_refuses_http_1_1_in_the_handshake_is_named(sender: Sender) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(5)
            writer.write(b"\x15\x03\x03\0\x02\x02\x78")  # alert: fatal, no_application_protocol
            await reader.read()
        finally:
            writer.transport.abort()

    async with serving(refuse) as port:
        outcome = await post(sender, f"https://{NAME}:{port}/")
    assert (outcome.kind, outcome.sent) == ("tls", False)
    assert "HTTP/2 only" in (outcome.error or "")


@pytest.mark.field("F117")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("frame", [SETTINGS, GOAWAY], ids=["SETTINGS", "GOAWAY"])
@pytest.mark.parametrize("when", ["at once", "when asked"])
async def test_frames_of_http_2_are_named(
    sender: Sender, authority: trustme.CA, scheme: str, frame: bytes, when: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if when == "when asked":
                await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            await reader.read()
        finally:
            writer.transport.abort()

    options = {"ssl": server_context(authority.issue_cert(NAME))} if scheme == "https" else {}
    async with serving(serve, **options) as port:
        outcome = await post(sender, f"{scheme}://{NAME}:{port}/")
    assert (outcome.kind, outcome.status, outcome.error) == ("protocol", None, "the endpoint speaks HTTP/2 only")


@pytest.mark.field("F117")
async def test_a_frame_in_pieces_is_named(sender: Sender) -> None:
    async def behaviour(exchange: Exchange) -> None:
        for at in range(len(SETTINGS)):
            await exchange.play(SETTINGS[at : at + 1])

    async with receiving(behaviour) as receiver:
        assert (await post(sender, receiver.url)).error == "the endpoint speaks HTTP/2 only"
