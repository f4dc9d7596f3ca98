"""Who calls: a principal, made from a bearer token, and what it may do.

Routes with a transaction take Reading, Writing, Operating or Administering of database.py, which ask for the right here
and open the transaction; Caller, Reader and Writer are for routes without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from outbox.ids import TokenId
from outbox.subscriptions.checks import EVERY_TENANT, EveryTenant
from relay.operations import sessions, tokens
from relay.operations.connection import Database
from relay.operations.tokens import Right
from relay.web.problems import Problem
from relay.web.rate_limits import RateLimits
from relay.web.signed_in import signed_in_of

__all__ = [
    "Caller",
    "Principal",
    "Reader",
    "Writer",
    "bearer",
    "given_token",
    "identify",
    "principal_of",
    "require",
]

bearer = HTTPBearer(auto_error=False, description="A token of `relay tokens create`, rtk_…")
"""Declares to OpenAPI that a route wants a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls, and what they may do. `tenant` None is every tenant: the operator.

    `kind` is who says so: a token, or the application around; then `token_id` stands for the caller and is no token's.
    """

    tenant: str | None
    rights: frozenset[Right]
    token_id: TokenId
    name: str
    expires_at: datetime | None = None
    kind: str = "token"

    @property
    def actor(self) -> str:
        """The name that the audit notes."""
        return f"{self.kind}:{self.name}"

    @property
    def whose(self) -> str | EveryTenant:
        """The tenant as the verbs of subscriptions take it."""
        return EVERY_TENANT if self.tenant is None else self.tenant


def principal_of(database: Database, token: str) -> Principal | None:
    """Return whose token this is; None where it is unknown, expired or revoked. A short transaction of its own."""
    if not tokens.has_form(token):
        return None
    with database.transaction() as connection:
        found = tokens.authenticate(connection, token)
    if found is None or sessions.is_session(found):  # a session is for pages, which ask who began it
        return None
    return Principal(
        tenant=found.tenant,
        rights=frozenset(found.rights),
        token_id=found.id,
        name=found.name,
        expires_at=found.expires_at,
    )


def identify(request: Request) -> Principal:
    """Return who calls, asked once for each request.

    Raises Problem: 401 without a valid token, 429 where it made too many requests.
    """
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    found = _of_application(request) or _of_token(request)
    request.state.caller = found.token_id
    _limit(request, found)
    request.state.principal = found
    return found


def _of_application(request: Request) -> Principal | None:
    """Return whom the application around has signed in, in whose tenant they are; None where there is none."""
    found = signed_in_of(request)
    if found is None:
        return None
    return Principal(
        tenant=found.tenant, rights=found.api_rights, token_id=found.caller_id, name=found.name, kind="application"
    )


def _of_token(request: Request) -> Principal:
    token = given_token(request)
    if not token:
        raise _unauthorized("no token was given", "")
    found = principal_of(request.app.state.database, token)
    if found is None:
        raise _unauthorized("the token is unknown, expired or revoked", ', error="invalid_token"')
    return found


def require(right: Right) -> Callable[[Request], Principal]:
    """Return the dependency that gives the principal, if it has this right.

    Raises Problem as `identify` does, and 403 without the right.
    """

    def principal(request: Request) -> Principal:
        found = identify(request)
        if right not in found.rights:
            seen = f"{found.name!r} has no right {right}; it has {', '.join(sorted(found.rights))}"
            raise Problem(403, "forbidden", f"token: {seen}", mend=f"use a token with the right {right}")
        return found

    return principal


Caller = Annotated[Principal, Depends(identify)]
Reader = Annotated[Principal, Depends(require("read"))]
Writer = Annotated[Principal, Depends(require("write"))]


def given_token(request: Request) -> str:
    """Return the bearer token of a request, '' without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _limit(request: Request, principal: Principal) -> None:
    limits: RateLimits = request.app.state.rate_limits
    allowance = limits.take(principal.token_id)
    request.state.rate_headers = allowance.headers
    if not allowance.granted:
        seen = f"rate: this token may make {allowance.per_minute} requests a minute"
        headers = {"Retry-After": str(allowance.wait_seconds)}
        raise Problem(429, "too-many-requests", seen, mend=f"wait {allowance.wait_seconds} s", headers=headers)


def _unauthorized(seen: str, error: str) -> Problem:
    mend = "send Authorization: Bearer rtk_…, a token of `relay tokens create`"
    headers = {"WWW-Authenticate": f'Bearer realm="outbox-relay"{error}'}
    return Problem(401, "unauthorized", f"authorization: {seen}", mend=mend, headers=headers)
