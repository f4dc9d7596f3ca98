"""From a name to a connection: resolving, the address policy on what is dialled, TLS, and our own faults."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from relay.http import AddressPolicy, Endpoint, HttpSender, Outcome
from relay.http import resolver as resolver_module
from relay.http.resolver import MAX_THREADS, NEW, QUICK, SILENT, SLOW, Resolver
from relay.http.tls import default_ssl_context
from tests.integration.sender.conftest import LOOPBACK, REFUSED_BY_URL, MakeSender
from tests.support.scripted_receiver import OK, Exchange, Receiver, receiving
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio

NAME = "hooks.example.com"


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


async def post(sender: HttpSender, url: str, timeout_seconds: float = 10) -> Outcome:
    return await sender.send(Endpoint.of(url), b"webhook-id: evt_1\r\n", b"{}", timeout_seconds)


def resolving(*answers: list[str] | OSError):
    """Return a resolver that gives these answers in turn, the last one for ever, and the names it was asked."""
    remaining, asked = list(answers), []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    return resolve, asked


@pytest.mark.parametrize(
    "answer",
    [
        ["10.0.0.5"],
        ["::1"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["8.8.8.8", "fd00::1"],
        ["169.254.169.254"],
        ["127.0.0.1"],
    ],
    ids=["private", "loopback-v6", "mapped", "nat64", "v4-ok-v6-bad", "cname-internal", "hosts-file"],
)
async def test_dns_answer_with_a_forbidden_address_is_not_dialled(make_sender: MakeSender, answer: list[str]) -> None:
    resolve, _ = resolving(answer)
    outcome = await post(make_sender(AddressPolicy(), resolve=resolve), f"https://{NAME}/")
    assert (outcome.kind, outcome.sent) == ("blocked_address", False)
    assert outcome.address == answer[-1]
    assert answer[-1].removeprefix("::ffff:") in (outcome.error or "") or "a9fe" in (outcome.error or "")


@pytest.mark.case("B2")
async def test_dns_rebind_retry_is_checked_at_each_connection(make_sender: MakeSender) -> None:
    async def close_after(exchange: Exchange) -> None:
        await exchange.play(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    resolve, asked = resolving(["127.0.0.1"], ["169.254.169.254"])
    sender = make_sender(resolve=resolve)
    async with receiving(close_after) as receiver:
        url = f"http://{NAME}:{receiver.port}/"
        assert [(await post(sender, url)).kind for _ in range(2)] == ["delivered", "blocked_address"]
    assert asked == [NAME, NAME]


class PublicLoopback(AddressPolicy):
    """Takes 127.0.0.0/8 for public addresses of the internet, which the operator did not have to name."""

    def refusal(self, address):
        return None if str(address).startswith("127.") else super().refusal(address)


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"]], ids=["alone", "among others"])
@pytest.mark.case("E48")
async def test_self_connect_an_address_of_this_machine_is_not_dialled(
    make_sender: MakeSender, answer: list[str]
) -> None:
    """No firewall stands between a relay and what listens on the relay's own public address."""
    resolve, _ = resolving(answer)
    async with receiving(answers_ok) as receiver:
        sender = make_sender(PublicLoopback(allow_http=True), resolve=resolve)
        outcome = await post(sender, f"http://{NAME}:{receiver.port}/")
        assert (outcome.kind, outcome.sent, outcome.address) == ("blocked_address", False, "127.0.0.1")
        assert "this machine's own address" in (outcome.error or "")
        assert receiver.accepted == 0
        resolve, _ = resolving(["127.0.0.1"])
        named = make_sender(PublicLoopback(["127.0.0.1/32"], allow_http=True), resolve=resolve)
        assert (await post(named, f"http://{NAME}:{receiver.port}/")).kind == "delivered"


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL])
async def test_dns_nxdomain_is_a_failure_that_is_retried(make_sender: MakeSender, code: int) -> None:
    resolve, _ = resolving(socket.gaierror(code, "Name or service not known"))
    outcome = await post(make_sender(resolve=resolve), f"https://{NAME}/")
    assert (outcome.kind, outcome.sent, outcome.status) == ("dns", False, None)
    assert "resolved" in (outcome.error or "")


@pytest.mark.field("F118")
@pytest.mark.parametrize("host", [NAME, "localhost"])
async def test_dns_without_an_address(make_sender: MakeSender, host: str) -> None:
    resolve, _ = resolving([])
    outcome = await post(make_sender(resolve=resolve), f"https://{host}/")
    assert (outcome.kind, outcome.sent) == ("dns", False)
    assert outcome.error == "the host name has no address"


