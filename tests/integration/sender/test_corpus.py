"""Every URL of the corpus, and every spelling of every forbidden address, through the sender, to what it really dials.

A URL is stored by `outbox.subscriptions.add`, and what was stored is sent to by HttpSender with all that is its own
but two things: names are answered by a stub, and a socket writes down where it is to connect to and refuses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

import outbox
from outbox.errors import SubscriptionError
from outbox.subscriptions.addresses import FORBIDDEN, literal_address
from outbox.subscriptions.url import parse_url
from relay.http import AddressPolicy, DirectDialler, Endpoint, HttpSender
from relay.http.tls import default_ssl_context
from tests.support import databases
from tests.support.corpus import dns_scenarios, ssrf_cases

CONTEXT = default_ssl_context()
PUBLIC = ["8.8.8.8", "2001:4860:4860::8888"]

Answers = Callable[[str], list[str]]


def wildcard(host: str) -> list[str]:
    """Answer as the wildcard services nip.io and sslip.io would; any other name is public."""
    label = host.removesuffix(".nip.io").removesuffix(".sslip.io")
    if label == host:
        return PUBLIC
    return [str(literal_address(label) or literal_address(label.replace("-", ".")) or label.replace("-", ":"))]


@pytest.fixture(scope="module")
def dialled() -> Iterator[list[str]]:
    """The addresses that sockets were told to connect to."""
    addresses: list[str] = []

    class Recording(socket.socket):
        def connect(self, address) -> None:
            if self.type == socket.SOCK_DGRAM:  # asks whose address it is, and sends nothing
                return super().connect(address)
            addresses.append(address[0])
            raise ConnectionRefusedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Recording)
        yield addresses


@pytest.fixture(scope="module")
def connection(server_url: str, migrated_template: str) -> Iterator[sa.Connection]:
    """A connection to a database of this module."""
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
        engine.connect() as connection,
    ):
        yield connection


async def send(url: str, policy: AddressPolicy, answers: Answers) -> str:
    async def resolve(host: str) -> list[str]:
        return answers(host)

    sender = HttpSender(DirectDialler(policy, resolve), user_agent="outbox-relay/test", ssl_context=CONTEXT)
    try:
        return (await sender.send(Endpoint.of(url), b"webhook-id: evt_1\r\n", b"{}", 5)).kind
    finally:
        await sender.close()


def attempt(
    dialled: list[str], url: str, policy: AddressPolicy | None = None, answers: Answers = wildcard
) -> tuple[str, list[str]]:
    """Return the class of an attempt to send to this URL ('unsendable' where it is none) and what was dialled."""
    dialled.clear()
    try:
        kind = asyncio.run(send(parse_url(url).text, policy or AddressPolicy(), answers))
    except SubscriptionError:
        kind = "unsendable"
    return kind, list(dialled)


@pytest.mark.parametrize(("url", "expected"), ssrf_cases(), ids=lambda value: repr(value)[:70])
def test_a_url_of_the_corpus(connection: sa.Connection, dialled: list[str], url: str, expected: str) -> None:
    try:
        stored = outbox.subscriptions.add(connection, url, ["*"]).url
    except SubscriptionError:
        assert expected == "block"
        return
    kind, addresses = attempt(dialled, stored)
    if expected == "block":
        assert (kind, addresses) == ("blocked_address", [])
    else:
        host = parse_url(stored).host
        assert (kind, addresses) == ("refused", [host] if literal_address(host) else PUBLIC)


# -- every spelling of every forbidden address


def quad(address: ipaddress.IPv4Address) -> list[int]:
    return list(address.packed)


IPV4_SPELLINGS: dict[str, Callable[[ipaddress.IPv4Address], str]] = {
    "as it is": str,
    "a number": lambda a: f"{int(a)}",
    "hexadecimal": lambda a: f"0x{int(a):x}",
    "HEXADECIMAL": lambda a: f"0X{int(a):08X}",
    "octal": lambda a: f"0{int(a):o}",
    "octal parts": lambda a: ".".join(f"0{part:o}" for part in quad(a)),
    "hexadecimal parts": lambda a: ".".join(f"0x{part:x}" for part in quad(a)),
    "mixed parts": lambda a: "{}.0x{:x}.0{:o}.{}".format(*quad(a)),
    "padded parts": lambda a: ".".join(f"{part:03}" for part in quad(a)),
    "two parts": lambda a: f"{quad(a)[0]}.{int(a) & 0xFFFFFF}",
    "three parts": lambda a: f"{quad(a)[0]}.{quad(a)[1]}.{int(a) & 0xFFFF}",
    "beyond 32 bits": lambda a: f"{int(a) + 2**32}",
    "parts beyond a byte": lambda a: ".".join(f"{part + 256}" for part in quad(a)),
    "a dot behind": lambda a: f"{a}.",
    "two dots behind": lambda a: f"{a}..",
    "percent-encoded": lambda a: "".join(f"%{ord(character):02x}" for character in str(a)),
    "percent-encoded dots": lambda a: str(a).replace(".", "%2e"),
    "full-width": lambda a: "".join(chr(ord(character) + 0xFEE0) for character in str(a)),
    "full-width digits": lambda a: "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in str(a)),
    "ideographic dots": lambda a: str(a).replace(".", "。"),
    "Arabic digits": lambda a: "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in str(a)),
    "circled digits": lambda a: "".join("⓪①②③④⑤⑥⑦⑧⑨"[int(c)] if c.isdigit() else c for c in str(a)),
    "soft hyphen": lambda a: f"{str(a)[:1]}\u00ad{str(a)[1:]}",
    "xn--": lambda a: ".".join(f"xn--{part}-" for part in quad(a)),
    "bracketed": lambda a: f"[{a}]",
    "mapped": lambda a: f"[::ffff:{a}]",
    "mapped, as words": lambda a: f"[{ipaddress.IPv6Address(0xFFFF << 32 | int(a)).compressed}]",
    "MAPPED, in full": lambda a: f"[{ipaddress.IPv6Address(0xFFFF << 32 | int(a)).exploded.upper()}]",
    "compatible": lambda a: f"[::{a}]",
    "translated": lambda a: f"[::ffff:0:{a}]",
    "NAT64": lambda a: f"[64:ff9b::{a}]",
    "local NAT64": lambda a: f"[64:ff9b:1::{a}]",
    "6to4": lambda a: f"[{ipaddress.IPv6Address(0x2002 << 112 | int(a) << 80 | 1)}]",
    "Teredo server": lambda a: f"[{ipaddress.IPv6Address(0x20010000 << 96 | int(a) << 64 | 1)}]",
    "Teredo client": lambda a: f"[{ipaddress.IPv6Address(0x20010000 << 96 | int(a) ^ 0xFFFFFFFF)}]",
    "ISATAP": lambda a: f"[2620:0:1:2:0:5efe:{a}]",
    "ISATAP, global": lambda a: f"[2620:0:1:2:200:5efe:{a}]",
}
IPV6_SPELLINGS: dict[str, Callable[[ipaddress.IPv6Address], str]] = {
    "as it is": lambda a: f"[{a}]",
    "in full": lambda a: f"[{a.exploded}]",
    "in capitals": lambda a: f"[{a.exploded.upper()}]",
    "ending as IPv4": lambda a: f"[{a.exploded[:30]}{ipaddress.IPv4Address(int(a) & 0xFFFFFFFF)}]",
    "with a zone": lambda a: f"[{a}%25eth0]",
    "with a raw zone": lambda a: f"[{a}%eth0]",
    "without brackets": str,
    "a name around": lambda a: f"[{a}].example.com",
}
DECORATIONS = ("{}", "{}:443", "{}:8443", "example.com@{}", "a:b@{}", "{}@example.com", "{}\\@example.com",
               "example.com\\@{}", "{}#@example.com", "{}%2f@example.com", "{}\t", "\t{}", "{}%00.example.com",
               "{}:443@example.com", "example.com:80@{}", "{};example.com", "{}?@example.com")  # fmt: skip

FORBIDDEN = [ipaddress.ip_network(network) for network in (*FORBIDDEN, "::/8", "4000::/3", "fc00::/7", "fe80::/10",
             "fec0::/10", "ff00::/8", "64:ff9b::/96", "5f00::/16")]  # fmt: skip


@st.composite
def forbidden_hosts(draw: st.DrawFn) -> str:
    network = draw(st.sampled_from(FORBIDDEN))
    position = draw(st.integers(0, network.num_addresses - 1) | st.sampled_from([0, network.num_addresses - 1]))
    address = network[position]
    spellings = IPV4_SPELLINGS if isinstance(address, ipaddress.IPv4Address) else IPV6_SPELLINGS
    return str(draw(st.sampled_from(list(spellings.values())))(address))  # type: ignore[operator]


@given(host=forbidden_hosts(), decoration=st.sampled_from(DECORATIONS))
@settings(max_examples=400)
def test_no_spelling_of_a_forbidden_address_is_dialled(dialled: list[str], host: str, decoration: str) -> None:
    """A stub that believes every name, so that what the parser takes for a name is not saved by the resolver."""

    def believing(name: str) -> list[str]:
        return [str(literal_address(name) or "8.8.8.8")]

    kind, addresses = attempt(dialled, f"https://{decoration.format(host)}/", answers=believing)
    assert set(addresses) <= {"8.8.8.8"}
    if addresses:  # then it is a public name that only looks a little like the address
        assert parse_url(f"https://{decoration.format(host)}/").host == "example.com"
    assert kind in ("unsendable", "blocked_address", "refused")


@pytest.mark.parametrize("spelling", IPV4_SPELLINGS)
def test_each_spelling_of_the_metadata_address_is_refused(dialled: list[str], spelling: str) -> None:
    host = IPV4_SPELLINGS[spelling](ipaddress.IPv4Address("169.254.169.254"))
    kind, addresses = attempt(dialled, f"https://{host}/latest")
    assert kind in ("unsendable", "blocked_address")
    assert addresses == []


@pytest.mark.parametrize("spelling", IPV4_SPELLINGS)
def test_of_an_allowed_network_only_the_plain_spelling_is_dialled(dialled: list[str], spelling: str) -> None:
    host = IPV4_SPELLINGS[spelling](ipaddress.IPv4Address("10.1.2.3"))
    _, addresses = attempt(dialled, f"https://{host}/", AddressPolicy(["10.0.0.0/8"]))
    assert addresses == (["10.1.2.3"] if spelling == "as it is" else [])


public_addresses = st.ip_addresses().filter(lambda address: AddressPolicy().refusal(address) is None)


@given(address=public_addresses | st.sampled_from(PUBLIC).map(ipaddress.ip_address))
@settings(max_examples=40)
@example(ipaddress.ip_address("223.255.255.255"))
@example(ipaddress.ip_address("2001:200::"))
def test_every_public_address_is_dialled_as_it_is(dialled: list[str], address: ipaddress.IPv4Address) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert attempt(dialled, f"https://{host}/") == ("refused", [str(address)])


@given(good=st.lists(public_addresses, max_size=3), bad=st.sampled_from(FORBIDDEN), at=st.integers(0, 3))
@settings(max_examples=60)
def test_a_name_with_one_forbidden_address_among_its_answers_is_not_dialled(
    dialled: list[str], good: list[ipaddress.IPv4Address], bad: ipaddress.IPv4Network, at: int
) -> None:
    answers = [str(address) for address in good]
    answers.insert(at, str(bad[-1]))
    result = attempt(dialled, "https://hooks.example.com/", answers=lambda _: answers)
    assert result == ("blocked_address", [])


# -- the scenarios that a URL alone cannot express

ANSWERS = {
    "dns-private": ["10.0.0.5"],
    "dns-loopback-v6": ["::1"],
    "dns-mapped": ["::ffff:169.254.169.254"],
    "dns-nat64": ["64:ff9b::a9fe:a9fe"],
    "dns-v4-ok-v6-bad": ["8.8.8.8", "fd00::1"],
    "dns-cname-internal": ["169.254.169.254"],  # what metadata.google.internal is; only addresses matter
    "hosts-file": ["127.0.0.1"],
}
ELSEWHERE = {
    "rebind-retry": "test_dialling.py::test_dns_rebind_retry_is_checked_at_each_connection",
    "dns-nxdomain": "test_dialling.py::test_dns_nxdomain_is_a_failure_that_is_retried",
    "dns-timeout": "test_dialling.py::test_dns_timeout_holds_up_no_other_endpoint",
    "dns-cname-loop": "test_dialling.py::test_dns_nxdomain_is_a_failure_that_is_retried",
    "dns-search-domain": "test_dialling.py::test_dns_search_domains_apply_to_no_public_name",
    "redirect-308-self": "contract/test_conduct.py::test_a_redirect_is_a_failure_and_never_followed",
    "alt-svc": "test_dialling.py::test_alt_svc_is_ignored",
    "proxy-env": "contract/test_conduct.py::test_proxy_env_and_netrc_are_not_used",
    "proxy-explicit": "contract/test_conduct.py::test_what_the_policy_forbids_by_the_url_alone_reaches_nobody",
    "socks": "contract/test_conduct.py::test_proxy_env_and_netrc_are_not_used",
    "tls-sni-ip": "contract/test_tls.py::test_tls_sni_ip_needs_a_certificate_for_the_address",
    "tls-mismatch": "contract/test_tls.py::test_tls_failures_send_nothing",
    "tls-selfsigned": "contract/test_tls.py::test_tls_failures_send_nothing",
    "self-connect": "test_dialling.py::test_self_connect_an_address_of_this_machine_is_not_dialled",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_dns_scenario(dialled: list[str], name: str) -> None:
    assert dns_scenarios()[name][1] == "block"
    result = attempt(dialled, "https://hooks.example.com/", answers=lambda _: ANSWERS[name])
    assert result == ("blocked_address", [])


def test_every_dns_scenario_is_played_here_or_in_the_test_that_is_named() -> None:
    assert dns_scenarios().keys() == ANSWERS.keys() | ELSEWHERE.keys()
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (Path(__file__).parent / file).read_text("utf-8"), place
