"""Who visits a page: a session's cookie or, where that is switched on, a header of the proxy in front."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Connection

from outbox.errors import OutboxError
from outbox.subscriptions.checks import EVERY_TENANT, EveryTenant
from relay.config.options import Config
from relay.operations import sessions
from relay.operations.connection import Database
from relay.operations.tokens import RIGHTS, Right, Token

__all__ = ["SESSION_COOKIE", "Refused", "SignInWanted", "Visit", "Visiting", "Visitor", "cookie_name", "is_https",
           "is_operator", "visiting", "visitor_of"]  # fmt: skip

SESSION_COOKIE = "relay_session"
_MAX_NAME_BYTES = 200


class SignInWanted(Exception):  # noqa: N818 - an answer
    """Nobody is signed in: the answer is the page to sign in."""


class Refused(OutboxError):  # noqa: N818 - an answer
    """A request is refused with this status; the message says why and what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at pages, and what they may do. `tenant` None is the operator, who sees every tenant's."""

    name: str
    actor: str
    tenant: str | None
    rights: frozenset[Right]
    session: Token | None

    @property
    def whose(self) -> str | EveryTenant:
        """The tenant as the verbs of subscriptions take it."""
        return EVERY_TENANT if self.tenant is None else self.tenant

    @property
    def can_leave(self) -> bool:
        """Whether there is a session to end; a proxy has its own way to sign out."""
        return self.session is not None

    @property
    def rights_text(self) -> str:
        """The rights in words."""
        return ", ".join(right for right in RIGHTS if right in self.rights)

    def may(self, right: Right) -> bool:
        """Tell whether the visitor has a right."""
        return right in self.rights


@dataclass(frozen=True, slots=True)
class Visit:
    """One request by a visitor."""

    request: Request
    visitor: Visitor

    @property
    def database(self) -> Database:
        """The application's database."""
        found: Database = self.request.app.state.database
        return found

    @property
    def tenant(self) -> str | None:
        """Who asks, as operations take it."""
        return self.visitor.tenant

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction by the visitor's name."""
        with self.database.transaction(self.visitor.actor) as connection:
            yield connection


def is_https(request: Request) -> bool:
    """Tell whether the visitor's browser speaks https, as uvicorn or the proxy that it trusts says."""
    return request.url.scheme == "https"


def cookie_name(request: Request, name: str) -> str:
    """Return the name of a cookie: with https browsers hold it to this host and to https."""
    return f"__Host-{name}" if is_https(request) else name


def visitor_of(request: Request) -> Visitor | None:
    """Return who visits, by the proxy's header or the session's cookie; None where nobody is signed in."""
    config: Config = request.app.state.config
    if (name := _named_by_proxy(request, config)) is not None:
        return Visitor(
            name=name, actor=f"{name} (proxy)", tenant=None, rights=frozenset(config.sign_in_rights), session=None
        )
    given = request.cookies.get(cookie_name(request, SESSION_COOKIE))
    if not given:
        return None
    with request.app.state.database.transaction() as connection:
        session = sessions.session_of(connection, given)
    if session is None:
        return None
    name = session.created_by.removeprefix("token:")
    return Visitor(
        name=name, actor=session.created_by, tenant=session.tenant, rights=frozenset(session.rights), session=session
    )


def is_operator(request: Request) -> bool:
    """Tell whether the operator is known to ask: signed in, or just about to be."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return bool(getattr(request.state, "signs_in_operator", False)) or (visitor is not None and visitor.tenant is None)


def _named_by_proxy(request: Request, config: Config) -> str | None:
    """Return the name that the proxy's header gives, where the setting is on and the named proxy itself connected."""
    if not config.sign_in_header or not config.sign_in_proxies:
        return None
    peer = request.scope.get("relay.peer")
    given = request.headers.getlist(config.sign_in_header)
    if peer is None or len(given) != 1:
        return None
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return None
    address = getattr(address, "ipv4_mapped", None) or address
    if not any(address in network for network in config.sign_in_proxies):
        return None
    name = given[0].strip()
    with suppress(UnicodeError):
        name = name.encode("latin-1").decode()  # a header of HTTP comes as bytes
    return name if name and name.isprintable() and len(name.encode()) <= _MAX_NAME_BYTES else None


def visiting(*rights: Right) -> object:
    """Return the dependency that gives the visit of somebody with every one of these rights.

    Raises SignInWanted where nobody is signed in, and Refused without a right.
    """

    def visit(request: Request) -> Visit:
        visitor = visitor_of(request)
        if visitor is None:
            raise SignInWanted
        request.state.visitor = visitor  # for a page that tells of an error
        for right in rights:
            if not visitor.may(right):
                raise Refused(403, f"rights: {visitor.name!r} has no right {right}; sign in with a token that has it")
        return Visit(request, visitor)

    visit.rights = rights  # type: ignore[attr-defined]
    return Depends(visit)


Visiting = Annotated[Visit, visiting("read")]
"""The visit of somebody who may look."""
