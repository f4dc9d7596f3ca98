"""What a customer is told of a failure: the class of the outcome; its detail and advice where they may mend it.

How the provider's own network and database look is nobody else's: not which address a private name has, nor a proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.control.advice import OUTCOMES, cause_of

if TYPE_CHECKING:
    from relay.config.options import Config
    from relay.web.pages.visits import Visit

__all__ = ["ABOUT_THE_ENDPOINT", "ADVICE", "advice_for", "detail_of"]

ADVICE = frozenset((
    "answer.401", "answer.403", "answer.404", "answer.405", "answer.410", "answer.413", "answer.415", "answer.422",
    "answer.429", "answer.500", "answer.502", "answer.503", "answer.504", "message.http_3xx", "message.http_4xx",
    "message.http_5xx", "message.slowed", "message.protocol", "message.timeout", "message.refused",
    "message.connection", "message.dns", "message.tls", "message.not_taken", "tls.expired", "tls.not_yet_valid",
    "tls.self_signed", "tls.unknown_issuer", "tls.wrong_name", "tls.not_tls", "tls.old_tls",
))  # fmt: skip
"""The causes that a customer can mend, by the codes of outbox.control.advice: each has a text."""

ABOUT_THE_ENDPOINT = frozenset(("http_3xx", "http_4xx", "http_5xx", "slowed", "protocol", "timeout", "tls"))
"""The outcomes whose detail a customer may read."""
_MAX_CHARACTERS = 300


def detail_of(visit: Visit, outcome: str | None, error: str | None) -> str:
    """Return the detail of a failure, '' where it is not for a customer. Through a proxy the failure may be its."""
    if not error or outcome not in ABOUT_THE_ENDPOINT or _is_proxied(visit):
        return ""
    return error[:_MAX_CHARACTERS]


def advice_for(visit: Visit, outcome: str | None, status: int | None, error: str | None) -> str:
    """Return the code, one of ADVICE, of what usually mends a failure; '' where a customer cannot mend it.

    Through a proxy only what the endpoint itself must have answered counts.
    """
    if outcome not in OUTCOMES:
        return ""
    code, *_ = cause_of(outcome, status, error)
    return code if code in ADVICE and (code.startswith("answer.4") or not _is_proxied(visit)) else ""


def _is_proxied(visit: Visit) -> bool:
    config: Config = visit.request.app.state.config
    return config.egress_proxy is not None
