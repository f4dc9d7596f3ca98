"""What a person should do about an endpoint: from what was seen of it to one or two sentences. Pure functions."""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from outbox.errors import SubscriptionError
from outbox.subscriptions.url import parse_url
from relay.http.inspection.steps import OF_CERTIFICATE
from relay.http.response import header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.subscriptions.url import Url
    from relay.http.inspection.certificate import Certificate
    from relay.http.inspection.steps import Step
    from relay.model.outcome import Outcome

__all__ = ["of_outcome", "of_steps"]

MAX_NAMES = 3
SLOW_SHARE = 0.5

# What it makes sense to open up; anything else that is forbidden has no place in a URL.
_PRIVATE = (
    ("10.0.0.0/8", "a private network"),
    ("172.16.0.0/12", "a private network"),
    ("192.168.0.0/16", "a private network"),
    ("100.64.0.0/10", "a shared network (carrier NAT)"),
    ("127.0.0.0/8", "this machine itself"),
    ("::1/128", "this machine itself"),
    ("fc00::/7", "a private network"),
)


def of_steps(subscription_id: str, url: Url, steps: Sequence[Step], timeout_seconds: float) -> str:
    """Return what the first failed step means and how it is mended; where none failed, what is left to try."""
    failed = next((step for step in steps if step.state == "failed"), None)
    if failed is None:
        return f"The way to the endpoint is open. Send a test message: relay subscriptions test {subscription_id}"
    if failed.name == "tls":
        return f"TLS: {_of_tls(url, failed, subscription_id, timeout_seconds)}."
    if failed.name == "proxy":
        return f"By the egress proxy: {failed.text}."
    return f"{_of_way(url, failed, timeout_seconds)}."


def _of_way(url: Url, step: Step, timeout_seconds: float) -> str:
    address = step.addresses[0] if step.addresses else ""
    sentences = {
        "no_such_name": f"DNS: there is no address for {url.host} ({step.text}): correct the URL, or publish an A or "
        "AAAA record",
        "no_answer": f"DNS: no name server answered for {url.host} ({step.text}): look at the name servers of its "
        "domain, and at this machine's resolver",
        "dns_timeout": f"DNS: {url.host} was not resolved within {timeout_seconds:g} s: look at the name servers of "
        "its domain, and at this machine's resolver",
        "refused": f"{address} refuses connections: nothing listens on port {url.port}, or a firewall rejects it",
        "timeout": f"{address} does not accept connections on port {url.port} in time: a firewall drops them, or the "
        "host is down. Allow this machine's address there",
        "local": f"This machine cannot do it now ({step.text}): look at its memory and open files",
    }
    if step.cause == "forbidden":
        return _of_forbidden(url, address, step.text)
    if step.cause == "url_refused":
        return f"The policy refuses the URL: {step.text}"
    return sentences.get(step.cause or "", f"{address} cannot be reached: {step.text}")


def _of_forbidden(url: Url, address: str, reason: str) -> str:
    named = f"The URL names {address}" if url.host == address else f"{url.host} resolves to {address}"
    parsed = ipaddress.ip_address(address)
    for text, meaning in _PRIVATE:
        if parsed in ipaddress.ip_network(text):
            return f"{named}, {meaning}: RELAY_ALLOW_NETWORKS={text} would permit it, or a narrower network"
    kind = re.search(r"not a public address: ([^;]*)", reason)
    if kind is None:
        return f"{named}: {reason}"
    return f"{named}, which is not a public address ({kind[1]}): the endpoint needs one that is"


