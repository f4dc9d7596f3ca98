"""The HTTP API, version 1. Each module has the routes of one kind of thing; `router` includes them all."""

from fastapi import APIRouter, Depends

from relay.web.access import bearer
from relay.web.api import subscriptions

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", dependencies=[Depends(bearer)])
for module in (subscriptions,):
    router.include_router(module.router)
