"""What people are told to do: every class of failure has a sentence of its own that names the place and the mend."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from outbox.control.test_messages import AnsweredTest, json_of_answer
from outbox.ids import SubscriptionId
from outbox.subscriptions.url import parse_url
from relay.cli.findings import in_sentences
from relay.http import Outcome
from relay.http.inspection.certificate import Certificate
from relay.http.inspection.steps import Cause, Step
from relay.model.outcome import OutcomeKind
from relay.operations.endpoint_tests.diagnosis import of_outcome, of_steps

SUB = SubscriptionId.of("sub_01jd3v00000000000000000000")
URL = parse_url("https://hooks.example.com/in")
CERTIFICATE = Certificate(
    "CN=www.example.com", "CN=Some CA", ("www.example.com",), datetime(2025, 1, 1, tzinfo=UTC),
    datetime(2026, 3, 1, 12, tzinfo=UTC),
)  # fmt: skip
OWN = Certificate("CN=h", "CN=Own CA", (URL.host,), CERTIFICATE.not_before, CERTIFICATE.not_after)


def step(name: str, cause: str | None, text: str = "so it says", **more: Any) -> Step:
    return Step(name=name, state="failed", cause=cause, text=text, **more)  # type: ignore[arg-type]


def said(failed: Step, url: str = URL.text) -> str:
    return in_sentences(of_steps(SUB, parse_url(url), [Step(name="dns", state="ok", text="fine"), failed], 15))


STEPS = {
    "no_such_name": (step("dns", "no_such_name"), ["there is no address for hooks.example.com", "correct the URL"]),
    "no_answer": (step("dns", "no_answer"), ["DNS: no name server answered", "name servers"]),
    "dns_timeout": (step("dns", "dns_timeout"), ["was not resolved within 15 s"]),
    "local": (step("tcp", "local"), ["This machine cannot", "open files"]),
    "url_refused": (step("policy", "url_refused", "plain http is not allowed"), ["plain http is not allowed"]),
    "forbidden": (
        step("policy", "forbidden", "10.0.0.5 is not a public address: private; …", addresses=("10.0.0.5",)),
        ["hooks.example.com resolves to 10.0.0.5, a private network: RELAY_ALLOW_NETWORKS=10.0.0.0/8 would permit it"],
    ),
    "refused": (step("tcp", "refused", addresses=("192.0.2.1",)), ["192.0.2.1 refuses connections", "port 443"]),
    "timeout": (step("tcp", "timeout", addresses=("192.0.2.1",)), ["does not accept connections on port 443"]),
    "connection": (step("tcp", "connection", "no route", addresses=("192.0.2.1",)), ["192.0.2.1", "no route"]),
    "wrong_name": (
        step("tls", "wrong_name", certificate=CERTIFICATE),
        ["TLS: the certificate is for www.example.com, not hooks.example.com", "add the name to it, or change the URL"],
    ),
    "expired": (step("tls", "expired", certificate=OWN), ["TLS: the certificate expired on 2026-03-01 12:00 UTC"]),
    "not_yet_valid": (step("tls", "not_yet_valid", certificate=OWN), ["not valid before 2025-01-01", "clock"]),
    "self_signed": (step("tls", "self_signed", certificate=OWN), ["self-signed", f"update {SUB} --ca FILE"]),
    "unknown_issuer": (step("tls", "unknown_issuer", certificate=OWN), ["(CN=Own CA) is not known", "whole chain"]),
    "untrusted": (step("tls", "untrusted", "EE key too small", certificate=OWN), ["not accepted: EE key too small"]),
    "only_http2": (step("tls", "only_http2"), ["TLS: ", "HTTP/2 only", "enable HTTP/1.1"]),
    "old_tls": (step("tls", "old_tls"), ["TLS: ", "enable TLS 1.2 or 1.3"]),
    "not_tls": (step("tls", "not_tls"), ["port 443 does not speak TLS"]),
    "speaks_tls": (step("tls", "speaks_tls", "port 80 speaks TLS"), ["write https://"]),
    "client_certificate": (step("tls", "client_certificate"), ["client certificate", "--client-certificate FILE"]),
    "handshake_refused": (step("tls", "handshake_refused"), ["breaks the handshake off", "client certificate"]),
    "handshake_timeout": (step("tls", "handshake_timeout"), ["did not finish within 15 s"]),
    "closed": (step("tls", "closed"), ["closed the connection during the handshake"]),
}  # fmt: skip


def test_every_cause_has_its_sentence() -> None:
    assert set(STEPS) == set(get_args(Cause))


@pytest.mark.parametrize("cause", STEPS)
def test_a_failed_step(cause: str) -> None:
    failed, parts = STEPS[cause]
    words = said(failed)
    assert [part for part in parts if part not in words] == []
    assert words.endswith(".")


def test_all_sentences_differ() -> None:
    assert len({said(failed) for failed, _ in STEPS.values()}) == len(STEPS)


def test_the_first_failure_is_told() -> None:
    steps = [step("dns", "no_such_name"), step("tls", "expired")]
    assert in_sentences(of_steps(SUB, URL, steps, 15)).startswith("DNS")


def test_where_nothing_failed_the_next_step_is_a_test_message() -> None:
    words = in_sentences(of_steps(SUB, URL, [Step(name="dns", state="ok", text="")], 15))
    assert words.endswith(f"relay subscriptions test {SUB}")


def test_every_fault_of_a_certificate_is_told_at_once() -> None:
    """OpenSSL stops at the first, and whoever mends that one would come back for the next."""
    words = said(step("tls", "expired", certificate=CERTIFICATE))
    assert "expired on 2026-03-01" in words
    assert "is for www.example.com, not hooks.example.com" in words


def test_a_certificate_of_many_names_does_not_fill_the_screen() -> None:
    names = tuple(f"n{n}.example.com" for n in range(50))
    words = said(step("tls", "wrong_name", certificate=Certificate("", "", names, OWN.not_before, OWN.not_after)))
    assert "n0.example.com, n1.example.com, n2.example.com and 47 more, not" in words


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("172.20.1.1", "RELAY_ALLOW_NETWORKS=172.16.0.0/12"),
        ("fd00::1", "RELAY_ALLOW_NETWORKS=fc00::/7"),
        ("::1", "this machine itself"),
    ],
)
def test_a_private_network_can_be_opened(address: str, part: str) -> None:
    assert part in said(step("policy", "forbidden", "…", addresses=(address,)))


@pytest.mark.parametrize(
    ("address", "reason"), [("169.254.169.254", "link-local (cloud metadata)"), ("224.0.0.1", "multicast")]
)
def test_nobody_is_told_to_open_what_is_no_place_for_an_endpoint(address: str, reason: str) -> None:
    text = f"{address} is not a public address: {reason}; add its network to allow_networks to permit it"
    words = said(step("policy", "forbidden", text, addresses=(address,)), f"https://{address}/")
    assert "ALLOW_NETWORKS" not in words
    assert "allow_networks" not in words
    assert f"({reason})" in words


def test_the_relays_own_address() -> None:
    text = "203.0.113.9 is this machine's own address; add it to allow_networks to permit it"
    assert text in said(step("policy", "forbidden", text, addresses=("203.0.113.9",)))


def test_a_failure_at_the_egress_proxy() -> None:
    assert "By the egress proxy: it is down" in said(step("proxy", None, "it is down"))


def of(status: int | None, kind: str, url: str = URL.text, **more: Any) -> str:
    outcome = Outcome(kind, status, more.pop("milliseconds", 20), **more)  # type: ignore[arg-type]
    return in_sentences(of_outcome(SUB, parse_url(url), outcome, 15))


ANSWERS = {
    400: "malformed",
    401: "signature or the credentials",
    403: "signature or the credentials",
    404: "path",
    405: "POST",
    410: "gone",
    413: "too large",
    418: "refuses the message",
    429: "asked too often",
    500: "look at its log",
    502: "proxy",
    503: "maintenance",
    504: "proxy",
    599: "failed",
}


@pytest.mark.parametrize("status", ANSWERS)
def test_an_answer(status: int) -> None:
    words = of(status, "http_4xx" if status < 500 else "http_5xx")
    assert words.startswith(f"{status}: ")
    assert ANSWERS[status] in words


def test_a_success_and_a_slow_one() -> None:
    assert of(204, "delivered") == "The endpoint accepted the message (204)."
    assert "took 9.0 of the 15 s" in of(200, "delivered", milliseconds=9000)


def test_how_long_an_endpoint_asks_to_wait() -> None:
    assert of(429, "http_4xx", retry_after_seconds=30.0).endswith("asks to wait 30 s.")


@pytest.mark.parametrize(
    ("location", "part"),
    [
        ("https://new.example.com/in", "--url https://new.example.com/in"),
        ("/in/", "--url https://hooks.example.com/in/"),
        ("https://new.example.com/in?a=1&b=$(id)", "--url 'https://new.example.com/in?a=1&b=$(id)'"),
        ("ftp://new.example.com/", "no URL of a subscription"),
        ("https://new.example.com:port/", "no URL of a subscription"),
        ("https://[", "no URL of a subscription"),
    ],
)
def test_a_redirect_names_the_url_to_set_quoted_for_a_shell(location: str, part: str) -> None:
    words = of(308, "http_3xx", headers=f"HTTP/1.1 308 X\r\nLocation: {location}\r\n")
    assert words.startswith("308: ")
    assert part in words


def test_a_redirect_to_nowhere() -> None:
    assert "does not say where to" in of(301, "http_3xx", headers="HTTP/1.1 301 X\r\n")


def test_the_two_kinds_of_waiting_in_vain() -> None:
    answered = of(None, "timeout", error="no complete answer in time")
    assert "accepted the connection but did not answer within 15 s" in answered
    assert f"update {SUB} --timeout-seconds" in answered
    assert of(None, "timeout", error="no connection in time", sent=False) == "no connection in time."


def test_http_to_a_port_that_wants_tls() -> None:
    tells = b"<html>The plain HTTP request was sent to HTTPS port</html>"
    assert "write https://" in of(400, "http_4xx", "http://hooks.example.com/", excerpt=tells)
    alert = b"\x15\x03\x01\x00\x02\x02\x46"
    assert "write https://" in of(None, "protocol", "http://hooks.example.com/", error="…", excerpt=alert)
    assert "https" not in of(400, "http_4xx", "http://hooks.example.com/", excerpt=b"no such field")


def test_other_protocols() -> None:
    settings = b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"
    assert "HTTP/2" in of(None, "protocol", error="…", excerpt=settings)
    assert "does not speak HTTP/1.1" in of(None, "protocol", error="…", excerpt=b"SSH-2.0-x")


def test_a_connection_that_is_cut_after_the_request() -> None:
    assert "without an answer" in of(None, "connection", error="closed without a complete answer")


@pytest.mark.parametrize("kind", ["local", "authorization", "key_unavailable", "unsendable"])
def test_what_explains_itself(kind: str) -> None:
    assert of(None, kind, error="the reason and its mend", sent=False) == "the reason and its mend."


def test_findings_are_data_with_a_code_and_a_mend_of_their_own() -> None:
    """What a program reads of them; the sentences above are made of the same."""
    found = [of_steps(SUB, URL, [failed], 15) for failed, _ in STEPS.values()]
    assert all(finding.subject == SUB and finding.seen for findings in found for finding in findings)
    codes = [finding.code for findings in found for finding in findings]
    assert len(set(codes)) == len(STEPS)
    assert {code.partition(".")[0] for code in codes} == {"dns", "policy", "tcp", "tls", "machine"}
    both = of_steps(SUB, URL, [step("tls", "expired", certificate=CERTIFICATE)], 15)
    assert [(finding.code, finding.mend) for finding in both] == [
        ("tls.expired", "renew it"), ("tls.wrong_name", "add the name to it, or change the URL"),
    ]  # fmt: skip


def test_what_an_answer_keeps_of_findings_an_older_version_can_read() -> None:
    outcome = Outcome(OutcomeKind.HTTP_4XX, 401, 5)
    findings = of_outcome(SUB, URL, outcome, 15)
    answer = AnsweredTest(
        delivery_id=None, at=datetime(2026, 1, 1, tzinfo=UTC), ok=False, sent=True, outcome="http_4xx", status=401,
        milliseconds=5, error=None, address=None, hindrance=findings[0], request=None, response=None,
        findings=findings,
    )  # fmt: skip
    kept = json.loads(json_of_answer(answer))
    assert [set(one) for one in (kept["hindrance"], *kept["findings"])] == [
        {"code", "subject", "seen", "mend", "severity"}
    ] * 2
