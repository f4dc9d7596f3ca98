"""The steps to an endpoint, each against a real server: what they find, where they stop, and that they say nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from outbox.subscriptions.authentication import TLS
from relay.http import AddressPolicy, DirectDialler, Endpoint
from relay.http.inspection.certificate import Certificate, read_certificate
from relay.http.inspection.inspect import inspect
from relay.http.inspection.steps import Step
from relay.http.tls import ClientTLS, default_ssl_context
from relay.http.tunnel import TunnelDialler
from relay.local.embedded import free_port
from tests.support.proxies import Proxy, proxying, says
from tests.support.tls_server import demanding_context, listening, old_context, server_context

pytestmark = pytest.mark.anyio

NAME = "hooks.example.com"
LOOPBACK = AddressPolicy(["127.0.0.0/8"], allow_http=True)


@pytest.fixture
def anyio_backend() -> str:
    """What the commands run on."""
    return "asyncio"


def resolving(*addresses: str, error: OSError | None = None) -> Callable:
    async def resolve(host: str) -> list[str]:
        assert host == NAME
        if error is not None:
            raise error
        return list(addresses)

    return resolve


async def steps_to(url: str, *addresses: str, policy: AddressPolicy = LOOPBACK, **options) -> list[Step]:
    resolve = options.pop("resolve", resolving(*addresses or ("127.0.0.1",)))
    options.setdefault("timeout_seconds", 2)
    return await inspect(Endpoint.of(url), DirectDialler(policy, resolve), **options)


def states(steps: list[Step]) -> list[tuple[str, str, str | None]]:
    return [(step.name, step.state, step.cause) for step in steps]


OK_UNTIL_TLS = [("dns", "ok", None), ("policy", "ok", None), ("tcp", "ok", None)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = default_ssl_context()
    authority.configure_trust(context)
    return context


async def test_all_is_well_and_not_a_byte_was_sent(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    with listening(server_context(authority.issue_cert("www.example.com", NAME))) as heard:
        steps = await steps_to(f"https://{NAME}:{heard.port}/secret-path", ssl_context=trusting)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "ok", None)]
    assert steps[3].text.startswith("TLSv1.3, TLS_")
    assert steps[3].certificate is not None
    assert steps[3].certificate.names == ("www.example.com", NAME)
    assert steps[3].certificate.is_for(NAME)
    assert steps[3].certificate.not_before < datetime.now(UTC) < steps[3].certificate.not_after
    assert heard.data == b""


async def test_a_certificate_that_ends_soon_is_a_warning(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    ending = authority.issue_cert(NAME, not_after=datetime.now(UTC) + timedelta(days=3, hours=1))
    with listening(server_context(ending)) as heard:
        steps = await steps_to(f"https://{NAME}:{heard.port}/", ssl_context=trusting)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "warning", None)]
    assert steps[3].text.endswith("only for 3 more days")


def wrong_name(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert("www.example.com", "*.other.example"))


def expired(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert(NAME, not_after=datetime.now(UTC) - timedelta(days=3)))


def not_yet_valid(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert(NAME, not_before=datetime.now(UTC) + timedelta(days=3)))


def unknown_issuer(_: trustme.CA) -> ssl.SSLContext:
    return server_context(trustme.CA().issue_cert(NAME))


def self_signed(_: trustme.CA) -> ssl.SSLContext:
    """A certificate that is its own authority, as `openssl req -x509` makes them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    with authority.private_key_pem.tempfile() as key, authority.cert_pem.tempfile() as certificate:
        context.load_cert_chain(certificate, key)
    return context


def old(authority: trustme.CA) -> ssl.SSLContext:
    return old_context(authority.issue_cert(NAME))


def demanding(authority: trustme.CA) -> ssl.SSLContext:
    return demanding_context(authority.issue_cert(NAME), authority)


def demanding_before_1_3(authority: trustme.CA) -> ssl.SSLContext:
    context = demanding(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


BAD_SERVERS = {
    "wrong_name": wrong_name,
    "expired": expired,
    "not_yet_valid": not_yet_valid,
    "unknown_issuer": unknown_issuer,
    "self_signed": self_signed,
    "old_tls": old,
    "client_certificate": demanding,
    "handshake_refused": demanding_before_1_3,
}


@pytest.mark.case("E41")
@pytest.mark.parametrize("cause", BAD_SERVERS)
async def test_what_is_wrong_with_tls(authority: trustme.CA, trusting: ssl.SSLContext, cause: str) -> None:
    with listening(BAD_SERVERS[cause](authority)) as heard:
        steps = await steps_to(f"https://{NAME}:{heard.port}/", ssl_context=trusting)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "failed", cause)]
    assert heard.data == b""
    certificate = steps[3].certificate
    assert (certificate is not None) == (cause not in ("old_tls", "handshake_refused"))
    if cause == "wrong_name":
        assert certificate is not None
        assert certificate.names == ("www.example.com", "*.other.example")
        assert not certificate.is_for(NAME)


