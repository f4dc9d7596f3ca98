"""History and statistics by HTTP: every attempt that is kept, and what was counted of them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from outbox import statistics
from outbox.control.attempts import ListedAttempt
from outbox.control.history import list_attempts
from outbox.subscriptions.checks import EveryTenant
from relay.web.answers import linked
from relay.web.api.fields import AttemptFilter, Query_, SubscriptionName, TenantName
from relay.web.bodies import ExactRoute
from relay.web.database import Call, Reading
from relay.web.models import listing, model_of
from relay.web.problems import Problem

__all__ = ["router"]

router = APIRouter(tags=["history"], route_class=ExactRoute)

_Over = Annotated[str, Field(pattern="^[1-9][0-9]{0,5}[mhd]$", description="How far back: 90m, 24h, 7d, 30d.")]


class StatisticsQuery(Query_):
    """What is counted."""

    over: _Over = "24h"
    tenant: TenantName | None = None
    type: str | None = Field(default=None, max_length=128, description="One exact event type.")
    subscription: SubscriptionName | None = None


class RankQuery(Query_):
    """What is ranked."""

    by: Literal["subscription", "tenant", "type"]
    over: _Over = "24h"
    tenant: TenantName | None = None
    type: str | None = Field(default=None, max_length=128)
    limit: int = Field(default=50, ge=1, le=10_000)


class SeriesQuery(StatisticsQuery):
    """What is counted over time."""

    step_seconds: int | None = Field(default=None, ge=60, le=86_400_000, description="Without it, what fits over.")


@router.get("/attempts", response_model=listing(ListedAttempt))
def get_attempts(call: Reading, request: Request, response: Response, query: Annotated[AttemptFilter, Query()]) -> Any:
    """List attempts, newest first, test messages too. A page looks at a bounded number and may have fewer items.

    Quick at any size are subscription, event, since, until and outcome=failed; put the others to them. Text is looked
    for as it is written, in errors, answers and the first 64 KiB of payloads.
    """
    return linked(request, response, list_attempts(call.connection, call.tenant, query.filters(), after=query.after))


@router.get("/statistics", response_model=model_of(statistics.Statistics))
def get_statistics(call: Reading, query: Annotated[StatisticsQuery, Query()]) -> Any:
    """Count what was delivered, failed and died, and how long delivered requests took, in milliseconds."""
    return statistics.read(
        call.connection, _whose(call, query.tenant), subscription=query.subscription, type=query.type, over=query.over
    )


@router.get("/statistics/ranking", response_model=list[model_of(statistics.Statistics)])  # type: ignore[misc]
def rank_statistics(call: Reading, query: Annotated[RankQuery, Query()]) -> Any:
    """The same of each subscription, tenant or type that had any attempt, most failures first."""
    return statistics.rank(
        call.connection, _whose(call, query.tenant), query.by, type=query.type, over=query.over, limit=query.limit
    )


@router.get("/statistics/series", response_model=list[model_of(statistics.Point)])  # type: ignore[misc]
def get_series(call: Reading, query: Annotated[SeriesQuery, Query()]) -> Any:
    """The same over time, the oldest first, one point a step."""
    return statistics.series(
        call.connection,
        _whose(call, query.tenant),
        subscription=query.subscription,
        type=query.type,
        over=query.over,
        step_seconds=query.step_seconds,
    )


def _whose(call: Call, tenant: str | None) -> str | EveryTenant:
    if tenant is None or tenant == call.tenant:
        return call.whose
    if call.tenant is not None:
        raise Problem(422, "invalid", "tenant: this token is of another tenant", mend="leave tenant out")
    return tenant
