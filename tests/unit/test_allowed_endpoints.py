"""What no relay would call is refused when it is subscribed, by the rules of the relay, unless it is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import outbox
from outbox import subscriptions
from outbox.errors import ArgumentError, SubscriptionError
from outbox.subscriptions.addresses import AddressPolicy, literal_address
from outbox.subscriptions.endpoints import also_allowed
from outbox.subscriptions.url import parse_url
from relay.config.options import Config
from relay.http.configured import make_policy
from tests.support.corpus import ssrf_cases

pytestmark = pytest.mark.field("F42")
NOWHERE: Any = None  # what is refused is refused before the connection is looked at


@pytest.fixture(autouse=True)
def default_policy(loopback_endpoints: None) -> None:
    outbox.allow_endpoints()


def refusal(url: str, call: Callable[..., object] | None = None) -> str:
    """Why this URL may not be subscribed; '' where it may."""
    try:
        (call or subscriptions.add)(NOWHERE, url, ["*"])
    except SubscriptionError as error:
        return str(error)
    except ArgumentError as error:
        assert str(error).startswith("connection: ")
        return ""
    raise AssertionError("nothing was refused")


@pytest.mark.parametrize(("url", "expected"), ssrf_cases(), ids=lambda value: repr(value)[:70])
def test_a_url_of_the_corpus(url: str, expected: str) -> None:
    told = refusal(url)
    assert (told == "") >= (expected == "allow")
    try:
        parsed = parse_url(url)
    except SubscriptionError as error:
        assert told == str(error)
        return
    why = AddressPolicy().refusal_of_url(parsed)
    assert told == (f"url: {why}" if why else "")
    if expected == "block" and literal_address(parsed.host):
        assert told


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/latest", "plain http is not allowed"),
        ("https://169.254.169.254/latest", "link-local (cloud metadata)"),
        ("https://127.0.0.1/", "loopback"),
        ("https://[::ffff:10.0.0.1]/", "outside the global unicast range"),
        ("https://[64:ff9b::a00:1]/", "outside the global unicast range"),
        ("https://localhost./", "name of a private network"),
        ("https://metadata.google.internal/", "name of a private network"),
        ("https://2852039166/", "looks like a number"),
        ("https://hooks.example.com:25/", "belongs to another protocol"),
    ],
)
def test_every_verb_that_takes_a_url_refuses_it(url: str, reason: str) -> None:
    calls: list[Callable[..., object]] = [
        outbox.subscribe,
        subscriptions.add_for_every_tenant,
        lambda connection, url, _: subscriptions.update(connection, "sub_00000000000000000000000000", url=url),
    ]
    for call in calls:
        assert refusal(url, call).startswith("url: ")
        assert reason in refusal(url, call)


def test_a_token_endpoint_is_judged_too() -> None:
    proof = outbox.OAuth2ClientCredentials("https://10.1.2.3/token", "id", "secret")
    with pytest.raises(SubscriptionError, match=r"^authentication\.token_url: 10\.1\.2\.3 is not a public address"):
        subscriptions.add(NOWHERE, "https://example.com/", ["*"], authentication=proof)


def test_what_the_application_allows_is_what_a_relay_allows_by_the_same_words() -> None:
    given: dict[str, Any] = {"allow_networks": ["127.0.0.0/8"], "allow_http": True, "allow_ports": [8080, 443]}
    outbox.allow_endpoints(**given)
    policy = make_policy(Config(**given))
    for url in ("http://127.0.0.1:8080/", "http://127.0.0.1/", "https://10.0.0.1/", "http://localhost:8080/",
                "https://example.com/", "https://example.com:8443/"):  # fmt: skip
        why = policy.refusal_of_url(parse_url(url))
        assert refusal(url) == (f"url: {why}" if why else "")
    assert refusal("http://127.0.0.1:8080/") == ""


def test_the_default_comes_back() -> None:
    outbox.allow_endpoints(allow_networks=["127.0.0.0/8"], allow_http=True)
    assert refusal("http://127.0.0.1/") == ""
    outbox.allow_endpoints()
    assert "plain http" in refusal("http://127.0.0.1/")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"allow_networks": ["0.0.0.0/0"]}, "allow_networks: 0.0.0.0/0 is every address"),
        ({"allow_networks": ["10.0.0.1/8"]}, "allow_networks: '10.0.0.1/8' is not a network"),
        ({"allow_networks": "10.0.0.0/8"}, "allow_networks: '10.0.0.0/8' is not a list"),
        ({"allow_networks": [1]}, "allow_networks: 1 is not a network"),
        ({"allow_http": "yes"}, "allow_http: 'yes' is not True or False"),
        ({"allow_ports": [0]}, "allow_ports: 0 is not a port"),
        ({"allow_ports": [True]}, "allow_ports: True is not a port"),
    ],
)
def test_what_cannot_be_allowed_is_refused_and_changes_nothing(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        outbox.allow_endpoints(**given)
    assert "plain http" in refusal("http://127.0.0.1/")


def test_blocks_that_allow_more_may_end_in_any_order_and_leave_nothing() -> None:
    """Two receivers of the test kit, as a fixture that is asked for late or another thread ends them."""
    here, there = "http://127.0.0.1:9999/", "http://127.1.2.3:9999/"
    first, second = also_allowed(["127.0.0.0/16"]), also_allowed(["127.0.0.0/8"])
    first.__enter__()
    second.__enter__()
    assert refusal(here) == refusal(there) == ""
    outbox.allow_endpoints(allow_ports=[9999])
    first.__exit__(None, None, None)
    assert refusal(here) == refusal(there) == ""
    second.__exit__(None, None, None)
    assert "plain http is not allowed" in refusal(here)
    outbox.allow_endpoints(allow_networks=["127.0.0.0/16"], allow_http=True)
    with also_allowed(["127.0.0.0/8"]):
        assert refusal(there) == ""
        outbox.allow_endpoints()
    assert "plain http is not allowed" in refusal(here), "what was chosen inside the block stays"