async def test_dns_timeout_holds_up_no_other_endpoint(make_sender: MakeSender) -> None:
    async def resolve(host: str) -> list[str]:
        if host == NAME:
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    sender = make_sender(resolve=resolve)
    async with receiving(answers_ok) as receiver:
        hanging = asyncio.create_task(post(sender, f"https://{NAME}/", timeout_seconds=60))
        assert (await post(sender, f"http://other.example.com:{receiver.port}/")).kind == "delivered"
        assert not hanging.done()
        hanging.cancel()
        outcome = await post(sender, f"https://{NAME}/", timeout_seconds=0.1)
    assert (outcome.kind, outcome.sent) == ("dns", False)


async def test_the_name_goes_into_host_and_the_checked_address_is_dialled(make_sender: MakeSender) -> None:
    resolve, _ = resolving(["127.0.0.2"])
    async with receiving(answers_ok) as receiver:
        sender = make_sender(resolve=resolve)
        outcome = await post(sender, f"http://{NAME}:{receiver.port}/")
        assert (outcome.kind, outcome.address) == ("refused", "127.0.0.2")
        resolve, _ = resolving(["127.0.0.1"])
        outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:{receiver.port}/")
        assert (outcome.kind, outcome.address) == ("delivered", "127.0.0.1")
        assert b"host: %b:%d\r\n" % (NAME.encode(), receiver.port) in receiver.requests[0].head