async def test_a_port_without_tls(trusting: ssl.SSLContext) -> None:
    with listening(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n") as heard:
        steps = await steps_to(f"https://{NAME}:{heard.port}/", ssl_context=trusting)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "failed", "not_tls")]


async def test_half_a_handshake(trusting: ssl.SSLContext) -> None:
    with listening() as heard:
        steps = await steps_to(f"https://{NAME}:{heard.port}/", ssl_context=trusting, timeout_seconds=0.3)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "failed", "handshake_timeout")]


async def test_a_handshake_that_the_server_cuts(trusting: ssl.SSLContext) -> None:
    with listening() as heard:
        task = asyncio.ensure_future(steps_to(f"https://{NAME}:{heard.port}/", ssl_context=trusting))
        while not heard.data:
            await asyncio.sleep(0.005)
        heard.open[-1].shutdown(socket.SHUT_RDWR)
        steps = await task
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "failed", "closed")]


async def test_plain_http_is_said_to_be_plain() -> None:
    with listening(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n") as heard:
        steps = await steps_to(f"http://{NAME}:{heard.port}/")
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "ok", None)]
    assert "http://" in steps[3].text


async def test_http_to_a_port_that_speaks_tls(authority: trustme.CA) -> None:
    with listening(server_context(authority.issue_cert(NAME))) as heard:
        steps = await steps_to(f"http://{NAME}:{heard.port}/")
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "failed", "speaks_tls")]
    assert heard.data == b""


async def test_nothing_listens() -> None:
    steps = await steps_to(f"https://{NAME}:{free_port()}/")
    assert states(steps) == [*OK_UNTIL_TLS[:2], ("tcp", "failed", "refused")]


async def test_one_dead_address_of_two_is_a_warning(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    with listening(server_context(authority.issue_cert(NAME))) as heard:
        steps = await steps_to(f"https://{NAME}:{heard.port}/", "127.0.0.9", "127.0.0.1", ssl_context=trusting)
    assert states(steps) == [*OK_UNTIL_TLS[:2], ("tcp", "warning", "refused"), OK_UNTIL_TLS[2], ("tls", "ok", None)]
    assert [step.addresses for step in steps[2:]] == [("127.0.0.9",), ("127.0.0.1",), ("127.0.0.1",)]


DNS = {
    "no_such_name": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "no_answer": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    "local": socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"),
}


@pytest.mark.parametrize("cause", DNS)
async def test_a_name_that_cannot_be_resolved(cause: str) -> None:
    steps = await steps_to(f"https://{NAME}/", resolve=resolving(error=DNS[cause]))
    assert states(steps) == [("dns", "failed", cause)]


async def test_a_name_without_an_address() -> None:
    assert states(await steps_to(f"https://{NAME}/", resolve=resolving())) == [("dns", "failed", "no_such_name")]


async def test_a_name_server_that_hangs() -> None:
    async def resolve(_: str) -> list[str]:
        await asyncio.sleep(60)
        return []

    steps = await steps_to(f"https://{NAME}/", resolve=resolve, timeout_seconds=0.05)
    assert states(steps) == [("dns", "failed", "dns_timeout")]


async def test_what_the_policy_forbids_is_not_dialled() -> None:
    """One forbidden address of a public name is enough, and the good one is left alone too."""
    with listening() as heard:
        steps = await steps_to(f"http://{NAME}:{heard.port}/", "127.0.0.1", "10.0.0.5")
        assert heard.connections == 0
    assert states(steps) == [("dns", "ok", None), ("policy", "failed", "forbidden")]
    assert steps[1].addresses == ("10.0.0.5",)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("https://10.0.0.5/", "forbidden"),
        ("http://example.com/", "url_refused"),
        ("https://example.com:22/", "url_refused"),
    ],
)
async def test_what_the_url_alone_forbids_is_not_resolved(url: str, cause: str) -> None:
    steps = await steps_to(url, policy=AddressPolicy(), resolve=resolving(error=AssertionError()))
    assert states(steps) == [("policy", "failed", cause)]


def certificate_for(*names: str) -> Certificate:
    now = datetime.now(UTC)
    return Certificate("", "", names, now, now)


@pytest.mark.parametrize(
    ("names", "host", "fits"),
    [
        (["a.example.com"], "a.example.com", True),
        (["A.Example.com"], "a.example.com", True),
        (["*.example.com"], "a.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "b.a.example.com", False),
        (["192.0.2.1"], "192.0.2.1", True),
        (["2001:db8::1"], "2001:db8::1", True),
        (["*.0.2.1"], "192.0.2.1", False),
        ([], "a.example.com", False),
    ],
)
def test_whom_a_certificate_is_for(names: list[str], host: str, fits: bool) -> None:
    assert certificate_for(*names).is_for(host) is fits


def test_a_certificate_that_is_none_cannot_be_read() -> None:
    assert [read_certificate(der) for der in (None, b"", b"\x30\x03junk")] == [None] * 3


async def test_a_subscriptions_own_tls_is_what_is_tried(authority: trustme.CA) -> None:
    """Its own authority is trusted, its certificate shown, and what cannot be prepared is this machine's fault."""
    pem = authority.issue_cert("client")
    chain = b"".join(blob.bytes() for blob in pem.cert_chain_pems).decode()
    own = ClientTLS.of(TLS(chain, pem.private_key_pem.bytes().decode(), authority.cert_pem.bytes().decode()))
    with listening(demanding(authority)) as heard:
        endpoint = Endpoint.of(f"https://{NAME}:{heard.port}/", own)
        steps = await inspect(endpoint, DirectDialler(LOOPBACK, resolving("127.0.0.1")), timeout_seconds=2)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "ok", None)]


