"""What a person should do about an endpoint: from what was seen of it to findings. Pure functions.

A code is the area and the case: `dns.no_answer`, `tls.expired`, `answer.404`. What is seen and what mends it are for
people; the faces put them together.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from outbox.control.advice import ANSWERS, READ_IT
from outbox.control.findings import Finding
from outbox.errors import SubscriptionError
from outbox.subscriptions.url import parse_url
from relay.http.inspection.steps import OF_CERTIFICATE
from relay.http.response import header, speaks_http2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from outbox.ids import SubscriptionId
    from outbox.subscriptions.url import Url
    from relay.http.inspection.certificate import Certificate
    from relay.http.inspection.steps import Step
    from relay.model.outcome import Outcome

__all__ = ["of_error", "of_outcome", "of_steps", "open_again"]

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


def of_steps(
    subscription_id: SubscriptionId, url: Url, steps: Sequence[Step], timeout_seconds: float
) -> tuple[Finding, ...]:
    """Return what the first failed step means and how it is mended; where none failed, what is left to try."""
    failed = next((step for step in steps if step.state == "failed"), None)
    if failed is None:
        test = f"Send a test message: relay subscriptions test {subscription_id}"
        seen = "The way to the endpoint is open"
        return (Finding(code="way.open", severity="note", subject=subscription_id, seen=seen, mend=test),)
    if failed.name == "tls" and failed.certificate is not None and failed.cause in OF_CERTIFICATE:
        return tuple(_of_certificate(url, failed.certificate, failed, subscription_id))
    if failed.name == "tls":
        return _of_tls(url, failed, subscription_id, timeout_seconds)
    if failed.name == "proxy":
        return _found(subscription_id, f"proxy.{failed.cause or 'failed'}", failed.text)
    return _of_way(url, failed, subscription_id, timeout_seconds)


def open_again(subscription_id: SubscriptionId) -> Finding:
    """Return the finding that the way was open a moment after a message did not get through."""
    seen = "A look just after found the way open: it comes and goes"
    return Finding(code="way.open_again", severity="note", subject=subscription_id, seen=seen)


def of_error(subscription_id: SubscriptionId, code: str, error: Exception) -> tuple[Finding, ...]:
    """Return the finding that an error tells of, whose message has the mend."""
    return _found(subscription_id, code, str(error))


def _found(subscription_id: SubscriptionId, code: str, seen: str, mend: str = "") -> tuple[Finding, ...]:
    return (Finding(code=code, subject=subscription_id, seen=seen, mend=mend),)


def _of_way(url: Url, step: Step, subscription_id: SubscriptionId, timeout_seconds: float) -> tuple[Finding, ...]:
    address = step.addresses[0] if step.addresses else ""
    if step.cause == "forbidden":
        return _found(subscription_id, "policy.forbidden", *_of_forbidden(url, address, step.text))
    servers = "look at the name servers of its domain, and at this machine's resolver"
    drops = f"{address} does not accept connections on port {url.port} in time"
    drops += ": a firewall drops them, or the host is down"
    cases = {
        "no_such_name": ("dns", f"there is no address for {url.host} ({step.text})",
                         "correct the URL, or publish an A or AAAA record"),
        "no_answer": ("dns", f"no name server answered for {url.host} ({step.text})", servers),
        "dns_timeout": ("dns", f"{url.host} was not resolved within {timeout_seconds:g} s", servers),
        "refused": ("tcp", f"{address} refuses connections",
                    f"nothing listens on port {url.port}, or a firewall rejects it"),
        "timeout": ("tcp", drops, "Allow this machine's address there"),
        "local": ("machine", f"This machine cannot do it now ({step.text})", "look at its memory and open files"),
        "url_refused": ("policy", "The policy refuses the URL", step.text),
    }  # fmt: skip
    cause = step.cause or "failed"
    area, seen, mend = cases.get(cause, ("tcp", f"{address} cannot be reached: {step.text}", ""))
    return _found(subscription_id, f"{area}.{cause}", seen, mend)


def _of_forbidden(url: Url, address: str, reason: str) -> tuple[str, str]:
    """Return what is seen and what mends it."""
    named = f"The URL names {address}" if url.host == address else f"{url.host} resolves to {address}"
    parsed = ipaddress.ip_address(address)
    for text, meaning in _PRIVATE:
        if parsed in ipaddress.ip_network(text):
            return f"{named}, {meaning}", f"RELAY_ALLOW_NETWORKS={text} would permit it, or a narrower network"
    kind = re.search(r"not a public address: ([^;]*)", reason)
    if kind is None:
        return named, reason
    return f"{named}, which is not a public address ({kind[1]})", "the endpoint needs one that is"


def _of_tls(url: Url, step: Step, subscription_id: SubscriptionId, timeout_seconds: float) -> tuple[Finding, ...]:
    options = f"relay subscriptions update {subscription_id} --client-certificate FILE --client-key FILE"
    cases = {
        "wrong_name": (f"the certificate is not for {url.host}", "add the name to it, or change the URL"),
        "old_tls": ("the server offers no version that is still safe", "enable TLS 1.2 or 1.3 there"),
        "only_http2": ("the server speaks HTTP/2 only", "enable HTTP/1.1 on that port"),
        "not_tls": (
            f"what answers on port {url.port} does not speak TLS",
            "the port or the scheme of the URL is wrong",
        ),
        "speaks_tls": (step.text, "write https://"),
        "client_certificate": (
            f"the server wants a client certificate, or refuses the one it gets ({step.text})",
            f"set one that it trusts: {options}",
        ),
        "handshake_refused": (
            f"the server breaks the handshake off ({step.text})",
            f"it may know no cipher of ours or not the name {url.host}, or want a client certificate",
        ),
        "handshake_timeout": (
            f"the handshake did not finish within {timeout_seconds:g} s",
            "the port is open, but what listens there does not answer a TLS client",
        ),
        "closed": (
            "the server closed the connection during the handshake",
            "a proxy without a backend for this name, or a firewall that looks into TLS",
        ),
    }
    seen, mend = cases.get(step.cause or "", (f"the handshake failed: {step.text}", ""))
    return _found(subscription_id, f"tls.{step.cause or 'failed'}", seen, mend)


def _of_certificate(
    url: Url, certificate: Certificate, step: Step, subscription_id: SubscriptionId
) -> Iterable[Finding]:
    """Yield every fault of the certificate that can be told, since OpenSSL stops at the first."""
    trust = _of_trust(certificate, step, subscription_id)
    if trust is not None:
        yield from _found(subscription_id, f"tls.{step.cause}", *trust)
    if not certificate.is_for(url.host):
        seen = f"the certificate is for {_names(certificate)}, not {url.host}"
        yield from _found(subscription_id, "tls.wrong_name", seen, "add the name to it, or change the URL")
    elif trust is None:
        yield from _found(subscription_id, f"tls.{step.cause}", f"the certificate is not accepted: {step.text}")


def _of_trust(certificate: Certificate, step: Step, subscription_id: SubscriptionId) -> tuple[str, str] | None:
    """Return why the certificate itself is not accepted, and what mends it; None where only its name is wrong."""
    own_authority = f"give its authority with relay subscriptions update {subscription_id} --ca FILE"
    if step.cause == "expired":
        return f"the certificate expired on {certificate.not_after:%Y-%m-%d %H:%M} UTC", "renew it"
    if step.cause == "not_yet_valid":
        seen = f"the certificate is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC"
        return seen, "correct it, or the clock of this machine"
    if step.cause == "self_signed":
        return "the certificate is self-signed", f"install one of a public authority, or {own_authority}"
    if step.cause == "unknown_issuer":
        return (
            f"the authority of the certificate ({certificate.issuer or 'without a name'}) is not known",
            f"install the whole chain on the server, or, if it is a private one, {own_authority}",
        )
    return (f"the certificate is not accepted: {step.text}", "") if step.cause == "untrusted" else None


def _names(certificate: Certificate) -> str:
    if not certificate.names:
        return "no name at all"
    more = len(certificate.names) - MAX_NAMES
    return ", ".join(certificate.names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def of_outcome(
    subscription_id: SubscriptionId, url: Url, outcome: Outcome, timeout_seconds: float
) -> tuple[Finding, ...]:
    """Return what the outcome of a test message means and how it is mended."""
    if outcome.reading is not None:
        return _found(subscription_id, "answer.read", f"{outcome.status}: {outcome.reading.reason}")
    if outcome.status is not None:
        return tuple(_of_answer(subscription_id, url, outcome, outcome.status, timeout_seconds))
    if outcome.kind == "timeout" and outcome.sent:
        return _found(
            subscription_id, "message.no_answer",
            f"The endpoint accepted the connection but did not answer within {timeout_seconds:g} s",
            "it should answer first and work afterwards, or raise the limit: relay subscriptions update "
            f"{subscription_id} --timeout-seconds N",
        )  # fmt: skip
    if outcome.kind == "protocol":
        return _found(subscription_id, *_of_gibberish(url, outcome))
    if outcome.kind in ("connection", "tls") and outcome.sent:
        seen = f"The endpoint took the request and closed the connection without an answer ({outcome.error})"
        mend = "look at its log for a crash, and at limits of the proxy in front of it"
        return _found(subscription_id, "message.cut", seen, mend)
    return _found(subscription_id, f"message.{outcome.kind}", outcome.error or outcome.kind)


def _of_gibberish(url: Url, outcome: Outcome) -> tuple[str, str, str]:
    """Return the code, what is seen and what mends it."""
    said = outcome.excerpt
    if said[:1] in (b"\x15", b"\x16") and said[1:2] == b"\x03":
        return "message.tls", f"Port {url.port} speaks TLS, but the URL begins with http://", "write https://"
    if speaks_http2(said):
        seen = "The endpoint speaks HTTP/2 only; HTTP/1.1 was spoken to it"
        return "message.http2", seen, "enable HTTP/1.1 on that port"
    seen = f"What listens on port {url.port} does not speak HTTP/1.1 ({outcome.error})"
    return "message.protocol", seen, "the port may be wrong"


def _of_answer(
    subscription_id: SubscriptionId, url: Url, outcome: Outcome, status: int, timeout_seconds: float
) -> Iterable[Finding]:
    if outcome.kind == "delivered":
        yield from _found(subscription_id, *_of_success(outcome, status, timeout_seconds))
        return
    if outcome.kind == "http_3xx":
        code, seen, mend = _of_redirect(subscription_id, url, outcome)
        yield from _found(subscription_id, code, f"{status}: {seen}", mend)
        return
    if status == 400 and url.scheme == "http" and re.search(rb"https", outcome.excerpt, re.IGNORECASE):
        seen = "400: The port seems to expect TLS, but the URL begins with http://"
        yield from _found(subscription_id, "answer.expects_tls", seen, "write https://")
        return
    kind = "refuses the message" if outcome.kind == "http_4xx" else "failed"
    seen, mend = ANSWERS.get(status, (f"The endpoint {kind}", READ_IT))
    code = f"answer.{status}" if status in ANSWERS else "answer.other"
    yield from _found(subscription_id, code, f"{status}: {seen}", mend)
    if outcome.retry_after_seconds is not None:
        wait = f"it asks to wait {outcome.retry_after_seconds:g} s"
        yield from _found(subscription_id, "answer.retry_after", wait)


def _of_success(outcome: Outcome, status: int, timeout_seconds: float) -> tuple[str, str, str]:
    """Return the code, what is seen and what mends it."""
    seconds = outcome.milliseconds / 1000
    if seconds <= timeout_seconds * SLOW_SHARE:
        return "answer.accepted", f"The endpoint accepted the message ({status})", ""
    seen = (
        f"The endpoint accepted the message ({status}), but took {seconds:.1f} of the {timeout_seconds:g} s that it has"
    )
    return "answer.slow", seen, "it should answer first and work afterwards"


def _of_redirect(subscription_id: SubscriptionId, url: Url, outcome: Outcome) -> tuple[str, str, str]:
    """Return the code, what is seen and what mends it."""
    location = header((outcome.headers or "").encode("latin-1"), "location")
    if location is None:
        seen = "The endpoint redirects, and does not say where to"
        return "answer.redirect_without_target", seen, "it has to answer 2xx itself"
    try:
        target = parse_url(urljoin(url.text, location)).text
    except (SubscriptionError, ValueError):
        seen = f"The endpoint redirects to {location}, which no URL of a subscription may be"
        return "answer.redirect_refused", seen, "it has to answer itself"
    return (
        "answer.redirect",
        f"The endpoint redirects to {target}; redirects are not followed",
        f"If that is the right place: relay subscriptions update {subscription_id} --url {shlex.quote(target)}",
    )
