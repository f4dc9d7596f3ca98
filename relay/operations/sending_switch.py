"""The switch of all sending: one row, which every relay on every host reads in each poll."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from outbox.control.tenancy import operator_only
from outbox.errors import OutboxError
from outbox.subscriptions.checks import check_reason

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

__all__ = ["Resumed", "Sending", "SendingError", "pause_all", "read_sending", "resume_all", "resume_sending"]


class SendingError(OutboxError):
    """The switch is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Since when, why and by whom all sending is paused; all None where it is not. `actor` is '' where nobody said."""

    paused_at: datetime | None
    reason: str | None
    actor: str | None

    @property
    def is_paused(self) -> bool:
        """Whether nothing is sent."""
        return self.paused_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Sending):
    """How the switch stands after it was resumed, and for how long all was paused; None where it was not."""

    paused_seconds: float | None


_COLUMNS = "paused_at, reason, actor"
_READ = text(f"select {_COLUMNS} from outbox.sending")  # noqa: S608 - a constant
# The trigger on it writes the actor, and the audit.
_PAUSE = text(f"""
update outbox.sending set paused_at = coalesce(paused_at, clock_timestamp()), reason = coalesce(:reason, reason)
returning {_COLUMNS}
""")  # noqa: S608
_RESUME = text(f"update outbox.sending set paused_at = null, reason = null returning {_COLUMNS}")  # noqa: S608


def read_sending(connection: Connection, tenant: str | None) -> Sending:
    """Return how the switch stands. For the operator only."""
    operator_only(tenant, "sending")
    row = connection.execute(_READ).mappings().one_or_none()
    return Sending(paused_at=None, reason=None, actor=None) if row is None else Sending(**row)


def pause_all(connection: Connection, tenant: str | None, reason: str | None = None) -> Sending:
    """Stop all sending, of every relay on every host, from the commit on; for the operator only.

    Within a second no attempt begins any more; what is on the wire ends and is settled. What was leased and not sent is
    given back, uncharged. Events are recorded and resolved as ever. Pausing twice keeps the first time, and the reason
    unless another is given.

    Args:
        connection: in a transaction.
        tenant: None; it is for the operator only.
        reason: why, for everybody who looks; 1 to 500 bytes.

    Raises:
        SubscriptionError: the reason was refused.
        SendingError: somebody deleted the switch's row.
    """
    operator_only(tenant, "sending")
    given = None if reason is None else check_reason(reason)
    row = connection.execute(_PAUSE, {"reason": given}).mappings().one_or_none()
    if row is None:
        raise SendingError("sending: the row of outbox.sending is gone; insert into outbox.sending default values")
    return Sending(**row)


def resume_all(connection: Connection, tenant: str | None) -> Sending:
    """Let all relays send again what is due; return how the switch stood before. For the operator only."""
    before = read_sending(connection, tenant)
    connection.execute(_RESUME)
    return before


_SECONDS_SINCE = text("select extract(epoch from clock_timestamp() - cast(:since as timestamptz))")


def resume_sending(connection: Connection, tenant: str | None) -> Resumed:
    """The same as `resume_all`; return how the switch stands now, and how long it was paused."""
    before = resume_all(connection, tenant)
    seconds = connection.execute(_SECONDS_SINCE, {"since": before.paused_at}).scalar_one()
    now = read_sending(connection, tenant)
    return Resumed(**asdict(now), paused_seconds=None if seconds is None else float(seconds))