def _of_tls(url: Url, step: Step, subscription_id: str, timeout_seconds: float) -> str:
    if step.certificate is not None and step.cause in OF_CERTIFICATE:
        return _of_certificate(url, step.certificate, step, subscription_id)
    sentences = {
        "wrong_name": f"the certificate is not for {url.host}: add the name to it, or change the URL",
        "old_tls": "the server offers no version that is still safe: enable TLS 1.2 or 1.3 there",
        "not_tls": f"what answers on port {url.port} does not speak TLS: the port or the scheme of the URL is wrong",
        "speaks_tls": f"{step.text}: write https://",
        "client_certificate": f"the server wants a client certificate, or refuses the one it gets ({step.text}): set "
        f"one that it trusts: relay subscriptions update {subscription_id} --client-certificate FILE --client-key FILE",
        "handshake_refused": f"the server breaks the handshake off ({step.text}): it may know no cipher of ours or "
        f"not the name {url.host}, or want a client certificate",
        "handshake_timeout": f"the handshake did not finish within {timeout_seconds:g} s: the port is open, but what "
        "listens there does not answer a TLS client",
        "closed": "the server closed the connection during the handshake: a proxy without a backend for this name, "
        "or a firewall that looks into TLS",
    }
    return sentences.get(step.cause or "", f"the handshake failed: {step.text}")


def _of_certificate(url: Url, certificate: Certificate, step: Step, subscription_id: str) -> str:
    """Return every fault of the certificate that can be told, since OpenSSL stops at the first."""
    faults = []
    if step.cause in ("expired", "not_yet_valid"):
        when = certificate.not_after if step.cause == "expired" else certificate.not_before
        words = "expired on" if step.cause == "expired" else "is not valid before"
        clock = "renew it" if step.cause == "expired" else "correct it, or the clock of this machine"
        faults.append(f"the certificate {words} {when:%Y-%m-%d %H:%M} UTC: {clock}")
    own_authority = f"give its authority with relay subscriptions update {subscription_id} --ca FILE"
    if step.cause == "self_signed":
        faults.append(f"the certificate is self-signed: install one of a public authority, or {own_authority}")
    if step.cause == "unknown_issuer":
        faults.append(
            f"the authority of the certificate ({certificate.issuer or 'without a name'}) is not known: install the "
            f"whole chain on the server, or, if it is a private one, {own_authority}"
        )
    if step.cause == "untrusted":
        faults.append(f"the certificate is not accepted: {step.text}")
    if not certificate.is_for(url.host):
        faults.append(f"the certificate is for {_names(certificate)}, not {url.host}: add the name to it, or change "
                      "the URL")  # fmt: skip
    return "; ".join(faults) or f"the certificate is not accepted: {step.text}"


