"""Tokens by HTTP: who may call, and what each may do."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from outbox.control.filters import Filters
from relay.operations import tokens as operations
from relay.operations.tokens import Maker, Right, Token
from relay.web.access import Caller
from relay.web.answers import answer, linked
from relay.web.api.fields import PageQuery, TenantName
from relay.web.bodies import Body, ExactRoute, Instant
from relay.web.database import Administering
from relay.web.idempotency import Asked
from relay.web.models import Moment, listing, model_of

__all__ = ["router"]

router = APIRouter(tags=["tokens"], route_class=ExactRoute)

_Token = model_of(Token)
_NewToken = create_model("NewToken", __base__=_Token, token=(str, Field(description="rtk_…, in this answer only.")))


class TokenQuery(PageQuery):
    """A page of tokens."""

    tenant: TenantName | None = None
    revoked: bool = Field(default=False, description="Also those that are revoked or expired.")


class MakeToken(Body):
    name: str = Field(min_length=1, max_length=200, description="What it is for.")
    rights: list[Right] = Field(min_length=1, max_length=4)
    tenant: TenantName | None = Field(default=None, description="Null is every tenant, for tokens of every tenant.")
    expires_at: Instant | None = None
    expires_days: int | None = Field(
        default=None, ge=1, le=36_500, description="In place of expires_at: so many days from now."
    )

    @model_validator(mode="after")
    def _ends_once(self) -> "MakeToken":
        if self.expires_at is not None and self.expires_days is not None:
            raise ValueError("give either expires_at or expires_days")
        return self

    @property
    def expires(self) -> datetime | timedelta | None:
        """When it ends, as operations take it."""
        return self.expires_at if self.expires_days is None else timedelta(days=self.expires_days)


class Self(BaseModel):
    """Whose token this is, and what it may do."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    tenant: str | None
    rights: list[Right]
    expires_at: Moment | None


@router.get("/token", response_model=Self)
def get_own_token(caller: Caller) -> Any:
    """Tell what the token of this request is and may do."""
    return {
        "id": str(caller.token_id),
        "name": caller.name,
        "tenant": caller.tenant,
        "rights": [right for right in operations.RIGHTS if right in caller.rights],
        "expires_at": caller.expires_at,
    }


@router.get("/tokens", response_model=listing(Token))
def list_tokens(
    call: Administering, request: Request, response: Response, query: Annotated[TokenQuery, Query()]
) -> Any:
    """List tokens, the newest first. Never their text: only its hash is kept."""
    filters = Filters(tenant=query.tenant, limit=query.limit)
    page = operations.list_tokens(call.connection, call.tenant, filters, revoked=query.revoked, after=query.after)
    return linked(request, response, page)


@router.post("/tokens", status_code=201, response_model=_NewToken)
def make_token(call: Administering, once: Asked, body: MakeToken) -> Response:
    """Make a token, whose text is in this answer only. It gets no right that yours has not, and ends no later."""

    def make() -> Response:
        made = operations.create(
            call.connection,
            call.tenant,
            name=body.name,
            rights=body.rights,
            whose=call.tenant if body.tenant is None else body.tenant,
            expires=body.expires,
            maker=Maker(call.principal.rights, call.principal.expires_at),
        )
        shown = {name: getattr(made.token, name) for name in _Token.model_fields}
        return answer(_NewToken, shown | {"token": made.text}, 201)

    return once.run(call, make)


@router.delete("/tokens/{token_id}", response_model=_Token)
def revoke_token(call: Administering, token_id: str) -> Any:
    """End a token at once; what it made stays."""
    return operations.revoke(call.connection, call.tenant, token_id)
