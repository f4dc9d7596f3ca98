"""The HTTP API, version 1. Each module has the routes of one kind of thing; `router` includes them all."""

from fastapi import APIRouter, Depends

from relay.web.access import bearer
from relay.web.api import (
    bulk,
    catalogue,
    dead_letters,
    deliveries,
    erasure,
    event_types,
    events,
    history,
    operating,
    portal_links,
    subscriptions,
    tokens,
    trials,
)
from relay.web.api.description import PROBLEMS

__all__ = ["PREFIX", "router"]

PREFIX = "/api/v1"

router = APIRouter(prefix=PREFIX, dependencies=[Depends(bearer)], responses=PROBLEMS)
for module in (
    subscriptions, trials, events, event_types, deliveries, dead_letters, history, bulk, operating, erasure, tokens,
    portal_links,
    catalogue,
):  # fmt: skip
    router.include_router(module.router)
