"""How long events, answers and dead letters of a tenant are kept, where that is shorter than for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox._text import MAX_TENANT_BYTES, complaint
from outbox.control.tenancy import operator_only
from outbox.errors import OutboxError
from outbox.subscriptions.checks import check_tenant

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["TenantRetention", "TenantRetentionError", "list_tenant_retention", "set_tenant_retention"]

_LONGEST_DAYS = 36_500


class TenantRetentionError(OutboxError):
    """A retention was refused; nothing was changed. The message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRetention:
    """So many days; None: as for every tenant.

    events: those that are done. attempts: what endpoints answered, which is blanked; the attempt stays on record.
    """

    name: str
    events_days: int | None = None
    attempts_days: int | None = None
    dead_letters_days: int | None = None

    def __post_init__(self) -> None:
        check_tenant(self.name)
        for field in ("events_days", "attempts_days", "dead_letters_days"):
            days = getattr(self, field)
            if days is not None and (isinstance(days, bool) or not 1 <= days <= _LONGEST_DAYS):
                raise TenantRetentionError(f"{field}: {days!r} is not a whole number from 1 to {_LONGEST_DAYS}")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shorter than for all."""
        return self.events_days is None and self.attempts_days is None and self.dead_letters_days is None


_SET = text("""
insert into outbox.tenant_retention (tenant, events_days, attempts_days, dead_letters_days)
values (:name, :events_days, :attempts_days, :dead_letters_days)
on conflict (tenant) do update set events_days = excluded.events_days, attempts_days = excluded.attempts_days,
                                   dead_letters_days = excluded.dead_letters_days
""")
_REMOVE = text("delete from outbox.tenant_retention where tenant = :name")
_LIST = text("""
select tenant as name, events_days, attempts_days, dead_letters_days from outbox.tenant_retention
where cast(:after as text) is null or tenant > cast(:after as text) collate "C" order by tenant limit :limit
""")


def set_tenant_retention(connection: Connection, tenant: str | None, retention: TenantRetention) -> None:
    """Keep what is a tenant's for so long from now on; one that is empty takes the setting away. It is audited.

    What is undelivered is kept, however old. Nothing younger than least_retention_days in outbox.settings goes.

    Raises:
        NotFoundError: a tenant asks; it is for the operator only.
    """
    operator_only(tenant, "retention of tenants")
    values = {
        "name": retention.name, "events_days": retention.events_days, "attempts_days": retention.attempts_days,
        "dead_letters_days": retention.dead_letters_days,
    }  # fmt: skip
    connection.execute(_REMOVE if retention.is_empty else _SET, values)


def list_tenant_retention(
    connection: Connection, tenant: str | None, *, after: str | None = None, limit: int = 100
) -> tuple[TenantRetention, ...]:
    """Return what is set for tenants, by name, after this one. Operator only.

    Raises TenantRetentionError where `after` could be no name.
    """
    operator_only(tenant, "retention of tenants")
    if after is not None and (refused := complaint("after", after, MAX_TENANT_BYTES)):
        raise TenantRetentionError(refused)
    rows = connection.execute(_LIST, {"after": after, "limit": limit}).mappings()
    return tuple(TenantRetention(**row) for row in rows)
