"""The dashboard: pages made on the server, which work without JavaScript. They ask relay/operations and hold no SQL.

Each module has a router of its own, which is included in `router` here and nowhere else.
"""

from fastapi import APIRouter

from relay.web.pages import (
    assets,
    attempts,
    audit,
    bulk,
    dead_letters,
    deliveries,
    event_types,
    events,
    findings,
    live,
    overview,
    sign_in,
    subscription_forms,
    subscription_tests,
    subscriptions,
    tokens,
)

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
for module in (
    assets, sign_in, live, overview, findings, subscription_forms, subscription_tests, subscriptions, events,
    event_types, deliveries, attempts, dead_letters, bulk, audit, tokens,
):  # fmt: skip
    router.include_router(module.router)
