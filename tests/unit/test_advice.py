"""Every class of failure has advice: what it means, and what usually mends it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from outbox.control.advice import ANSWERS, OUTCOMES, TLS, advice_on
from outbox.control.attempts import Attempt
from outbox.control.filters import OUTCOMES as EVERY_OUTCOME
from outbox.control.findings import Action
from outbox.ids import DeliveryId, SubscriptionId
from relay.model.outcome import OutcomeKind

DELIVERY = DeliveryId.of("dlv_01jd3v00000000000000000000")
SUBSCRIPTION = SubscriptionId.of("sub_01jd3v00000000000000000000")


def attempt(outcome: str, status: int | None = None, error: str | None = None, verdict: str = "retry") -> Attempt:
    return Attempt(
        delivery_id=DELIVERY, subscription_id=SUBSCRIPTION, number=1, at=datetime(2026, 1, 1, tzinfo=UTC),
        verdict=verdict, outcome=outcome, status=status, milliseconds=1, error=error, url=None, address=None,
        headers=None, excerpt=None,
    )  # fmt: skip


def told(*attempts: Attempt, reason: str | None = None) -> tuple[str, str] | None:
    found = advice_on(DELIVERY, SUBSCRIPTION, attempts, reason)
    return None if found is None else (found.code, found.mend)


def test_every_outcome_that_is_a_failure_has_advice_and_nothing_else_has() -> None:
    failures = set(OutcomeKind) - {OutcomeKind.DELIVERED}
    assert set(OUTCOMES) == failures
    assert set(EVERY_OUTCOME) - {"delivered", "cancelled"} == failures
    for outcome in failures:
        code, mend = told(attempt(outcome)) or ("", "")
        assert code == f"message.{outcome}"
        assert mend


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 413, 429, 500, 502, 503, 504])
def test_a_status_that_is_known_has_advice_of_its_own(status: int) -> None:
    outcome = "slowed" if status == 429 else "http_4xx" if status < 500 else "http_5xx"
    assert told(attempt(outcome, status)) == (f"answer.{status}", ANSWERS[status][1])
    assert ANSWERS[status][1]


def test_a_refused_signature_names_what_usually_is_the_cause() -> None:
    for status in (401, 403):
        _, mend = told(attempt("http_4xx", status)) or ("", "")
        assert all(word in mend for word in ("secret", "clock", "headers"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("certificate verify failed: certificate has expired", "tls.expired"),
        ("certificate is not yet valid", "tls.not_yet_valid"),
        ("self-signed certificate in certificate chain", "tls.self_signed"),
        ("unable to get local issuer certificate", "tls.unknown_issuer"),
        ("Hostname mismatch, certificate is not valid for 'example.com'.", "tls.wrong_name"),
        ("wrong version number", "tls.not_tls"),
        ("tlsv1 alert protocol version", "tls.old_tls"),
        ("tlsv13 alert certificate required", "tls.client_certificate"),
        ("handshake failure", "message.tls"),
    ],
)
def test_a_fault_of_tls_is_told_by_the_words_of_the_error(error: str, code: str) -> None:
    assert (told(attempt("tls", error=error)) or ("",))[0] == code
    assert len({cause for cause, *_ in TLS}) == len(TLS)


def test_the_last_attempt_counts_and_one_that_was_delivered_needs_none() -> None:
    assert (told(attempt("http_4xx", 401), attempt("timeout")) or ("",))[0] == "message.timeout"
    assert told(attempt("http_5xx", 500), attempt("delivered", 200, verdict="delivered")) is None
    assert told() is None
    assert (told(reason="crash") or ("",))[0] == "dead.crash"
    assert (told(attempt("timeout"), reason="exhausted") or ("",))[0] == "message.timeout"


def test_advice_leads_to_the_page_that_checks_the_endpoint() -> None:
    found = advice_on(DELIVERY, SUBSCRIPTION, [attempt("tls")], None)
    assert found is not None
    assert found.action == Action("test", str(SUBSCRIPTION))
    assert found.severity == "note"
