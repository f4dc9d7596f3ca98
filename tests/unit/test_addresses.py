"""The address policy: the whole corpus of URLs under the default policy, and what an operator can add."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.errors import SubscriptionError
from outbox.subscriptions.addresses import AddressPolicy, literal_address
from outbox.subscriptions.url import parse_url
from tests.support.corpus import ssrf_cases

DEFAULT = AddressPolicy()


def _stub_addresses(host: str) -> list[str]:
    """Answer as the wildcard services nip.io and sslip.io would; any other name is public."""
    label = host.removesuffix(".nip.io").removesuffix(".sslip.io")
    if label == host:
        return ["8.8.8.8", "2001:4860:4860::8888"]
    return [str(literal_address(label) or literal_address(label.replace("-", ".")) or label.replace("-", ":"))]


def _verdict(text: str) -> str:
    try:
        url = parse_url(text)
    except SubscriptionError:
        return "block"
    if DEFAULT.refusal_of_url(url):
        return "block"
    addresses = [url.host] if literal_address(url.host) else _stub_addresses(url.host)
    return "block" if any(DEFAULT.refusal(address) for address in addresses) else "allow"


@pytest.mark.parametrize(("text", "expected"), ssrf_cases(), ids=lambda value: repr(value)[:70])
def test_corpus_verdict(text: str, expected: str) -> None:
    assert _verdict(text) == expected


def test_the_corpus_was_read_whole() -> None:
    verdicts = [expected for _, expected in ssrf_cases()]
    assert len(verdicts) > 200
    assert set(verdicts) == {"allow", "block"}


@given(st.ip_addresses(v=6))
def test_ipv6_is_public_only_inside_2000_3(address: ipaddress.IPv6Address) -> None:
    if address not in ipaddress.IPv6Network("2000::/3"):
        assert DEFAULT.refusal(address) is not None


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_carries_an_ipv4_address_past_the_policy(address: ipaddress.IPv4Address) -> None:
    value = int(address)
    forms = [value, 0xFFFF << 32 | value, 0xFFFF << 48 | value, 0x64FF9B << 96 | value, 0x2002 << 112 | value << 80]
    for form in forms:
        assert DEFAULT.refusal(ipaddress.IPv6Address(form)) is not None


@given(st.ip_addresses())
def test_python_never_calls_an_allowed_address_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if DEFAULT.refusal(address) is None:
        assert address.is_global
        assert not address.is_multicast


def test_allowed_networks_are_added_to_the_public_ones() -> None:
    policy = AddressPolicy(["10.0.0.0/8", ipaddress.ip_network("fd00::/8")])
    assert policy.refusal("10.1.2.3") is None
    assert policy.refusal("fd00::1") is None
    assert policy.refusal("8.8.8.8") is None
    assert policy.refusal("192.168.0.1") is not None
    assert policy.refusal("::ffff:10.1.2.3") is not None


def test_a_refusal_names_the_address_the_reason_and_the_option() -> None:
    refusal = DEFAULT.refusal("169.254.169.254") or ""
    assert "169.254.169.254" in refusal
    assert "metadata" in refusal
    assert "allow_networks" in refusal


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "10.0.0.1/8", "localhost", ""])
def test_a_network_that_is_none_or_everything_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"^allow_networks: "):
        AddressPolicy([network])


def test_http_is_allowed_only_when_asked_for() -> None:
    url = parse_url("http://hooks.example.com/")
    assert "allow_http" in (DEFAULT.refusal_of_url(url) or "")
    assert AddressPolicy(allow_http=True).refusal_of_url(url) is None


def test_private_names_wait_for_an_allowed_network() -> None:
    url = parse_url("https://receiver/")
    assert "allow_networks" in (DEFAULT.refusal_of_url(url) or "")
    assert AddressPolicy(["10.0.0.0/8"]).refusal_of_url(url) is None


def test_an_allowed_network_is_not_opened_by_another_form_of_its_addresses() -> None:
    policy = AddressPolicy(["10.0.0.0/8", "127.0.0.0/8"])
    for form in ("::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "2620:0:1::5efe:10.0.0.1"):
        assert policy.refusal(form) is not None, form
        assert policy.refusal_of_url(parse_url(f"https://[{form}]/")) is not None, form


@pytest.mark.parametrize("identifier", ["0:5efe", "200:5efe"])
def test_an_isatap_address_is_refused_under_any_prefix(identifier: str) -> None:
    assert "ISATAP" in (DEFAULT.refusal(f"2620:0:1:2:{identifier}:8.8.8.8") or "")
    assert DEFAULT.refusal("2620:0:1:2:1:5efe:808:808") is None


# Every block of the two IANA registries of 2025-10-09, to which the table is held whatever their columns say.
REGISTRIES = (
    "0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 "
    "192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.88.99.2/32 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 "
    "198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 255.255.255.255/32 "
    "::1/128 ::/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 "
    "2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 "
    "2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 "
)


@pytest.mark.parametrize("block", REGISTRIES.split())
def test_no_address_of_a_special_purpose_block_is_public(block: str) -> None:
    network = ipaddress.ip_network(block)
    for address in (network[0], network[-1], network[network.num_addresses // 2]):
        assert DEFAULT.refusal(address) is not None


def test_names_that_the_dns_does_not_have_are_refused_whatever_is_allowed() -> None:
    for host in ("abc.onion", "x.alt", "a.invalid"):
        refusal = AddressPolicy(["10.0.0.0/8"]).refusal_of_url(parse_url(f"https://{host}/"))
        assert "DNS does not have" in (refusal or "")


def test_allowed_ports_are_the_only_ones() -> None:
    policy = AddressPolicy(allow_ports=[443, 10080])
    assert policy.refusal_of_url(parse_url("https://a.example/")) is None
    assert policy.refusal_of_url(parse_url("https://a.example:10080/")) is None  # a bad port that was asked for
    assert "allow_ports" in (policy.refusal_of_url(parse_url("https://a.example:8443/")) or "")
    assert DEFAULT.refusal_of_url(parse_url("https://a.example:8443/")) is None
    assert "another protocol" in (DEFAULT.refusal_of_url(parse_url("https://a.example:10080/")) or "")


@pytest.mark.parametrize("port", [0, 65_536, -1])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=r"^allow_ports: "):
        AddressPolicy(allow_ports=[port])
