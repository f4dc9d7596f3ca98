"""Who an application has signed in itself, and lets into its own tenant's portal and API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from outbox.control.portal_arguments import check_person
from outbox.ids import TokenId

if TYPE_CHECKING:
    from fastapi import Request

    from outbox.control.portal_links import PortalLink, PortalRight
    from relay.operations.tokens import Right

__all__ = ["IN_SCOPE", "SignedIn", "signed_in_of"]

IN_SCOPE = "relay.signed_in"
"""The key of the ASGI scope where it stands, which no request can set."""
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Somebody of a tenant. `person` is who, for the audit; None where the application does not say.

    Raises ArgumentError for a person of over 200 bytes, whom neither the portal nor the audit could name.
    """

    tenant: str
    person: str | None
    portal_rights: PortalRight
    api_rights: frozenset[Right]

    def __post_init__(self) -> None:
        """Check who it is."""
        check_person(self.person)

    @property
    def name(self) -> str:
        """The name for the audit: the person's, or as much of the tenant's as it holds."""
        return self.person or self.tenant.encode()[:_MAX_NAME_BYTES].decode(errors="ignore") or "-"

    @property
    def caller_id(self) -> TokenId:
        """What stands for a token's id where requests are counted or done once: the same for the same caller."""
        return TokenId.of(uuid5(NAMESPACE_OID, f"{self.tenant}\0{self.person or ''}"))

    def began(self, link: PortalLink) -> bool:
        """Tell whether a session of the portal is theirs, with the rights that they have now."""
        return (link.tenant, link.person, link.rights) == (self.tenant, self.person, self.portal_rights)


def signed_in_of(request: Request) -> SignedIn | None:
    """Return whom the application has signed in; None where the request did not come by way of one."""
    found: SignedIn | None = request.scope.get(IN_SCOPE)
    return found