def _names(certificate: Certificate) -> str:
    if not certificate.names:
        return "no name at all"
    more = len(certificate.names) - MAX_NAMES
    return ", ".join(certificate.names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def of_outcome(subscription_id: str, url: Url, outcome: Outcome, timeout_seconds: float) -> str:
    """Return what the outcome of a test message means and how it is mended."""
    if outcome.status is not None:
        return _of_answer(subscription_id, url, outcome, outcome.status, timeout_seconds)
    if outcome.kind == "timeout" and outcome.sent:
        return (
            f"The endpoint accepted the connection but did not answer within {timeout_seconds:g} s: it should answer "
            f"first and work afterwards, or raise the limit: relay subscriptions update {subscription_id} "
            "--timeout-seconds N."
        )
    if outcome.kind == "protocol":
        return _of_gibberish(url, outcome)
    if outcome.kind in ("connection", "tls") and outcome.sent:
        return (
            f"The endpoint took the request and closed the connection without an answer ({outcome.error}): look at "
            "its log for a crash, and at limits of the proxy in front of it."
        )
    return f"{outcome.error or outcome.kind}."


def _of_gibberish(url: Url, outcome: Outcome) -> str:
    said = outcome.excerpt
    if said[:1] in (b"\x15", b"\x16") and said[1:2] == b"\x03":
        return f"Port {url.port} speaks TLS, but the URL begins with http://: write https://."
    if said[3:4] == b"\x04" and said[:1] == b"\x00":
        return "The endpoint answers in HTTP/2 although HTTP/1.1 was spoken: enable HTTP/1.1 on that port."
    return f"What listens on port {url.port} does not speak HTTP/1.1 ({outcome.error}): the port may be wrong."


_ANSWERS = {
    400: "The endpoint calls the message malformed; its answer above should say why",
    401: "The endpoint refuses the signature or the credentials: compare the secret on both sides, the receiver's "
    "clock, and that it verifies the raw body",
    403: "The endpoint refuses the signature or the credentials, or a firewall in front of it refuses this machine: "
    "compare the secret on both sides and the receiver's clock",
    404: "The server is there, but has nothing at this path: correct the path in the URL, or deploy the receiver",
    405: "The path is there, but takes no POST: correct the path in the URL, or the receiver's route",
    406: "The endpoint refuses the content type: it has to take application/json",
    408: "The endpoint gave up waiting for the request: look at the proxy in front of it",
    410: "The endpoint says that it is gone for good. A delivery with this answer disables the subscription: correct "
    "the URL, or remove the subscription",
    411: "The endpoint misses the length, which was sent: a proxy in front of it drops it",
    413: "The endpoint finds the body too large: raise the limit of the receiver or of the proxy in front of it",
    415: "The endpoint refuses the content type: it has to take application/json",
    421: "The server does not know this host name: look at its virtual hosts",
    422: "The endpoint understood the message and refuses its content; its answer above should say why",
    425: "The endpoint does not want the message yet; deliveries with this answer are tried again",
    429: "The endpoint is asked too often",
    500: "The receiver failed inside: look at its log at this time",
    501: "The server does not know POST: the URL may lead to something else than the receiver",
    502: "A proxy in front of the receiver gets no proper answer from it: is it running?",
    503: "The endpoint is overloaded or under maintenance",
    504: "A proxy in front of the receiver waits for it in vain: is it running, and quick enough?",
}


def _of_answer(subscription_id: str, url: Url, outcome: Outcome, status: int, timeout_seconds: float) -> str:
    if outcome.kind == "delivered":
        return _of_success(outcome, status, timeout_seconds)
    if outcome.kind == "http_3xx":
        return f"{status}: {_of_redirect(subscription_id, url, outcome)}"
    if status == 400 and url.scheme == "http" and re.search(rb"https", outcome.excerpt, re.IGNORECASE):
        return "400: The port seems to expect TLS, but the URL begins with http://: write https://."
    kind = "refuses the message" if outcome.kind == "http_4xx" else "failed"
    sentence = _ANSWERS.get(status, f"The endpoint {kind}; its answer above should say why").rstrip(".")
    if outcome.retry_after_seconds is not None:
        sentence += f"; it asks to wait {outcome.retry_after_seconds:g} s"
    return f"{status}: {sentence}" + ("" if sentence.endswith("?") else ".")


def _of_success(outcome: Outcome, status: int, timeout_seconds: float) -> str:
    seconds = outcome.milliseconds / 1000
    if seconds > timeout_seconds * SLOW_SHARE:
        return (
            f"The endpoint accepted the message ({status}), but took {seconds:.1f} of the {timeout_seconds:g} s that "
            "it has: it should answer first and work afterwards."
        )
    return f"The endpoint accepted the message ({status})."


def _of_redirect(subscription_id: str, url: Url, outcome: Outcome) -> str:
    location = header((outcome.headers or "").encode("latin-1"), "location")
    if location is None:
        return "The endpoint redirects, and does not say where to: it has to answer 2xx itself."
    try:
        target = parse_url(urljoin(url.text, location)).text
    except (SubscriptionError, ValueError):
        return f"The endpoint redirects to {location}, which no URL of a subscription may be; it has to answer itself."
    return (
        f"The endpoint redirects to {target}; redirects are not followed. If that is the right place: relay "
        f"subscriptions update {subscription_id} --url {shlex.quote(target)}"
    )
