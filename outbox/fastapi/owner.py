"""Whose webhooks a request sees: what the application's dependency says, as a tenant and, maybe, a person in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

import outbox
from outbox._text import qualified_kind
from outbox.errors import ActorError, ArgumentError, SubscriptionError
from outbox.subscriptions import Subscription
from outbox.subscriptions.checks import check_tenant
from outbox.subscriptions.rows import not_found

__all__ = ["Owner", "owner_of"]

_METADATA = "owner"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks. With a person, only that person's webhooks of the tenant are theirs; None is all of the tenant's."""

    tenant: str
    person: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """Return the metadata of a webhook of theirs."""
        return {} if self.person is None else {_METADATA: self.person}

    def find(self, session: Session, webhook_id: str) -> Subscription:
        """Return a webhook of theirs. Raises NotFoundError, in the same words for another's and for none."""
        found = outbox.subscriptions.get(session, webhook_id, tenant=self.tenant)
        if self.person is not None and found.metadata.get(_METADATA) != self.person:
            raise not_found(webhook_id)
        return found

    def sign(self, session: Session) -> None:
        """Let the audit note them as who made the changes of this transaction."""
        name = self.person or self.tenant
        if name:
            outbox.act_as(session, name)


def owner_of(given: object) -> Owner:
    """Return the owner: a user's id, a user with an `id`, or the tenant and one of these.

    Raises ArgumentError for everything else, so that no two people are ever taken for one.
    """
    if not isinstance(given, tuple):
        return Owner(_tenant(_text(given)))
    if len(given) != 2:
        raise ArgumentError(f"owner: a tuple is (tenant, owner), and this one has {len(given)} parts")
    tenant, person = given
    return Owner("" if tenant == "" else _tenant(_text(tenant)), _text(person))


def _text(given: Any) -> str:
    if isinstance(given, str):
        found = str.__str__(given)
    elif isinstance(given, int | UUID) and not isinstance(given, bool):
        found = str(given)
    elif given is not None and not isinstance(given, Mapping) and isinstance(own := getattr(given, "id", None), _IDS):
        return _text(own)
    else:
        kind = qualified_kind(given)
        raise ArgumentError(f"owner: a {kind} is nobody; return the user's id, a user with an id, or (tenant, owner)")
    if not found.strip() or not found.isprintable():
        raise ArgumentError("owner: is empty, or has characters that cannot be printed; return the user's id")
    return found


_IDS = (str, int, UUID)


def _tenant(name: str) -> str:
    try:
        return check_tenant(name)
    except (SubscriptionError, ActorError) as error:
        raise ArgumentError(f"owner: {error}") from None
