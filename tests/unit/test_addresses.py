"""The address policy: the whole corpus of URLs under the default policy, and what an operator can add."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.errors import SubscriptionError
from outbox.url import parse_url
from relay.http.addresses import AddressPolicy, literal_address

CORPUS = Path(__file__).parents[1] / "cases" / "ssrf_cases.tsv"
DEFAULT = AddressPolicy()


def _unescaped(text: str) -> str:
    simple = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "\\": "\\"}
    pattern = r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.))"
    return re.sub(pattern, lambda m: simple[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), text)


def _corpus() -> list[tuple[str, str]]:
    lines = CORPUS.read_text("utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(_unescaped(url), expected) for url, expected, *_ in rows]


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


@pytest.mark.parametrize(("text", "expected"), _corpus(), ids=lambda value: repr(value)[:70])
def test_corpus_verdict(text: str, expected: str) -> None:
    assert _verdict(text) == expected


def test_the_corpus_was_read_whole() -> None:
    verdicts = [expected for _, expected in _corpus()]
    assert len(verdicts) > 200
    assert set(verdicts) == {"allow", "block"}


@given(st.ip_addresses(v=6))
@settings(deadline=None)
def test_ipv6_is_public_only_inside_2000_3(address: ipaddress.IPv6Address) -> None:
    if address not in ipaddress.IPv6Network("2000::/3"):
        assert DEFAULT.refusal(address) is not None


@given(st.ip_addresses(v=4))
@settings(deadline=None)
def test_no_ipv6_form_carries_an_ipv4_address_past_the_policy(address: ipaddress.IPv4Address) -> None:
    value = int(address)
    forms = [value, 0xFFFF << 32 | value, 0xFFFF << 48 | value, 0x64FF9B << 96 | value, 0x2002 << 112 | value << 80]
    for form in forms:
        assert DEFAULT.refusal(ipaddress.IPv6Address(form)) is not None


@given(st.ip_addresses())
@settings(deadline=None)
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
