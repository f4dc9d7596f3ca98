"""What a customer is told of a failure: the class of the outcome, and its detail where that is about their endpoint.

How the provider's own network and database look is nobody else's: not which address a private name has, nor a proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.config.options import Config
    from relay.web.pages.visits import Visit

__all__ = ["detail_of"]

_ABOUT_THE_ENDPOINT = frozenset(("http_3xx", "http_4xx", "http_5xx", "slowed", "protocol", "timeout", "tls"))
_MAX_CHARACTERS = 300


def detail_of(visit: Visit, outcome: str | None, error: str | None) -> str:
    """Return the detail of a failure, '' where it is not for a customer. Through a proxy the failure may be its."""
    config: Config = visit.request.app.state.config
    if not error or outcome not in _ABOUT_THE_ENDPOINT or config.egress_proxy is not None:
        return ""
    return error[:_MAX_CHARACTERS]
