"""The signing secrets of a subscription that are live: what may be shown of each, and until when it signs along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import own
from outbox.ids import SubscriptionId

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

__all__ = ["LiveSecret", "live_secrets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSecret:
    """A secret that signs, never the secret itself.

    `hint`: its public key, '' where it has none; `expires_at`: None for the newest, which signs until it is exchanged.
    """

    hint: str
    created_at: datetime
    expires_at: datetime | None


_LIVE = text(f"""
select x.hint, x.created_at, x.expires_at
from outbox.secrets x join outbox.subscriptions s on s.id = x.subscription_id
where s.id = :id and x.kind = 'signing' and (x.expires_at is null or x.expires_at > clock_timestamp())
  and {own("s.tenant")}
order by x.created_at desc, x.id desc
""")  # noqa: S608 - the parts are constants


def live_secrets(connection: Connection, tenant: str | None, subscription_id: UUID | str) -> tuple[LiveSecret, ...]:
    """Return the signing secrets that are live, the newest first; none of what is not the tenant's, or unsigned."""
    asked = {"id": SubscriptionId.of(subscription_id), "asking": tenant}
    return tuple(LiveSecret(**row) for row in connection.execute(_LIVE, asked).mappings())