async def test_tls_that_this_machine_cannot_prepare(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA) -> None:
    async def context(_: ClientTLS) -> ssl.SSLContext:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ClientTLS, "context", context)
    own = ClientTLS.of(TLS(ca=authority.cert_pem.bytes().decode()))
    with listening() as heard:
        endpoint = Endpoint.of(f"https://{NAME}:{heard.port}/", own)
        steps = await inspect(endpoint, DirectDialler(LOOPBACK, resolving("127.0.0.1")), timeout_seconds=2)
    assert states(steps) == [*OK_UNTIL_TLS, ("tls", "failed", "local")]
    assert "Too many open files" in steps[3].text


# -- through an egress proxy


async def steps_through(
    proxy: Proxy,
    url: str,
    ssl_context: ssl.SSLContext | None = None,
    proxy_ssl_context: ssl.SSLContext | None = None,
    timeout_seconds: float = 2,
) -> list[Step]:
    dialler = TunnelDialler(LOOPBACK, proxy.address, ssl_context=proxy_ssl_context)
    return await inspect(Endpoint.of(url), dialler, timeout_seconds=timeout_seconds, ssl_context=ssl_context)


THROUGH = [("dns", "ok", None), ("policy", "ok", None), ("proxy", "ok", None)]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_through_a_proxy_all_is_well(scheme: str, authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    with listening(server_context(authority.issue_cert(NAME))) as heard:
        async with proxying(scheme, hosts={NAME: "127.0.0.1"}) as proxy:
            steps = await steps_through(proxy, f"https://{NAME}:{heard.port}/", trusting)
    assert states(steps) == [*THROUGH, ("tls", "ok", None)]
    assert steps[3].certificate is not None
    assert {(asked.host, asked.port) for asked in proxy.asked} == {(NAME, heard.port)}
    assert heard.data == b""


@pytest.mark.parametrize("cause", ["wrong_name", "expired", "client_certificate"])
async def test_through_a_proxy_the_faults_of_tls_are_the_same(
    authority: trustme.CA, trusting: ssl.SSLContext, cause: str
) -> None:
    with listening(BAD_SERVERS[cause](authority)) as heard:
        async with proxying("http", hosts={NAME: "127.0.0.1"}) as proxy:
            steps = await steps_through(proxy, f"https://{NAME}:{heard.port}/", trusting)
    assert states(steps) == [*THROUGH, ("tls", "failed", cause)]
    assert steps[3].certificate is not None
    assert heard.data == b""


async def test_a_proxy_that_refuses_says_so() -> None:
    async with proxying("http", instead=says(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")) as proxy:
        steps = await steps_through(proxy, f"https://{NAME}/")
    assert states(steps) == [*THROUGH[:2], ("proxy", "failed", None)]
    assert "does not allow" in steps[2].text


async def test_through_a_proxy_plain_http_ends_with_the_tunnel() -> None:
    with listening() as heard:
        async with proxying("http", hosts={NAME: "127.0.0.1"}) as proxy:
            assert states(await steps_through(proxy, f"http://{NAME}:{heard.port}/")) == THROUGH


async def test_through_a_proxy_the_url_is_judged_here() -> None:
    async with proxying("http") as proxy:
        steps = await steps_through(proxy, "https://10.0.0.5/")
    assert states(steps) == [("policy", "failed", "forbidden")]
    assert proxy.accepted == 0


@pytest.mark.field("F08")
async def test_what_the_check_advises_to_give_is_enough() -> None:
    """It names the issuer of the certificate, which may be an intermediate: that alone mends it."""
    intermediate = trustme.CA().create_child_ca()
    with listening(server_context(intermediate.issue_cert(NAME))) as heard:
        url = f"https://{NAME}:{heard.port}/"
        before = (await steps_to(url))[-1]
        assert (before.state, before.cause) == ("failed", "unknown_issuer")
        own = ClientTLS.of(TLS(ca=intermediate.cert_pem.bytes().decode()))
        dialler = DirectDialler(LOOPBACK, resolving("127.0.0.1"))
        after = (await inspect(Endpoint.of(url, own), dialler, timeout_seconds=2))[-1]
    assert (after.name, after.state) == ("tls", "ok")
