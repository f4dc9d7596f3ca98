"""What a refusal (429, 503) means: "not so many", where the endpoint takes other requests.

Such a refusal slows the endpoint as a whole, to the rate that it takes; SQL works that rate out, in
relay/store/limits.py. The refusal does not charge the delivery, because we sent it too fast.

An endpoint that took nothing for a quarter of an hour is failing. Its refusals charge its deliveries, as those of every
failing endpoint do, because an endpoint that answers 503 for days must not keep its deliveries for ever. An endpoint
that was slowed before it failed stays slowed.

Nor may one delivery stay for ever because its receiver refuses it at every rate: each refusal after UNCHARGED_MAX
charges it. Each process counts refusals in memory, since a counter in the hot row would cost those that are never
refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.engine.endpoint import Endpoint
    from relay.engine.endpoint_registry import Endpoints
    from relay.model.delivery import Delivery

__all__ = ["UNCHARGED_MAX", "slowed_seconds"]

UNCHARGED_MAX = 20
WAIT_MAX_SECONDS = 10.0


def slowed_seconds(endpoints: Endpoints, endpoint: Endpoint, delivery: Delivery) -> float | None:
    """Note a refusal; return in how many seconds to try again, uncharged, or None where it is an ordinary failure.

    That is a second after the first refusal of this delivery, two after the second, and so on up to ten.
    """
    takes = endpoint.window.takes(time.monotonic())
    if not takes and not (endpoint.gate and endpoint.gate.is_slowed):
        return None
    refusals = endpoints.slow(endpoint, delivery.id)
    return min(float(refusals), WAIT_MAX_SECONDS) if takes and refusals <= UNCHARGED_MAX else None
