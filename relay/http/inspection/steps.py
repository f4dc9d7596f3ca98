"""The steps of a look at the way to an endpoint, and why one fails."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from outbox.subscriptions.addresses import literal_address
from relay.http.dial import DialError
from relay.http.tls import default_ssl_context, reason_of_tls, refuses_http1

if TYPE_CHECKING:
    from outbox.subscriptions.addresses import AddressPolicy
    from outbox.subscriptions.url import Url
    from relay.http.inspection.certificate import Certificate
    from relay.http.sender import Endpoint

__all__ = [
    "OF_CERTIFICATE", "Cause", "Step", "context_for", "failure_of_tls", "refused_url", "warn_of_expiry",
]  # fmt: skip

RENEWED_BEFORE = timedelta(days=7)  # certificates of 90 days are renewed a month before, those of 45 two weeks

Cause: TypeAlias = Literal[
    "url_refused", "no_such_name", "no_answer", "dns_timeout", "forbidden",
    "refused", "timeout", "connection", "local",
    "wrong_name", "expired", "not_yet_valid", "self_signed", "unknown_issuer", "untrusted",
    "old_tls", "only_http2", "not_tls", "speaks_tls", "client_certificate", "handshake_refused", "handshake_timeout",
    "closed",
]  # fmt: skip
"""Why a step failed; `relay.operations.endpoint_tests.diagnosis` has the mend of each."""

OF_CERTIFICATE: tuple[Cause, ...] = (
    "wrong_name", "expired", "not_yet_valid", "self_signed", "unknown_issuer", "untrusted",
)  # fmt: skip
"""The causes that lie in the server's certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what was found in words, and for a step that failed why.

    `state` is 'warning' where the sender would get past it, as past one dead address of several. `addresses` are those
    that dns found, or the one that this step is about.
    """

    name: Literal["dns", "policy", "proxy", "tcp", "tls"]
    state: Literal["ok", "warning", "failed"]
    text: str
    cause: Cause | None = None
    addresses: tuple[str, ...] = ()
    milliseconds: int | None = None
    certificate: Certificate | None = None


def refused_url(url: Url, policy: AddressPolicy) -> Step | None:
    """Return the step that a URL ends at which the policy refuses whatever its name resolves to; else None."""
    refusal = policy.refusal_of_url(url)
    if refusal is None:
        return None
    literal = literal_address(url.host)
    if literal is not None and policy.refusal(literal) == refusal:
        return Step(name="policy", state="failed", text=refusal, cause="forbidden", addresses=(url.host,))
    return Step(name="policy", state="failed", text=refusal, cause="url_refused")


async def context_for(endpoint: Endpoint, usual: ssl.SSLContext | None) -> ssl.SSLContext | Step:
    """Return what to shake hands with, or the step that ends here because this machine cannot prepare it."""
    try:
        return await endpoint.tls.context() if endpoint.tls else usual or default_ssl_context()
    except OSError as error:
        text = f"cannot prepare TLS: {error.strerror or type(error).__name__}"
        return Step(name="tls", state="failed", text=text, cause="local")


def warn_of_expiry(step: Step) -> Step:
    """Warn of a certificate that nobody seems to renew."""
    left = step.certificate and step.certificate.not_after - datetime.now(UTC)
    if not left or left > RENEWED_BEFORE:
        return step
    return replace(step, state="warning", text=f"{step.text}, but only for {left.days} more days")


# X509_V_ERR_… of OpenSSL.
_VERIFICATION: dict[int, Cause] = {
    9: "not_yet_valid", 10: "expired", 18: "self_signed", 19: "unknown_issuer", 20: "unknown_issuer",
    21: "unknown_issuer", 62: "wrong_name", 64: "wrong_name",
}  # fmt: skip

# Parts of OpenSSL's reasons, whose full names differ by version.
_REASONS: tuple[tuple[str, Cause], ...] = (
    ("WRONG_VERSION_NUMBER", "not_tls"), ("HTTP_REQUEST", "not_tls"), ("RECORD_LAYER_FAILURE", "not_tls"),
    ("PACKET_LENGTH_TOO_LONG", "not_tls"), ("PROTOCOL", "old_tls"), ("VERSION", "old_tls"),
    ("CERTIFICATE", "client_certificate"), ("UNKNOWN_CA", "client_certificate"), ("EOF", "closed"),
)  # fmt: skip


def failure_of_tls(error: Exception) -> tuple[Cause, str]:
    """Return why a handshake failed, and the words of who says so."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFICATION.get(error.verify_code, "untrusted"), reason_of_tls(error)
    if isinstance(error, ssl.SSLError) and refuses_http1(error):
        return "only_http2", reason_of_tls(error)
    if isinstance(error, ssl.SSLError):
        said = error.reason or ""
        return next((cause for part, cause in _REASONS if part in said), "handshake_refused"), reason_of_tls(error)
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "handshake_timeout", "the handshake did not finish in time"
    if isinstance(error, DialError):
        return "connection", str(error)
    return "closed", "the server closed the connection during the handshake"
