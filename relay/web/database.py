"""The transaction of a request: one connection, committed before the answer is sent, rolled back by any error.

Routes are plain functions, which run in the thread pool, as the operations that they call take a Connection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import Connection

from outbox.subscriptions.checks import EveryTenant
from relay.operations.connection import Database
from relay.operations.tokens import Right
from relay.web.access import Principal, require

__all__ = ["Administering", "Call", "Operating", "Reading", "Writing", "call", "database_of"]


@dataclass(frozen=True, slots=True)
class Call:
    """A request: who calls, and the connection in whose transaction it is done."""

    principal: Principal
    connection: Connection

    @property
    def tenant(self) -> str | None:
        """Who asks, as operations take it."""
        return self.principal.tenant

    @property
    def whose(self) -> str | EveryTenant:
        """Who asks, as the verbs of subscriptions take it."""
        return self.principal.whose


def database_of(request: Request) -> Database:
    """Return the database of the application."""
    found: Database = request.app.state.database
    return found


def call(right: Right) -> Any:
    """Return the dependency that gives the Call of a principal with this right, in a transaction by its name."""

    def open_call(
        request: Request, principal: Annotated[Principal, Depends(require(right), scope="function")]
    ) -> Iterator[Call]:
        with database_of(request).transaction(principal.actor) as connection:
            yield Call(principal, connection)

    return Depends(open_call, scope="function")


Reading = Annotated[Call, call("read")]
Writing = Annotated[Call, call("write")]
Operating = Annotated[Call, call("operate")]
Administering = Annotated[Call, call("admin")]