async def test_a_dead_first_address_gives_way_to_the_next(make_sender: MakeSender) -> None:
    resolve, _ = resolving(["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    async with receiving(answers_ok) as receiver:
        outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:{receiver.port}/")
    assert (outcome.kind, outcome.address) == ("delivered", "127.0.0.1")


@pytest.mark.case("E38")
async def test_a_first_address_that_swallows_everything_gives_way_in_time(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relay.http import dial

    connect = dial.connect

    async def swallowing(address: str, port: int, deadline: float) -> dial.Reached:
        if address == "127.0.0.2":
            await asyncio.sleep(deadline - asyncio.get_running_loop().time())
            raise dial.DialError("timeout", "no connection in time", address)
        return await connect(address, port, deadline)

    monkeypatch.setattr(dial, "connect", swallowing)
    resolve, _ = resolving(["127.0.0.2", "127.0.0.1"])
    async with receiving(answers_ok) as receiver:
        sender = make_sender(resolve=resolve)
        outcome = await post(sender, f"http://{NAME}:{receiver.port}/", timeout_seconds=2)
        assert (outcome.kind, outcome.address) == ("delivered", "127.0.0.1")
    resolve, _ = resolving(["127.0.0.2"])
    outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:1/", timeout_seconds=0.1)
    assert (outcome.kind, outcome.sent) == ("blocked_address", False)  # port 1 is a bad port
    outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:8080/", timeout_seconds=0.1)
    assert (outcome.kind, outcome.sent) == ("timeout", False)


@pytest.mark.parametrize(
    ("url", "word"),
    REFUSED_BY_URL,
)
async def test_what_the_policy_forbids_is_said_without_a_lookup(make_sender: MakeSender, url: str, word: str) -> None:
    resolve, asked = resolving(["8.8.8.8"])
    outcome = await post(make_sender(AddressPolicy(), resolve=resolve), url)
    assert (outcome.kind, outcome.sent) == ("blocked_address", False)
    assert word in (outcome.error or "")
    assert asked == []


async def test_alt_svc_is_ignored(sender: HttpSender) -> None:
    async def elsewhere(exchange: Exchange) -> None:
        await exchange.play(b'HTTP/1.1 200 OK\r\nalt-svc: h3="127.0.0.1:9"\r\ncontent-length: 0\r\n\r\n')

    async with receiving(elsewhere) as receiver:
        assert [(await post(sender, receiver.url)).kind for _ in range(2)] == ["delivered"] * 2
        assert len(receiver.requests) == 2


@contextmanager
def _no_free_file_descriptor() -> Iterator[None]:
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.case("F10")
async def test_without_file_descriptors_it_is_our_own_fault(sender: HttpSender) -> None:
    async with receiving(answers_ok) as receiver:
        with _no_free_file_descriptor():
            outcome = await post(sender, receiver.url)
        assert (outcome.kind, outcome.sent) == ("local", False)
        assert (await post(sender, receiver.url)).kind == "delivered"


# -- the machine's resolver


async def test_localhost_is_resolved_by_the_machine() -> None:
    assert "127.0.0.1" in await Resolver()("localhost")


@pytest.mark.parametrize(("host", "looked_up"), [(NAME, b"hooks.example.com."), ("receiver", b"receiver")])
async def test_dns_search_domains_apply_to_no_public_name(
    monkeypatch: pytest.MonkeyPatch, host: str, looked_up: bytes
) -> None:
    names = []

    def getaddrinfo(name: bytes, *_: object, **__: object) -> list[object]:
        names.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror):
        await Resolver()(host)
    assert names == [looked_up]


async def test_those_who_ask_during_a_lookup_share_it_and_a_hanging_one_holds_up_nobody() -> None:
    answer, started = threading.Event(), []

    def addresses(host: str) -> list[str]:
        started.append(host)
        if host.startswith("hanging"):
            answer.wait(20)
        return [host]

    resolver = Resolver(addresses)
    hanging = [asyncio.create_task(resolver(f"hanging-{n % 5}")) for n in range(20)]
    await until(lambda: len(started) == 5)
    assert await resolver("quick") == ["quick"]
    hanging[0].cancel()
    answer.set()
    assert await hanging[5] == ["hanging-0"]
    await asyncio.gather(*hanging, return_exceptions=True)
    assert len(started) == 6


class Hanging:
    """Stands for getaddrinfo: names that begin with `dead` hang in their thread until released, others answer."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.released = threading.Event()

    def __call__(self, host: str) -> list[str] | OSError:
        self.started.append(host)
        if host.startswith("dead"):
            self.released.wait(20)
        return [host]

    def dead_started(self) -> int:
        return sum(host.startswith("dead") for host in self.started)


async def test_two_hundred_names_that_hang_at_once_hold_up_no_other_name_not_even_the_first_time() -> None:
    hanging = Hanging()
    resolver = Resolver(hanging)
    assert await resolver("known") == ["known"]
    dead = [asyncio.create_task(resolver(f"dead-{n}")) for n in range(200)]
    await asyncio.sleep(0)  # they stand before what comes now
    assert await resolver("never asked before") == ["never asked before"]
    assert await resolver("known") == ["known"]
    await until(lambda: hanging.dead_started() == 200)
    hanging.released.set()
    await asyncio.gather(*dead)


async def test_threads_are_bounded_and_names_that_answered_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long this machine takes to start so many threads: nothing of it is a name server's slowness."""
    monkeypatch.setattr(resolver_module, "SLOW_SECONDS", 30.0)
    for name in ("NEW", "SILENT"):
        monkeypatch.setattr(resolver_module, name, replace(getattr(resolver_module, name), patience_seconds=60.0))
    hanging = Hanging()
    resolver = Resolver(hanging)
    assert await resolver("known") == ["known"]
    new, silent = ([f"{kind}-{n}" for n in range(400)] for kind in ("dead", "dead-again"))
    for host in silent:
        resolver.note(host, OSError(), 60.0)
    lookups = [asyncio.create_task(resolver(host)) for host in new + silent]
    most = NEW.threads + SILENT.threads
    await until(lambda: hanging.dead_started() == most)
    assert await resolver("known") == ["known"]
    assert hanging.dead_started() == most < MAX_THREADS
    hanging.released.set()
    assert await asyncio.gather(*lookups) == [[host] for host in new + silent]
    classes = {resolver.class_of(host) for host in ["known", *new, *silent]}
    assert classes == {QUICK}, "what answers again is known at once"


async def test_nobody_waits_for_ever_for_a_silent_name_server_and_its_late_answer_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging = Hanging()
    resolver = Resolver(hanging)
    for name in ("NEW", "SILENT"):
        monkeypatch.setattr(resolver_module, name, replace(getattr(resolver_module, name), patience_seconds=0.05))
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="name server does not answer") as failed:
            await resolver("dead")
        assert failed.value.errno == socket.EAI_AGAIN
    assert hanging.started == ["dead"], "the second asked in vain joined the lookup of the first"
    hanging.released.set()
    await until(lambda: not resolver.under_way)
    assert await resolver("dead") == ["dead"]


async def test_a_name_is_kept_apart_by_how_it_behaved_the_last_time() -> None:
    resolver = Resolver()
    for found, seconds, expected in (
        (["8.8.8.8"], 0.1, QUICK),
        (OSError(), 0.1, QUICK),
        (["8.8.8.8"], 3.0, SLOW),
        (OSError(), 3.0, SILENT),
    ):
        resolver.note("name", found, seconds)
        assert resolver.class_of("name") is expected


async def test_closing_the_resolver_waits_for_no_lookup() -> None:
    answer = threading.Event()
    resolver = Resolver(lambda host: [host] if answer.wait(20) else [])
    lookup = asyncio.create_task(resolver(NAME))
    await until(lambda: resolver.under_way)
    await resolver.close()
    assert lookup.cancelled()
    answer.set()


def test_the_default_context_verifies_and_begins_at_tls_1_2() -> None:
    context = default_ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_loopback_policy_of_these_tests_forbids_the_rest() -> None:
    assert LOOPBACK.refusal("10.0.0.1")
    assert isinstance(Receiver().url, str)


# -- several addresses


@contextmanager
def _without(family: int, code: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine on which one family of addresses fails like this; yields the addresses that were dialled."""
    dialled: list[str] = []

    class Failing(socket.socket):
        def __init__(self, wanted: int = socket.AF_INET, *more: int, **options: Any) -> None:
            if code == errno.EAFNOSUPPORT and wanted == family and not options:
                dialled.extend(["no socket"] * (more[0] == socket.SOCK_STREAM))
                raise OSError(code, os.strerror(code))
            super().__init__(wanted, *more, **options)

        def connect(self, address: Any) -> None:
            if self.type != socket.SOCK_STREAM:
                return super().connect(address)
            dialled.append(address[0])
            if self.family == family:
                raise OSError(code, os.strerror(code))
            return super().connect(address)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Failing)
        yield dialled


WITHOUT_A_WAY = [errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EADDRNOTAVAIL]
V6 = ["2001:4860::1", "2001:4860::2", "2001:4860::3", "2001:4860::4"]


@pytest.mark.field("F02")
@pytest.mark.parametrize("code", WITHOUT_A_WAY, ids=errno.errorcode.get)
@pytest.mark.parametrize("count", [1, 4])
async def test_without_ipv6_the_refusal_of_the_ipv4_address_is_the_failure(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch, code: int, count: int
) -> None:
    """In either order: what this machine lacks never hides what the endpoint said."""
    for answer in (["127.0.0.9", *V6[:count]], [*V6[:count], "127.0.0.9"]):
        resolve, _ = resolving(answer)
        with _without(socket.AF_INET6, code, monkeypatch):
            outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:8/")
        assert (outcome.kind, outcome.address, outcome.sent) == ("refused", "127.0.0.9", False)


@pytest.mark.field("F02")
@pytest.mark.parametrize("code", WITHOUT_A_WAY, ids=errno.errorcode.get)
async def test_without_ipv6_the_ipv4_address_is_reached_however_many_others_there_are(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async with receiving(answers_ok) as receiver:
        for answer in ([*V6, "127.0.0.1"], [*(f"2001:4860::{n:x}" for n in range(200)), "127.0.0.1"]):
            resolve, _ = resolving(answer)
            with _without(socket.AF_INET6, code, monkeypatch):
                outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:{receiver.port}/")
            assert (outcome.kind, outcome.address) == ("delivered", "127.0.0.1")


@pytest.mark.field("F02")
@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EAFNOSUPPORT, "local"), (errno.EADDRNOTAVAIL, "local"), (errno.ENETUNREACH, "connection")],
    ids=["EAFNOSUPPORT", "EADDRNOTAVAIL", "ENETUNREACH"],
)
async def test_only_where_every_address_fails_by_our_own_fault_it_is_local(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch, code: int, kind: str
) -> None:
    """No route may as well be the endpoint's affair: such an address ends as a dead letter, and not in silence."""
    resolve, _ = resolving(V6[:2])
    with _without(socket.AF_INET6, code, monkeypatch) as dialled:
        outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:8080/")
    assert (outcome.kind, outcome.sent, len(dialled)) == (kind, False, 2)
    assert V6[0] in (outcome.error or "") or outcome.address in V6


@pytest.mark.field("F114")
@pytest.mark.parametrize("count", [200, 4000])
async def test_of_many_addresses_a_few_are_tried_chosen_anew_each_time_each_with_time_enough(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    from relay.http import dial

    tried: list[tuple[str, float]] = []

    async def counting(address: str, port: int, deadline: float) -> dial.Connected:
        tried.append((address, deadline - asyncio.get_running_loop().time()))
        raise dial.DialError("timeout", "no connection in time", address)

    monkeypatch.setattr(dial, "connect", counting)
    resolve, _ = resolving([f"127.1.{n // 250}.{n % 250 + 1}" for n in range(count)])
    sender = make_sender(resolve=resolve)
    for _ in range(5):
        assert (await post(sender, f"http://{NAME}:8080/", timeout_seconds=15)).kind == "timeout"
    assert len(tried) == 5 * 3
    assert len({address for address, _ in tried}) > 6, "another few each time"
    assert min(seconds for _, seconds in tried) > 4.5, "it was 20 ms"


@pytest.mark.field("F114")
async def test_of_many_addresses_of_two_families_both_are_tried(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = [*(f"2001:4860::{n + 1:x}" for n in range(100)), *(f"127.2.0.{n + 1}" for n in range(100))]
    resolve, _ = resolving(answer)
    for _ in range(5):
        with _without(socket.AF_INET6, errno.EHOSTUNREACH, monkeypatch) as dialled:
            outcome = await post(make_sender(resolve=resolve), f"http://{NAME}:8/")
        assert (outcome.kind, len(dialled)) == ("refused", 3)
        assert [":" in address for address in dialled] == [True, False, True]
