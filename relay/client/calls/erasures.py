"""Calls about erasures: plan, request, follow, read the receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.client.calls.making import get_one, get_page, not_none, send

if TYPE_CHECKING:
    from outbox.control.pages import Page
    from relay.client.call import Call
    from relay.operations.erase.erasure import Erasure, Receipt
    from relay.operations.erase.request import ErasePlan

__all__ = [
    "cancel_erasure",
    "get_erasure",
    "get_receipt",
    "list_erasures",
    "plan_an_erasure",
    "request_an_erasure",
    "resume_erasure",
]


def plan_an_erasure(kind: str, value: str, **more: Any) -> Call[ErasePlan]:
    """Count what would be erased; more: path, within."""
    from relay.operations.erase.request import ErasePlan

    return send(ErasePlan, "POST", "/erasures/plan", body={"kind": kind, "value": value, **not_none(**more)})


def request_an_erasure(kind: str, value: str, *, once: str | None = None, **more: Any) -> Call[Erasure]:
    """Erase for good; more: path, within, cancel_undelivered."""
    from relay.operations.erase.erasure import Erasure

    return send(Erasure, "POST", "/erasures", body={"kind": kind, "value": value, **not_none(**more)}, once=once)


def list_erasures(**page: Any) -> Call[Page[Erasure]]:
    """List erasures; page: since, until, after, limit."""
    from relay.operations.erase.erasure import Erasure

    return get_page(Erasure, "/erasures", **page)


def get_erasure(erasure_id: object) -> Call[Erasure]:
    """Show one erasure and how far it is."""
    from relay.operations.erase.erasure import Erasure

    return get_one(Erasure, "/erasures/{}", erasure_id)


def get_receipt(erasure_id: object) -> Call[Receipt]:
    """Show the receipt of an erasure that is done."""
    from relay.operations.erase.erasure import Receipt

    return get_one(Receipt, "/erasures/{}/receipt", erasure_id)


def resume_erasure(erasure_id: object, *, cancel_undelivered: bool = False) -> Call[Erasure]:
    """Go on with one that met something undelivered."""
    from relay.operations.erase.erasure import Erasure

    body = {"cancel_undelivered": cancel_undelivered}
    return send(Erasure, "POST", "/erasures/{}/resume", erasure_id, body=body)


def cancel_erasure(erasure_id: object) -> Call[Erasure]:
    """Erase nothing more."""
    from relay.operations.erase.erasure import Erasure

    return send(Erasure, "POST", "/erasures/{}/cancel", erasure_id)
