"""Subscriptions by HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter

from outbox import subscriptions as verbs
from relay.web.database import Call, call

__all__ = ["router"]

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])

Reading = Annotated[Call, call("read")]


@router.get("/{subscription_id}")
def get_subscription(call: Reading, subscription_id: str) -> dict[str, Any]:
    """Show one subscription; never its secret."""
    return verbs.get(call.connection, subscription_id, tenant=call.principal.whose).to_dict()
