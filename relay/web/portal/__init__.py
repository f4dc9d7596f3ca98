"""The portal: pages for a tenant's own customers, who come by a link and see that tenant and nothing else.

It has the dashboard's parts, charts, forms and checks, a frame and texts of its own, and no script.
"""

from fastapi import APIRouter

from relay.web.portal import deliveries, endpoint_forms, endpoint_tests, endpoints, entering, event_types, secrets
from relay.web.portal.rendering import HOME

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
router.include_router(entering.bare)
for module in (entering, endpoint_forms, endpoint_tests, secrets, endpoints, deliveries, event_types):
    router.include_router(module.router, prefix=f"/{HOME}")
